"""Evidence in words: one line for each thing that the kernel said about a Case."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from kptrace.model import (
    CapturedPacket,
    ConntrackEntry,
    DropEvent,
    Flow,
    Netns,
    RuleRef,
    SimulatedStep,
)

if TYPE_CHECKING:  # whoever only writes addresses needs no case
    from kptrace.diagnose.chain_traversal import ChainTraversal, MatchedRuleEvent
    from kptrace.diagnose.probe_evidence import ProbeEvidence

HOOK_TABLE = "filter"


def last_seen(evidence: ProbeEvidence) -> Iterator[str]:
    """Where the probe or its answer was seen last, and where it should have been seen next."""
    last, whose = evidence.last, ""
    if last is None:
        yield "the probe was seen on no interface"
        return
    if (answer := answered(evidence)) is not None:
        last, whose = answer, "its answer was "
    where = f"{last.interface} of {place_name(last)}"
    when = evidence.at(last.netns.node, last.time_ns)
    yield f"{whose}last seen going {last.direction} on {where} at {when}"
    following = next_predicted(evidence)
    if following is not None:
        yield f"never seen on {following.interface} of {step_place(following)}"


def answered(evidence: ProbeEvidence) -> CapturedPacket | None:
    """The last sighting of an answer that the backend itself sent."""
    seen = [s for s in evidence.journey.back if s.packet.innermost.icmp is None]
    return seen[-1] if seen else None


def next_predicted(evidence: ProbeEvidence) -> SimulatedStep | None:
    """The first crossing that was predicted after the last one that was seen, and that a tap must
    have shown.
    """
    answer = answered(evidence)
    last = answer or evidence.last
    steps = evidence.branch.steps if evidence.branch else ()
    if answer is not None:
        replying = (n for n, step in enumerate(steps) if step.action == "reply")
        steps = steps[next(replying, len(steps)) :]
    crossings = [step for step in steps if step.action == "seen"]
    for index, step in enumerate(crossings):
        if last and (step.netns, step.interface, step.direction) == (
            last.netns,
            last.interface,
            last.direction,
        ):
            return next(
                (step for step in crossings[index + 1 :] if not evidence.silent(step)), None
            )
    return None


def place_name(sighting: CapturedPacket) -> str:
    return whose(sighting.netns)


def step_place(step: SimulatedStep) -> str:
    return whose(step.netns)


def whose(netns: Netns) -> str:
    return f"pod {netns.pod}" if netns.pod else netns.node


def there(netns: Netns) -> str:
    """``on node-b``; ``in pod shop/web-1 on node-b``: where a command is to be run."""
    return f"in pod {netns.pod} on {netns.node}" if netns.pod else f"on {netns.node}"


def rule_name(ref: RuleRef) -> str:
    """``filter INPUT 3``; ``filter FORWARD policy``."""
    number = f"{ref.number}" if ref.number else "policy"
    return f"{ref.table} {ref.chain} {number}"


def rule_hit(traversal: ChainTraversal, met: MatchedRuleEvent) -> str:
    verb = "drop" if met.drops else "reject"
    text = f": {met.ref.text}" if met.ref.text and met.ref.number else ""
    return f"rule trace {there(traversal.place)}: {rule_name(met.ref)}{text}, verdict {verb}"


def drop_report(evidence: ProbeEvidence, drop: DropEvent) -> str:
    where = f" of {drop.netns.name}" if drop.netns and drop.netns.pod else ""
    interface = f", {drop.interface}{where}" if drop.interface else ""
    when = evidence.at(drop.node, drop.time_ns)
    return (
        f"kernel drop report on {drop.node}: {drop.reason} in {drop.location}{interface} at {when}"
    )


def entry_words(entry: ConntrackEntry) -> str:
    """``conntrack on node-a: 10.244.1.10:41515 > 10.96.0.50:80, answered by 10.244.2.20:8080``.

    IPVS' own table does not tell whether an answer was seen.
    """
    ipvs = "IPVS" in entry.status
    state = f", {entry.state}" if entry.state else ""
    silent = "" if ipvs or "SEEN_REPLY" in entry.status else ", no reply seen"
    return (
        f"{'IPVS connections' if ipvs else 'conntrack'} on {entry.netns.node}: "
        f"{flow_words(entry.original)}, "
        f"reply expected from {end(entry.reply.src, entry.reply.sport)}{state}{silent}"
    )


def no_entry(evidence: ProbeEvidence) -> Iterator[str]:
    """The entry where there is one; that there is none means: dropped before it was confirmed."""
    if evidence.entry is not None:
        yield entry_words(evidence.entry)


def flow_words(flow: Flow) -> str:
    return f"{end(flow.src, flow.sport)} > {end(flow.dst, flow.dport)}"


def end(address: str, port: int) -> str:
    """An address with its port as one writes it."""
    if not port:
        return address
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"
