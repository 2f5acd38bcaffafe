"""What changed while a trace ran: the rules that it read, the endpoints that the API told."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from kptrace.diagnose.phrases import end
from kptrace.model import Endpoint, EvidenceSource, Netns
from kptrace.rules.live.queries import RuleQuery

CHANGE = "change"  # the layer that is missing where something did not rest
_NAMED = 2


def rules_changed(netns: Netns, parts: Sequence[RuleQuery]) -> EvidenceSource:
    """``parts``: those that were other after the probe than when they were read."""
    whose = netns.name if netns.pod else netns.node
    named = _some(list(dict.fromkeys(map(_words, parts))))
    return EvidenceSource(
        name=CHANGE,
        node=netns.node,
        unavailable=f"the rules of {whose} changed while this ran ({named}); "
        "those that the probe met may be older or newer than those told here",
        hint="trace once more",
    )


def endpoints_changed(
    node: str, service: str, before: Iterable[Endpoint], now: Iterable[Endpoint]
) -> tuple[EvidenceSource, ...]:
    """None, or one: the ready endpoints are others by now."""
    old, new = _ready(before), _ready(now)
    texts = [f"{address} went" for address in old if address not in new]
    texts += [f"{address} came" for address in new if address not in old]
    if not texts:
        return ()
    return (
        EvidenceSource(
            name=CHANGE,
            node=node,
            unavailable=f"the endpoints of {service} changed while this ran ({_some(texts)})",
            hint="trace once more",
        ),
    )


def _ready(endpoints: Iterable[Endpoint]) -> dict[str, None]:
    return {end(endpoint.address, endpoint.port): None for endpoint in endpoints if endpoint.ready}


def _some(texts: Sequence[str]) -> str:
    more = f" and {len(texts) - _NAMED} more" if len(texts) > _NAMED else ""
    return ", ".join(texts[:_NAMED]) + more


def _words(part: RuleQuery) -> str:
    table = f" of {part.family} {part.table}" if part.table else ""
    return f"{part.kind} {part.name}".rstrip() + table
