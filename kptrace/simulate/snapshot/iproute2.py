"""Readers of what ``ip -j`` and ``bridge -j`` print; the values are in ``network.py``.

Made for iproute2 6.1, with and without ``-d``; fields that are not needed are skipped. Each reader
takes the text of one file and its name, and returns the values in the order of the file; it raises
ParseError, which names the file, for a text that is not what its name says.

``ip -j`` prints a device's other end as ``link`` (a name, same namespace) or ``link_index`` (an
ifindex in another one); ``ip rule`` prints only what differs from "any".
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TypeVar

import msgspec

from kptrace.model.addresses import Network, address, network
from kptrace.model.errors import ParseError
from kptrace.model.family import Family
from kptrace.simulate.snapshot.iproute2_types import (
    AddrInfo,
    InfoData,
    RawFdb,
    RawLink,
    RawNeighbour,
    RawNexthop,
    RawRoute,
    RawRule,
)
from kptrace.simulate.snapshot.network import (
    FdbEntry,
    Geneve,
    Gre,
    InterfaceAddress,
    Ipip,
    Link,
    Neighbour,
    Nexthop,
    Route,
    RoutingRule,
    Vxlan,
)

Raw = TypeVar("Raw")
Noun = TypeVar("Noun")


def read_links(text: str, source: str) -> tuple[Link, ...]:
    """Read ``ip -d -j link`` or ``ip -j addr``."""
    raws = [raw for raw in _decode(text, source, RawLink) if raw.ifname]
    index = {raw.ifname: raw.ifindex for raw in raws}
    return _converted(raws, source, lambda raw: _link(raw, index))


def read_addresses(text: str, source: str) -> tuple[InterfaceAddress, ...]:
    """Read the IPv4 and IPv6 addresses of ``ip -j addr``."""
    pairs = [
        (raw.ifname, info)
        for raw in _decode(text, source, RawLink)
        for info in raw.addr_info
        if info.family in ("inet", "inet6") and info.local
    ]
    return _converted(pairs, source, lambda pair: _interface_address(*pair))


def read_routes(text: str, source: str) -> tuple[Route, ...]:
    """Read ``ip -j route show table all``, which prints both families, or ``ip -6 -j route``."""
    raws = _decode(text, source, RawRoute)
    return _converted(raws, source, lambda raw: _route(raw, _route_family(raw, source)))


def read_rules(text: str, source: str, family: Family) -> tuple[RoutingRule, ...]:
    """Read ``ip -j rule`` of one family."""
    return _converted(_decode(text, source, RawRule), source, lambda raw: _rule(raw, family))


def read_neighbours(text: str, source: str) -> tuple[Neighbour, ...]:
    """Read ``ip -j neigh``."""
    return _converted(_decode(text, source, RawNeighbour), source, _neighbour)


def read_fdb(text: str, source: str) -> tuple[FdbEntry, ...]:
    """Read ``bridge -j fdb``."""
    return _converted(_decode(text, source, RawFdb), source, _fdb)


def read_sysctls(text: str, source: str) -> dict[str, str]:
    """Read ``name = value`` lines; ``sysctl -a`` writes a dot of an interface's name as a slash."""
    values = {}
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip() or line.lstrip().startswith(("#", ";")):
            continue
        name, equals, value = line.partition("=")
        if not equals:
            raise ParseError(source, number, "not a `name = value` line", "make it with: sysctl -a")
        values[name.strip()] = value.strip()
    return values


def _decode(text: str, source: str, raw: type[Raw]) -> list[Raw]:
    if not text.strip():  # `ip -j` prints nothing at all when there is nothing to list
        return []
    try:
        # `[{},{...}]`: iproute2 prints an empty object for what its filter left out
        decoded = msgspec.json.decode(text)
        return msgspec.convert([entry for entry in decoded if entry != {}], list[raw])  # type: ignore[valid-type]
    except (msgspec.MsgspecError, TypeError, RecursionError) as error:
        hint = "the file must hold what `ip -j` or `bridge -j` printed, unchanged"
        raise ParseError(source, 0, f"not iproute2's JSON: {error}", hint) from None


