"""Which sources of evidence spoke, on which node, and which were missing or lost reports."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

import msgspec

from kptrace.model import (
    CapturedPacket,
    ConntrackEntry,
    DropEvent,
    EventsLost,
    EvidenceSource,
    RuleTraceEvent,
)
from kptrace.protocol import (
    CGROUP_UNAVAILABLE,
    NETNS_UNAVAILABLE,
    CaptureStarted,
    FileContent,
    Reply,
    SourceUnavailable,
)
from kptrace.protocol.recording import AGENT, Recording, sender_was_there

HOST = "host"  # the layer of a node whose own namespace could not be entered
NAMES = ("capture", "rules", "drops", "conntrack")


def layers(run: Recording) -> tuple[EvidenceSource, ...]:
    """One for each source and node that was looked at, and those that could not be had."""
    facts = [r for r in run.replies if isinstance(r, FileContent)]
    looked_at = tuple(dict.fromkeys(fact.netns for fact in facts if fact.file != NETNS_UNAVAILABLE))
    nodes = tuple(dict.fromkeys(netns.node for netns in looked_at))
    hosts = {netns.node for netns in looked_at if not netns.pod}
    counts = _told(run.replies)
    lost = _lost(run.replies)
    unarmed = [u for r in run.replies if isinstance(r, CaptureStarted) for u in r.unarmed]
    shut = {layer.node: layer for layer in run.unavailable if layer.name == HOST}
    sources = [
        EvidenceSource(
            name=name,
            node=node,
            reports=counts[node, name],
            lost=lost[node, name],
            unavailable=_why(unarmed, node, name) or _unseen(name, node in hosts, shut.get(node)),
            hint=next((u.hint for u in _of(unarmed, node, name)), ""),
        )
        for node in nodes
        for name in NAMES
    ]
    sources += [
        EvidenceSource(
            name="cgroup", node=fact.netns.node, unavailable=fact.unavailable, hint=fact.hint
        )
        for fact in facts
        if fact.file == CGROUP_UNAVAILABLE and fact.netns == run.source.netns
    ]
    blind = () if sender_was_there(run) else ("state", *NAMES, "dns")
    absent = [source for layer in run.unavailable for source in _taken_along(layer, run, blind)]
    return (*sources, *absent)


def _taken_along(
    layer: EvidenceSource, run: Recording, names: Iterable[str]
) -> Iterable[EvidenceSource]:
    """Without the agent that was to send, every source of evidence is missing for its reason."""
    if layer.name != AGENT or layer.node != run.source.netns.node or not names:
        return (layer,)
    return (msgspec.structs.replace(layer, name=name) for name in names)


def _unseen(name: str, host: bool, shut: EvidenceSource | None) -> str:
    """Conntrack is asked in nodes' own namespaces; ``shut``: why that could not be entered."""
    if host or name != "conntrack":
        return ""
    return shut.unavailable if shut else "the node's own namespace was not looked at"


def _told(replies: Iterable[Reply]) -> Counter[tuple[str, str]]:
    counts: Counter[tuple[str, str]] = Counter()
    for reply in replies:
        match reply:
            case CapturedPacket():
                counts[reply.netns.node, "capture"] += 1
            case RuleTraceEvent():
                counts[reply.netns.node, "rules"] += 1
            case DropEvent():
                counts[reply.node, "drops"] += 1
            case ConntrackEntry():
                counts[reply.netns.node, "conntrack"] += 1
    return counts


def _lost(replies: Iterable[Reply]) -> Counter[tuple[str, str]]:
    lost: Counter[tuple[str, str]] = Counter()
    for reply in replies:
        if isinstance(reply, EventsLost):
            lost[reply.netns.node, reply.source] += reply.count
    return lost


def _of(unarmed: Iterable[SourceUnavailable], node: str, name: str) -> list[SourceUnavailable]:
    return [u for u in unarmed if u.netns.node == node and u.source.startswith(name)]


def _why(unarmed: Iterable[SourceUnavailable], node: str, name: str) -> str:
    reasons = dict.fromkeys(
        f"{u.reason}" + (f" (in {u.netns.name})" if u.netns.pod else "")
        for u in _of(unarmed, node, name)
    )
    return "; ".join(reasons)
