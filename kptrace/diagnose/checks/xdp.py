"""Causes in XDP programs: they see what comes in before any tap, and may throw it away.

A driver that drops a raw frame for its program reports nothing (XDP_DROP ends before there is an
skb). Where the program meets an skb, the drop report names a function of XDP: veth_xdp_rcv_skb, or
do_xdp_generic with the reason XDP (net/core/dev.c).
"""

from __future__ import annotations

from collections.abc import Iterator

from kptrace.diagnose.phrases import drop_report, last_seen, whose
from kptrace.diagnose.probe_evidence import ProbeEvidence
from kptrace.model import DropEvent, Finding, SimulatedStep


def diagnose(evidence: ProbeEvidence) -> Iterator[Finding]:
    drop = next((drop for drop in evidence.drops if _by_program(drop)), None)
    if drop is None or drop.netns is None or not drop.interface:
        return
    link = evidence.link(drop.netns, drop.interface)
    named = f" {link.xdp}" if link is not None and link.xdp else ""
    where = f"{drop.interface} of {whose(drop.netns)}"
    yield Finding(
        cause="xdp-drop",
        severity="error",
        node=drop.node,
        object=f"XDP program{named} on {drop.interface}",
        summary=f"the XDP program{named} on {where} dropped it",
        evidence=(drop_report(evidence, drop), *last_seen(evidence)),
        remedy=_mends(drop.interface, drop.node),
    )


def _by_program(drop: DropEvent) -> bool:
    return drop.reason == "XDP" or "xdp" in drop.location.partition("+")[0]


def perhaps(evidence: ProbeEvidence, following: SimulatedStep, program: str) -> Finding:
    """It was never seen on a device with a program: that, or the wire, lost it."""
    node, interface = following.netns.node, following.interface
    return Finding(
        cause="lost-unexplained",
        severity="error",
        node=node,
        object=f"{interface} with XDP program {program}",
        summary=f"the packet was lost before the tap on {interface} of {node}: by its XDP program "
        f"{program}, or on the wire",
        evidence=(
            *last_seen(evidence),
            f"{interface} of {node} has the XDP program {program}; what it drops, no tap shows",
        ),
        remedy=_mends(interface, node),
    )


def _mends(interface: str, node: str) -> tuple[str, ...]:
    return (
        f"ip -d link show dev {interface}  # on {node}: whose program is it?",
        f"ip link set dev {interface} xdp off  # on {node}, for a test; then trace again",
    )