def _converted(
    raws: Iterable[Raw], source: str, convert: Callable[[Raw], Noun]
) -> tuple[Noun, ...]:
    try:
        return tuple(convert(raw) for raw in raws)
    except ValueError as error:
        raise ParseError(source, 0, str(error), "is the file complete?") from None


def _link(raw: RawLink, index: dict[str, int]) -> Link:
    info = raw.linkinfo
    data = info.info_data
    veth_here = info.info_kind == "veth" and raw.link in index
    return Link(
        index=raw.ifindex,
        name=raw.ifname,
        kind=info.info_kind,
        mac=raw.address,
        mtu=raw.mtu,
        up="UP" in raw.flags,
        carrier="NO-CARRIER" not in raw.flags and "M-DOWN" not in raw.flags,
        loopback="LOOPBACK" in raw.flags,
        noarp="NOARP" in raw.flags,
        master=raw.master,
        peer=index[raw.link] if veth_here and raw.link else raw.link_index,
        peer_here=veth_here,
        hairpin=info.info_slave_data.hairpin,
        isolated=info.info_slave_data.isolated,
        nf_call=(bool(data.nf_call_iptables), bool(data.nf_call_ip6tables)),
        vxlan=_vxlan(data) if info.info_kind == "vxlan" else None,
        ipip=_ipip(data) if info.info_kind in ("ipip", "ip6tnl", "sit") else None,
        geneve=_geneve(data) if info.info_kind == "geneve" else None,
        gre=_gre(info.info_kind, data) if info.info_kind in _GRE else None,
        xdp=(raw.xdp.prog.name or str(raw.xdp.prog.id)) if raw.xdp else "",
    )


_GRE = {"gre": False, "ip6gre": False, "gretap": True, "ip6gretap": True}


def _vxlan(data: InfoData) -> Vxlan:
    return Vxlan(
        vni=data.id or 0,
        port=8472 if data.port is None else data.port,
        local=data.local or data.local6,
        remote=data.remote or data.remote6,
        learning=data.learning,
        external=data.external,
    )


def _ipip(data: InfoData) -> Ipip:
    return Ipip(local=_endpoint(data.local), remote=_endpoint(data.remote))


def _geneve(data: InfoData) -> Geneve:
    return Geneve(
        vni=data.id or 0,
        port=6081 if data.port is None else data.port,
        remote=_endpoint(data.remote or data.remote6),
        external=data.external,
    )


def _gre(kind: str, data: InfoData) -> Gre:
    return Gre(
        local=_endpoint(data.local),
        remote=_endpoint(data.remote),
        key_in=_key(data.ikey),
        key_out=_key(data.okey),
        framed=_GRE[kind],
        external=data.external,
    )


def _endpoint(text: str) -> str:
    return "" if text in ("", "any") else str(address(text))


def _key(text: str) -> int | None:
    """Return a GRE key, which iproute2 prints as if it were an address (``0.0.0.9``)."""
    return int(address(text)) if text else None


def _interface_address(interface: str, info: AddrInfo) -> InterfaceAddress:
    address(info.local)
    return InterfaceAddress(
        interface=interface,
        address=info.local,
        length=info.prefixlen,
        scope=info.scope,
        secondary=info.secondary,
        deprecated=info.deprecated,
        tentative=info.tentative,
    )


def _route_family(raw: RawRoute, source: str) -> Family:
    """Return the family of a route.

    ``default`` alone names none: an address does, or ``pref``, which IPv6 routes have.
    """
    for text in (raw.dst, raw.gateway, raw.prefsrc, *(hop.gateway for hop in raw.nexthops)):
        if ":" in text or "." in text:
            return Family.of(text)
    ipv6 = raw.pref is not msgspec.UNSET or source.startswith("ip6")
    return Family.IPV6 if ipv6 else Family.IPV4


def _route(raw: RawRoute, family: Family) -> Route:
    hops = tuple(_nexthop(hop) for hop in raw.nexthops)
    if not hops and raw.dev:
        hops = (_nexthop(RawNexthop(raw.gateway, raw.via, raw.dev, raw.weight, raw.flags)),)
    mtu = next((metric["mtu"] for metric in raw.metrics if isinstance(metric.get("mtu"), int)), 0)
    return Route(
        destination=network(family.everything if raw.dst == "default" else raw.dst),
        type=raw.type,
        table=raw.table,
        metric=raw.metric,
        nexthops=hops,
        source=raw.prefsrc,
        scope=raw.scope,
        mtu=mtu,
        onlink="onlink" in raw.flags,
        protocol=raw.protocol,
        text=_route_text(raw),
    )


