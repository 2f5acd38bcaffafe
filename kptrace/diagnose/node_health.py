"""What is wrong with one node by itself, whatever packet comes: sysctls, MTUs, tables that fill up.

In: a node's Snapshot and its files. Out: Findings. Whether packets between pods get through is
asked of the walk (diagnose/pod_connectivity.py); here stands what no single packet shows, or shows
only now and then.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from kptrace.model import Finding, Flow
from kptrace.model.family import Family
from kptrace.simulate.ip.bridge import netfilter_off
from kptrace.simulate.ip.routing import RouteQuery, lookup
from kptrace.simulate.snapshot.network import Link
from kptrace.simulate.snapshot.snapshot import Snapshot

FULL, NEARLY = 0.95, 0.80
STATS = "conntrack-stats.txt"
_COUNTER = re.compile(r"\b(drop|insert_failed)=(\d+)")
_COUNTERS = {
    "drop": ("conntrack-full", "dropped {} packets because the table of connections had no room"),
    "insert_failed": ("conntrack-insert-failed", "could not enter {} packets' connections"),
}


def health(snapshot: Snapshot, files: Mapping[str, str]) -> Iterator[Finding]:
    node = snapshot.netns.node
    yield from _bridged(node, snapshot)
    yield from _filling(
        node,
        "conntrack-full",
        "connections",
        snapshot.sysctl("net.netfilter.nf_conntrack_count"),
        "net.netfilter.nf_conntrack_max",
        snapshot,
    )
    yield from _counted(node, files.get(STATS, ""))
    for family in Family:
        entries = [
            neighbour for neighbour in snapshot.neighbours if Family.of(neighbour.address) is family
        ]
        learned = sum(not entry.permanent for entry in entries)  # the others are not counted
        name = f"net.ipv{family.version}.neigh.default.gc_thresh3"
        yield from _filling(node, "neighbour-table-full", "neighbours", learned, name, snapshot)
    for link in snapshot.links:
        yield from _tunnel_mtu(node, snapshot, link)


# --- bridges --------------------------------------------------------------------------------------


def _bridged(node: str, snapshot: Snapshot) -> Iterator[Finding]:
    """Bridges to which pods hang: only there answers can pass conntrack by."""
    for bridge in snapshot.links:
        ports = [port for port in snapshot.ports(bridge.name) if port.kind == "veth"]
        off = netfilter_off(snapshot, bridge, Family.IPV4)
        if (
            bridge.kind != "bridge"
            or not ports
            or not off
            or not snapshot.on(bridge.name, Family.IPV4)
        ):
            continue
        yield Finding(
            cause="bridge-nf-off",
            severity="error",
            node=node,
            object="net.bridge.bridge-nf-call-iptables",
            summary=f"{node} does not pass what goes from pod to pod on {bridge.name} to iptables: "
            "a Service whose backend is on the client's node does not answer",
            evidence=(f"{off}; {len(ports)} pods hang on {bridge.name}",),
            remedy=(
                f"modprobe br_netfilter; sysctl -w net.bridge.bridge-nf-call-iptables=1"
                f"  # on {node}",
                "and make it last: /etc/modules-load.d, /etc/sysctl.d",
            ),
        )


# --- tables ---------------------------------------------------------------------------------------


def _filling(
    node: str, cause: str, what: str, count: int | None, sysctl: str, snapshot: Snapshot
) -> Iterator[Finding]:
    most = snapshot.sysctl(sysctl)
    if not most or count is None or count < NEARLY * most:
        return
    full = count >= FULL * most
    yield Finding(
        cause=cause,
        severity="error" if full else "warning",
        node=node,
        object=sysctl,
        summary=f"{node} holds {count} {what} of at most {most} ({count / most:.0%})",
        evidence=(f"{sysctl} = {most}",),
        remedy=(f"sysctl -w {sysctl}={2 * most}  # on {node}",),
    )


def _counted(node: str, stats: str) -> Iterator[Finding]:
    """Counters since boot: that it happened is sure, that it still does is not."""
    for name, (cause, text) in _COUNTERS.items():
        total = sum(int(value) for counter, value in _COUNTER.findall(stats) if counter == name)
        if not total:
            continue
        yield Finding(
            cause=cause,
            severity="warning",
            node=node,
            object=f"{name} of conntrack -S",
            summary=f"{node} {text.format(total)} since it was booted",
            evidence=(f"conntrack -S: {name}={total} on all processors together",),
            remedy=(f"conntrack -S  # on {node}: does {name} still rise?",),
        )


# --- MTU ------------------------------------------------------------------------------------------


def _tunnel_mtu(node: str, snapshot: Snapshot, link: Link) -> Iterator[Finding]:
    """A tunnel's packets that do not fit the device below it: suggestive, not yet a lost packet."""
    remote = _remote(snapshot, link)
    if not remote or not link.up:
        return
    under = lookup(snapshot, RouteQuery(flow=Flow(protocol="", src="", dst=remote)))
    below = snapshot.link(under.nexthops[0].interface) if under.nexthops else None
    if below is None or below.name == link.name:
        return
    overhead = link.overhead(ipv6=":" in remote)
    room = below.mtu - overhead
    if link.mtu > room:
        yield Finding(
            cause="mtu-exceeded",
            severity="warning",
            node=node,
            object=f"MTU of {link.name}",
            summary=f"{link.name} on {node} takes packets of {link.mtu} bytes, and with "
            f"{overhead} more for the tunnel they do not fit {below.name} ({below.mtu})",
            evidence=(f"mtu {link.mtu} of {link.name}, {below.mtu} of {below.name} below it",),
            remedy=(f"ip link set {link.name} mtu {room}  # on {node}; and in the CNI's config",),
        )


def _remote(snapshot: Snapshot, link: Link) -> str:
    """Some node behind the tunnel."""
    for tunnel in (link.geneve, link.gre):
        if tunnel is not None:
            return tunnel.remote
    if link.wireguard is not None:
        ends = (peer.endpoint[0] for peer in link.wireguard.peers if peer.endpoint)
        return next(ends, "")
    if link.vxlan is not None:
        ends = (
            fdb_entry.destination for fdb_entry in snapshot.fdb if fdb_entry.interface == link.name
        )
        return link.vxlan.remote or next(filter(None, ends), "")
    if link.ipip is None:
        return ""
    gateways = (
        hop.gateway
        for route in snapshot.routes
        for hop in route.nexthops
        if hop.interface == link.name
    )
    return link.ipip.remote or next(filter(None, gateways), "")
