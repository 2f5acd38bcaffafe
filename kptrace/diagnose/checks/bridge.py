"""Causes at the bridge of a node: answers that no conntrack translates back, frames that may not
return where they came from.

With bridge-nf-call-iptables=0 a Service works as long as its backend is on another node. With the
backend on the same bridge the request is routed (and translated), but the answer is switched from
port to port below IP, where no conntrack sees it: the client gets a SYN-ACK from an address that
it never spoke to, and resets it.
"""

from __future__ import annotations

from collections.abc import Iterator

from kptrace.diagnose.phrases import end, entry_words, last_seen
from kptrace.diagnose.probe_evidence import ProbeEvidence
from kptrace.model import CapturedPacket, Finding, Netns


def diagnose(case: ProbeEvidence) -> Iterator[Finding]:
    stray = _stray_answer(case)
    if stray is not None:
        yield from _untranslated_answer(case, stray)
    elif case.branch is not None and case.branch.cause == "hairpin-off":
        yield from _hairpin(case)


def _stray_answer(case: ProbeEvidence) -> CapturedPacket | None:
    """An answer that reached the sender from the backend's own address."""
    backend = case.backend
    for sighting in case.journey.back:
        flow = sighting.packet.innermost.flow
        arrived = sighting.netns == case.source.netns and sighting.direction == "in"
        if arrived and backend and (flow.src, flow.sport) == backend:
            return sighting
    return None


def _untranslated_answer(case: ProbeEvidence, stray: CapturedPacket) -> Iterator[Finding]:
    final = case.final
    snapshot = case.snapshots.get(Netns(node=case.node))
    if snapshot is None or final is None:
        return
    name = f"net.bridge.bridge-nf-call-ip{'6' if final.ipv6 else ''}tables"
    if snapshot.sysctl(name) not in (0, None):
        return
    value = snapshot.sysctl(name)
    said = f"sysctl {name} = 0" if value == 0 else f"{name} does not exist: no br_netfilter"
    flow = stray.packet.innermost.flow
    requested = end(case.resolution.address, case.resolution.port)
    evidence = [
        f"{said} on {case.node}",
        f"the answer reached the sender from {end(flow.src, flow.sport)}, not from {requested}",
    ]
    if case.entry is not None:
        evidence.append(entry_words(case.entry))
    yield Finding(
        cause="bridge-nf-off",
        severity="error",
        node=case.node,
        object=name,
        summary=f"{case.node} does not pass bridged frames to iptables, so the answer of a backend "
        "on the same bridge is never translated back",
        evidence=tuple(evidence),
        remedy=(
            f"modprobe br_netfilter; sysctl -w {name}=1  # on {case.node}",
            "and make it last: /etc/modules-load.d, /etc/sysctl.d",
        ),
    )


def _hairpin(case: ProbeEvidence) -> Iterator[Finding]:
    branch = case.branch
    if branch is None:
        return
    port = branch.object or "the pod's bridge port"
    yield Finding(
        cause="hairpin-off",
        severity="error",
        node=case.node,
        object=port,
        summary="the pod is its own backend, and its bridge port may not send a frame back where "
        "it came from",
        evidence=(*last_seen(case), branch.full_description),
        remedy=("bridge link set dev VETH hairpin on  # or hairpinMode: true in the CNI's config",),
    )