def _nexthop(raw: RawNexthop) -> Nexthop:
    gateway = raw.gateway or (raw.via.host if raw.via else "")
    if gateway:
        address(gateway)
    return Nexthop(
        interface=raw.dev, gateway=gateway, weight=max(raw.weight, 1), dead="dead" in raw.flags
    )


def _route_text(raw: RawRoute) -> str:
    parts = [] if raw.type == "unicast" else [raw.type]
    parts.append(raw.dst)
    for hop in raw.nexthops or [RawNexthop(raw.gateway, raw.via, raw.dev)]:
        gateway = hop.gateway or (f"inet6 {hop.via.host}" if hop.via else "")
        parts += ["nexthop"] if raw.nexthops else []
        parts += ["via", gateway] if gateway else []
        parts += ["dev", hop.dev] if hop.dev else []
    parts += ["table", raw.table] if raw.table not in ("main", "local") else []
    parts += ["metric", str(raw.metric)] if raw.metric else []
    parts += ["onlink"] if "onlink" in raw.flags else []
    return " ".join(parts)


def _rule(raw: RawRule, family: Family) -> RoutingRule:
    opaque = any(selector is not None for selector in (raw.tos, raw.uid_start, raw.tun_id)) or (
        raw.l3mdev is not msgspec.UNSET or raw.suppress_ifgroup is not None
    )
    goto = raw.goto if isinstance(raw.goto, int) else int(raw.goto, 0)
    mark = None if raw.fwmark is None else int(raw.fwmark, 0)
    rule = RoutingRule(
        priority=raw.priority,
        family=family,
        table=raw.table,
        action=raw.action or ("goto" if goto else "lookup"),
        source=_selector(raw.src, raw.srclen),
        destination=_selector(raw.dst, raw.dstlen),
        iif=raw.iif,
        oif=raw.oif,
        mark=mark,
        mask=int(raw.fwmask, 0),
        protocol=raw.ipproto,
        sport=_ports(raw.sport, raw.sport_start, raw.sport_end),
        dport=_ports(raw.dport, raw.dport_start, raw.dport_end),
        inverted=raw.inverted is not msgspec.UNSET,
        suppress=raw.suppress_prefixlen,
        goto=goto,
        opaque=opaque,
    )
    return msgspec.structs.replace(rule, text=_rule_text(rule))


def _selector(text: str, length: int | None) -> Network | None:
    if text in ("all", "default", "any"):
        return None
    return network(text if length is None else f"{text}/{length}")


def _ports(single: int | None, start: int | None, end: int | None) -> tuple[int, int] | None:
    if single is not None:
        return single, single
    return None if start is None or end is None else (start, end)


def _rule_text(rule: RoutingRule) -> str:
    parts = ["not"] if rule.inverted else []
    parts += ["from", str(rule.source or "all")]
    parts += ["to", str(rule.destination)] if rule.destination else []
    parts += ["fwmark", f"{rule.mark:#x}/{rule.mask:#x}"] if rule.mark is not None else []
    parts += ["iif", rule.iif] if rule.iif else []
    parts += ["oif", rule.oif] if rule.oif else []
    parts += [rule.action, rule.table] if rule.table else [rule.action]
    return f"{rule.priority}: {' '.join(parts)}"


def _neighbour(raw: RawNeighbour) -> Neighbour:
    address(raw.dst)
    return Neighbour(
        interface=raw.dev,
        address=raw.dst,
        mac=raw.lladdr,
        states=tuple(raw.state),
        proxy=raw.proxy is not msgspec.UNSET,
    )


def _fdb(raw: RawFdb) -> FdbEntry:
    return FdbEntry(
        interface=raw.ifname,
        mac=raw.mac,
        master=raw.master,
        destination=raw.dst,
        permanent=raw.state == "permanent",
    )
