"""Drops that a network's own monitor told of (Hubble, ``cilium-dbg monitor``), as findings.

In: what a plugin read of such a recording, and the Service that is asked about. Out: a warning for
each of its ends that packets were dropped for: what happened to others may happen again, and it is
no proof of what happens now.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from kptrace.diagnose.phrases import end, flow_words
from kptrace.model import Endpoint, Finding, Service
from kptrace.simulate.bpf.programs import BpfDatapath, MonitorDrop

MOST = 3


def diagnose(
    node: str, programs: BpfDatapath | None, service: Service, endpoints: Sequence[Endpoint]
) -> Iterator[Finding]:
    if programs is None or not programs.drops:
        return
    ends = {(endpoint.address, endpoint.port) for endpoint in endpoints}
    ends |= {(address, port.port) for address in service.cluster_ips for port in service.ports}
    by_end: dict[tuple[str, int, str], list[MonitorDrop]] = {}
    for drop in programs.drops:
        to = (drop.flow.dst, drop.flow.dport)
        if to in ends:
            by_end.setdefault((*to, drop.reason), []).append(drop)
    for (address, port, reason), drops in by_end.items():
        yield _finding(node, end(address, port), reason, drops)


def _finding(node: str, where: str, reason: str, drops: list[MonitorDrop]) -> Finding:
    policy = "POLICY" in reason.upper()
    count = f"{len(drops)} packets" if len(drops) > 1 else "a packet"
    return Finding(
        cause="policy-drop" if policy else "kernel-drop",
        severity="warning",
        node=drops[0].node or node,
        object=where,
        summary=f"{drops[0].by} saw {count} to {where} dropped: {reason or 'no reason told'}",
        evidence=tuple(_line(drop) for drop in drops[:MOST]),
        remedy=("kubectl get networkpolicy,ciliumnetworkpolicy -A  # which one selects it?",)
        if policy
        else (),
    )


def _line(drop: MonitorDrop) -> str:
    pods = f" ({drop.source or '?'} > {drop.destination or '?'})"
    return f"{drop.by}: {flow_words(drop.flow)}" + (pods if drop.source or drop.destination else "")
