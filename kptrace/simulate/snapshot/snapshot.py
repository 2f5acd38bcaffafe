"""Snapshot: all that decides a packet's fate in one network namespace, at one moment.

A file that is not there is named in ``missing``; what would have stood in it then counts as empty,
and a sysctl as a healthy node has it (``DEFAULTS``).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cached_property

import msgspec

from kptrace.model import Flow, Netns, RuleRef, Value
from kptrace.model.addresses import address, network
from kptrace.model.family import Family
from kptrace.rules.ipvs.ipvsadm import VirtualService
from kptrace.rules.load import load_ruleset
from kptrace.rules.model.ruleset import Rule, Ruleset
from kptrace.simulate.bpf.programs import BpfDatapath
from kptrace.simulate.snapshot.iproute2 import (
    read_addresses,
    read_fdb,
    read_links,
    read_neighbours,
    read_routes,
    read_rules,
    read_sysctls,
)
from kptrace.simulate.snapshot.listening_sockets import FILE as LISTENING
from kptrace.simulate.snapshot.listening_sockets import Listener, read_listeners
from kptrace.simulate.snapshot.network import (
    FdbEntry,
    InterfaceAddress,
    Link,
    Neighbour,
    Nexthop,
    Route,
    RoutingRule,
)
from kptrace.simulate.snapshot.wg_show import SHOW, read_wireguard

# what a node needs to carry Service traffic, taken as so when no sysctl.txt says otherwise
DEFAULTS = {
    "net.ipv4.ip_forward": 1,
    "net.ipv6.conf.all.forwarding": 1,
    "net.bridge.bridge-nf-call-iptables": 1,
    "net.bridge.bridge-nf-call-ip6tables": 1,
    "net.ipv4.vs.conntrack": 1,
}

# the kernel's own (net/core/fib_rules.c, net/ipv4/fib_rules.c) when no ip-rule.json says otherwise
_TABLES = {
    Family.IPV4: ((0, "local"), (32766, "main"), (32767, "default")),
    Family.IPV6: ((0, "local"), (32766, "main")),
}
DEFAULT_RULES = {
    family: tuple(
        RoutingRule(
            priority=priority, family=family, table=table, text=f"{priority}: lookup {table}"
        )
        for priority, table in tables
    )
    for family, tables in _TABLES.items()
}

# without these the answer rests on what is usual, so they are named when they are not there
_ESSENTIAL = ("ip-addr.json", "ip-route.json", "sysctl.txt")


class Snapshot(Value, dict=True, kw_only=True):
    """The state of one namespace, with an index for each question that the simulation asks.

    sysctls: None where they were not read
    missing: names of the files that were not there
    programs: what BPF programs do here, where a plugin knows them
    listeners: None where they were not read
    """

    netns: Netns
    links: tuple[Link, ...] = ()
    addresses: tuple[InterfaceAddress, ...] = ()
    routes: tuple[Route, ...] = ()
    policy: tuple[RoutingRule, ...] = ()
    neighbours: tuple[Neighbour, ...] = ()
    fdb: tuple[FdbEntry, ...] = ()
    sysctls: Mapping[str, str] | None = None
    ruleset: Ruleset
    missing: tuple[str, ...] = ()
    programs: BpfDatapath | None = None
    listeners: tuple[Listener, ...] | None = None

    @cached_property
    def refs(self) -> dict[int, tuple[Rule, RuleRef]]:
        """Rules that were met, by identity, so that each is described once."""
        return {}

    @cached_property
    def _by_name(self) -> dict[str, Link]:
        return {link.name: link for link in self.links}

    @cached_property
    def _by_index(self) -> dict[int, Link]:
        return {link.index: link for link in self.links}

    @cached_property
    def _held(self) -> dict[str, InterfaceAddress]:
        return {str(address(held.address)): held for held in self.addresses}

    @cached_property
    def _resolved(self) -> dict[tuple[str, str], Neighbour]:
        return {
            (neighbour.interface, str(address(neighbour.address))): neighbour
            for neighbour in self.neighbours
            if not neighbour.proxy
        }

    @cached_property
    def _tables(self) -> dict[tuple[str, Family], tuple[Route, ...]]:
        tables: dict[tuple[str, Family], list[Route]] = {}
        for route in (*self.routes, *self._implied()):
            tables.setdefault((route.table, route.family), []).append(route)
        return {key: tuple(routes) for key, routes in tables.items()}

    def _implied(self) -> list[Route]:
        """Return the local routes that every address brings, where the local table was not
        dumped.
        """
        families = {route.family for route in self.routes if route.table == "local"}
        return [
            Route(
                destination=network(held.address),
                type="local",
                table="local",
                nexthops=(Nexthop(interface=held.interface),),
                source=held.address,
                scope="host",
                text=f"local {held.address} dev {held.interface}",
            )
            for held in self.addresses
            if Family.of(held.address) not in families
        ]

    @cached_property
    def virtual(self) -> dict[tuple[str, str, int], VirtualService]:
        """IPVS services by (protocol, address, port), or (``fwmark``, family, mark)."""
        return {
            ("fwmark", service.family, service.fwmark)
            if service.protocol == "fwmark"
            else (service.protocol, service.address, service.port): service
            for service in self.ruleset.ipvs
        }

    @property
    def links_are_known(self) -> bool:
        """Whether a list of the devices was read; every network namespace has at least lo."""
        return any(link.index > 0 for link in self.links)

    def serves(self, flow: Flow) -> bool:
        """Whether IPVS has a service for this destination."""
        return (flow.protocol, flow.dst, flow.dport) in self.virtual

    def unbound(self, flow: Flow) -> bool:
        """Whether IPVS serves this destination, but no device has the address, so packets
        miss it.
        """
        return self.serves(flow) and self.holds(flow.dst) is None

    def table(self, name: str, family: Family) -> tuple[Route, ...]:
        """Return the routes of a table, of one family."""
        return self._tables.get((name, family), ())

    def link(self, name: str) -> Link | None:
        return self._by_name.get(name)

    def link_at(self, index: int) -> Link | None:
        return self._by_index.get(index)

    def holds(self, text: str) -> InterfaceAddress | None:
        """Return the interface address that this namespace has of its own; None if it is not its
        own.
        """
        return self._held.get(text)

    def on(self, interface: str, family: Family) -> tuple[InterfaceAddress, ...]:
        """Return the addresses of an interface, in the kernel's order."""
        return tuple(
            held
            for held in self.addresses
            if held.interface == interface and Family.of(held.address) is family
        )

    def neighbour(self, interface: str, text: str) -> Neighbour | None:
        """Return the neighbour entry of an address on an interface."""
        return self._resolved.get((interface, text))

    def tunnel_entries(self, interface: str, mac: str) -> tuple[FdbEntry, ...]:
        """Return where a tunnel device sends frames for this MAC, its catch-all entries last."""
        entries = [
            entry for entry in self.fdb if entry.interface == interface and entry.destination
        ]
        exact = [entry for entry in entries if entry.mac == mac]
        return tuple(exact or [entry for entry in entries if entry.mac == "00:00:00:00:00:00"])

    def port_of(self, bridge: str, mac: str) -> str:
        """Return the port at which the bridge has learned this MAC; empty: it would flood."""
        for entry in self.fdb:
            if entry.master == bridge and entry.mac == mac and entry.interface != bridge:
                return entry.interface
        return ""

    def ports(self, bridge: str) -> tuple[Link, ...]:
        return tuple(link for link in self.links if link.master == bridge)

    def sysctl(self, name: str) -> int | None:
        """Return the value as a number; None where it is not known."""
        if self.sysctls is None:
            return DEFAULTS.get(name)
        text = self.sysctls.get(name)
        if text is None:
            return None
        return int(text) if text.lstrip("-").isdigit() else None

    def conf(self, family: Family, interface: str, name: str) -> int | None:
        """Return ``net.ipv4.conf.IF.name``; ``sysctl -a`` writes the dots of IF as slashes."""
        prefix = f"net.ipv{family.version}.conf"
        value = self.sysctl(f"{prefix}.{interface.replace('.', '/')}.{name}")
        return self.sysctl(f"{prefix}.{interface}.{name}") if value is None else value


