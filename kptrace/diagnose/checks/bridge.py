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


def diagnose(evidence: ProbeEvidence) -> Iterator[Finding]:
    stray = _stray_answer(evidence)
    if stray is not None:
        yield from _untranslated_answer(evidence, stray)
    elif evidence.branch is not None and evidence.branch.cause == "hairpin-off":
        yield from _hairpin(evidence)


def _stray_answer(evidence: ProbeEvidence) -> CapturedPacket | None:
    """An answer that reached the sender from the backend's own address."""
    backend = evidence.backend
    for sighting in evidence.journey.back:
        flow = sighting.packet.innermost.flow
        arrived = sighting.netns == evidence.source.netns and sighting.direction == "in"
        if arrived and backend and (flow.src, flow.sport) == backend:
            return sighting
    return None


def _untranslated_answer(evidence: ProbeEvidence, stray: CapturedPacket) -> Iterator[Finding]:
    final = evidence.final
    snapshot = evidence.snapshots.get(Netns(node=evidence.node))
    if snapshot is None or final is None:
        return
    name = f"net.bridge.bridge-nf-call-ip{'6' if final.ipv6 else ''}tables"
    if snapshot.sysctl(name) not in (0, None):
        return
    value = snapshot.sysctl(name)
    said = f"sysctl {name} = 0" if value == 0 else f"{name} does not exist: no br_netfilter"
    flow = stray.packet.innermost.flow
    requested = end(evidence.resolution.address, evidence.resolution.port)
    lines = [
        f"{said} on {evidence.node}",
        f"the answer reached the sender from {end(flow.src, flow.sport)}, not from {requested}",
    ]
    if evidence.entry is not None:
        lines.append(entry_words(evidence.entry))
    yield Finding(
        cause="bridge-nf-off",
        severity="error",
        node=evidence.node,
        object=name,
        summary=f"{evidence.node} does not pass bridged frames to iptables, so the answer of a "
        "backend on the same bridge is never translated back",
        evidence=tuple(lines),
        remedy=(
            f"modprobe br_netfilter; sysctl -w {name}=1  # on {evidence.node}",
            "and make it last: /etc/modules-load.d, /etc/sysctl.d",
        ),
    )


def _hairpin(evidence: ProbeEvidence) -> Iterator[Finding]:
    branch = evidence.branch
    if branch is None:
        return
    port = branch.object or "the pod's bridge port"
    yield Finding(
        cause="hairpin-off",
        severity="error",
        node=evidence.node,
        object=port,
        summary="the pod is its own backend, and its bridge port may not send a frame back where "
        "it came from",
        evidence=(*last_seen(evidence), branch.full_description),
        remedy=("bridge link set dev VETH hairpin on  # or hairpinMode: true in the CNI's config",),
    )