def read_snapshot(netns: Netns, files: Mapping[str, str]) -> Snapshot:
    """Read a namespace's snapshot. Raises ParseError for a file that is not what its name says.

    files: name in the bundle -> text, already uncompressed
    """
    link_file = "ip-link.json" if "ip-link.json" in files else "ip-addr.json"
    routes = read_routes(files.get("ip-route.json", ""), "ip-route.json")
    seen = set(routes)  # `ip route show table all` prints IPv6 too
    more = read_routes(files.get("ip6-route.json", ""), "ip6-route.json")
    return Snapshot(
        netns=netns,
        links=tuple(_links(files, link_file)),
        addresses=read_addresses(files.get("ip-addr.json", ""), "ip-addr.json"),
        routes=routes + tuple(route for route in more if route not in seen),
        policy=_policy(files, Family.IPV4) + _policy(files, Family.IPV6),
        neighbours=read_neighbours(files.get("ip-neigh.json", ""), "ip-neigh.json"),
        fdb=read_fdb(files.get("bridge-fdb.json", ""), "bridge-fdb.json"),
        sysctls=(
            read_sysctls(files["sysctl.txt"], "sysctl.txt") if "sysctl.txt" in files else None
        ),
        ruleset=load_ruleset(files),
        missing=tuple(name for name in _ESSENTIAL if name not in files),
        listeners=read_listeners(files[LISTENING]) if LISTENING in files else None,
    )


def _links(files: Mapping[str, str], name: str) -> Iterator[Link]:
    devices = read_wireguard(files.get(SHOW, ""))
    for link in read_links(files.get(name, ""), name):
        wireguard = devices.get(link.name)
        yield msgspec.structs.replace(link, wireguard=wireguard) if wireguard else link


def _policy(files: Mapping[str, str], family: Family) -> tuple[RoutingRule, ...]:
    name = "ip-rule.json" if family is Family.IPV4 else "ip6-rule.json"
    return read_rules(files[name], name, family) if name in files else DEFAULT_RULES[family]
