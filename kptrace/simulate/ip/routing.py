"""Where the kernel sends a packet: policy rules, longest match, nexthops, source address.

Theory: rules are asked by ascending priority, each names a table; the longest prefix of a table
wins, then the lowest metric; ``throw`` goes on with the next rule (ip-rule(8), fib_rules.c). A
packet that came in is checked first: forwarding on the interface it came in by
(``IN_DEV_FORWARD`` of that device, IPv6: the whole namespace) and, for IPv4, the reverse path
(``__fib_validate_source``: strict asks that the way back leaves by the same interface, loose that
there is one; the effective value is the greater of ``all`` and the interface's).
"""

from __future__ import annotations

import msgspec

from kptrace.model import CauseId, Flow, Value
from kptrace.model.addresses import address
from kptrace.model.family import Family
from kptrace.simulate.snapshot.network import InterfaceAddress, Nexthop, Route, RoutingRule
from kptrace.simulate.snapshot.snapshot import Snapshot

_SCOPES = {"global": 0, "site": 200, "link": 253, "host": 254, "nowhere": 255}


class RouteQuery(Value):
    """What a route lookup is asked with.

    mark: None: not known
    iif: empty for a packet of this namespace's own
    oif: the interface that it has to leave by; empty: any
    """

    flow: Flow
    mark: int | None = 0
    iif: str = ""
    oif: str = ""

    @property
    def family(self) -> Family:
        return self.flow.family


class RouteLookupResult(Value):
    """The result of a route lookup.

    type: the route's, or ``none`` where no route covers the destination
    fault: why the kernel drops the packet before it is routed; None: it does not
    description: that fault, or the rule that decided, for people
    certain: false where a policy rule that cannot be evaluated might have led elsewhere
    """

    type: str
    route: Route | None = None
    nexthops: tuple[Nexthop, ...] = ()
    table: str = ""
    fault: CauseId | None = None
    description: str = ""
    certain: bool = True

    @property
    def usable(self) -> bool:
        return not self.fault and bool(self.nexthops) and self.type not in _DEAD_ENDS

    @property
    def local(self) -> bool:
        return self.type == "local"

    @property
    def text(self) -> str:
        return self.route.text if self.route else "no route"


_DEAD_ENDS = frozenset({"none", "blackhole", "unreachable", "prohibit"})


def lookup(snapshot: Snapshot, query: RouteQuery) -> RouteLookupResult:
    """Look up a route, without the checks that an incoming packet meets."""
    certain = True
    skip_to = 0
    for rule in sorted(snapshot.policy, key=lambda rule: rule.priority):
        if rule.family != query.family or rule.priority < skip_to or not _selects(rule, query):
            continue
        if rule.action == "goto":
            skip_to = rule.goto
            continue
        decision = _follow(snapshot, rule, query)
        if decision is None:
            continue
        unmarked = rule.mark is not None and query.mark is None
        if rule.opaque or unmarked:  # it may select this packet; the usual case is that it does not
            certain = False
            continue
        return msgspec.structs.replace(decision, certain=certain)
    return RouteLookupResult(type="none", certain=certain)


def route_input(snapshot: Snapshot, query: RouteQuery) -> RouteLookupResult:
    """Look up the route of a packet that came in by ``query.iif``, with the kernel's checks."""
    flow = query.flow
    decision = lookup(snapshot, query)
    if query.family is Family.IPV4 and _is_own(snapshot, query):
        return _with_fault(
            decision, CauseId.MARTIAN, f"the source {flow.src} is this node's own address"
        )
    if query.family is Family.IPV4 and (fault := _bad_source(snapshot, query)):
        return _with_fault(decision, CauseId.RP_FILTER, fault)
    loopback = address(flow.dst).is_loopback and not _is_loopback(snapshot, query.iif)
    if loopback and not may_route_localnet(snapshot, query.iif):
        return _with_fault(
            decision, CauseId.MARTIAN, f"{flow.dst} came in by {query.iif}: route_localnet is 0"
        )
    if decision.type in ("local", "broadcast", "multicast", "anycast"):
        return decision
    if (off := forwarding_off(snapshot, query.family, query.iif)) and decision.type != "blackhole":
        return _with_fault(decision, CauseId.IP_FORWARD_OFF, off)
    return decision


def may_route_localnet(snapshot: Snapshot, interface: str) -> bool:
    """Whether 127.0.0.0/8 may cross the interface; kube-proxy turns it on for NodePorts.

    Without any sysctl it is taken as allowed.
    """
    return snapshot.sysctls is None or _all_or_interface(snapshot, interface, "route_localnet")


def forwarding_off(snapshot: Snapshot, family: Family, interface: str) -> str:
    """Return the sysctl that keeps this namespace from forwarding, with its value; empty: none."""
    if family is Family.IPV6:
        name = "net.ipv6.conf.all.forwarding"
        forced = snapshot.conf(Family.IPV6, interface, "force_forwarding")
        return f"{name}=0" if snapshot.sysctl(name) == 0 and not forced else ""
    own = snapshot.conf(Family.IPV4, interface, "forwarding")
    if own is not None:
        whole = snapshot.sysctl("net.ipv4.ip_forward") == 0
        name = "ip_forward" if whole else f"conf.{interface}.forwarding"
        return "" if own else f"net.ipv4.{name}=0"
    return "net.ipv4.ip_forward=0" if snapshot.sysctl("net.ipv4.ip_forward") == 0 else ""


def address_type(snapshot: Snapshot, text: str, interface: str = "") -> str:
    """Return what ``addrtype`` and ``fib type`` say of an address: local, unicast, multicast, ...

    For IPv4 the local table alone decides (``inet_dev_addr_type``, fib_frontend.c); IPv6 asks the
    whole FIB.
    """
    destination = address(text)
    if destination.version == 6:
        return _address_type6(snapshot, text, interface)
    if destination.is_multicast:
        return "multicast"
    if destination.is_unspecified or text == "255.255.255.255":
        return "broadcast"
    best = _best(
        snapshot, "local", RouteQuery(flow=Flow(protocol="", src="", dst=text), oif=interface)
    )
    return best.type if best else "unicast"


def _address_type6(snapshot: Snapshot, text: str, interface: str) -> str:
    """Return the IPv6 type (__nft_fib6_eval_type); with an interface, local is what that has."""
    decision = lookup(snapshot, RouteQuery(flow=Flow(protocol="", src="", dst=text)))
    if decision.type in _DEAD_ENDS:
        return "unreachable" if decision.type == "none" else decision.type
    if decision.type == "anycast":
        return decision.type
    if _is_on_interface(snapshot, interface, text) if interface else decision.local:
        return "local"
    return "multicast" if address(text).is_multicast else "unicast"


def _is_on_interface(snapshot: Snapshot, interface: str, text: str) -> bool:
    return any(held.address == text for held in snapshot.on(interface, Family.IPV6))


def address_kinds(snapshot: Snapshot, text: str, interface: str = "") -> frozenset[str]:
    """Return all that ip6tables' addrtype says of an IPv6 address (match_type6, match_lookup_rt6).

    With an interface, local is what that interface itself has.
    """
    destination = address(text)
    named = (
        "multicast"
        if destination.is_multicast
        else "unspec"
        if destination.is_unspecified
        else "unicast"
    )
    query = RouteQuery(flow=Flow(protocol="", src="", dst=text), oif=interface)
    decision = lookup(snapshot, query)
    if decision.type in _DEAD_ENDS:
        return frozenset({named, "unreachable"})
    local = _is_on_interface(snapshot, interface, text) if interface else decision.local
    return frozenset({named} | ({"local"} if local else set()) | ({"anycast"} & {decision.type}))


def source_address(
    snapshot: Snapshot, decision: RouteLookupResult, hop: Nexthop | None, dst: str
) -> str:
    """Return the source that a packet without one gets.

    It is what ``fib_result_prefsrc`` and ``rt6_get_prefsrc`` choose.

    decision: the route of the packet; hop: its chosen nexthop; dst: its destination
    """
    if decision.route and decision.route.source:
        return decision.route.source
    if decision.local:
        return dst
    if hop is None:
        return ""
    if ":" in dst:
        return _source6(snapshot, hop.interface, dst)
    scope = decision.route.scope if decision.route else "global"
    return interface_address(snapshot, hop.interface, hop.gateway, scope)


def interface_address(
    snapshot: Snapshot, interface: str, near: str = "", scope: str = "global"
) -> str:
    """Return an IPv4 address of the interface as the kernel chooses it (``inet_select_addr``).

    It is one whose network holds ``near``, else the interface's first, else one of another
    interface; empty where there is none. MASQUERADE takes this one.
    """
    first = ""
    for held in snapshot.on(interface, Family.IPV4):
        if held.secondary or _SCOPES.get(held.scope, 0) > _SCOPES.get(scope, 0):
            continue
        if not near or _same_network(held.address, near, held.length):
            return held.address
        first = first or held.address
    if first:
        return first
    elsewhere = (
        held.address
        for held in snapshot.addresses
        if ":" not in held.address and held.scope != "link" and not held.secondary
        if _SCOPES.get(held.scope, 0) <= _SCOPES.get(scope, 0)
    )
    return next(elsewhere, "")


def masquerade_address(snapshot: Snapshot, interface: str, hop: Nexthop | None, dst: str) -> str:
    """Return the source that MASQUERADE gives a packet that leaves by ``interface``; empty:
    none.
    """
    if ":" in dst:
        return _source6(snapshot, interface, dst)
    return interface_address(snapshot, interface, (hop.gateway if hop else "") or dst)


def reverse_path(snapshot: Snapshot, query: RouteQuery) -> RouteLookupResult:
    """Look up the route of a packet back to the source, as rp_filter and ``fib`` ask for it."""
    flow = query.flow
    back = Flow(protocol=flow.protocol, src=flow.dst, dst=flow.src)
    return lookup(snapshot, RouteQuery(flow=back, mark=query.mark, oif=query.oif))


def _selects(rule: RoutingRule, query: RouteQuery) -> bool:
    flow = query.flow
    tests = (
        rule.source is None or (bool(flow.src) and address(flow.src) in rule.source),
        rule.destination is None or address(flow.dst) in rule.destination,
        rule.mark is None or query.mark is None or query.mark & rule.mask == rule.mark,
        not rule.iif or rule.iif == (query.iif or "lo"),
        not rule.oif or rule.oif == query.oif,
        not rule.protocol or rule.protocol == flow.protocol,
        rule.sport is None or rule.sport[0] <= flow.sport <= rule.sport[1],
        rule.dport is None or rule.dport[0] <= flow.dport <= rule.dport[1],
    )
    return all(tests) != rule.inverted


def _follow(snapshot: Snapshot, rule: RoutingRule, query: RouteQuery) -> RouteLookupResult | None:
    if rule.action in ("blackhole", "unreachable", "prohibit"):
        return RouteLookupResult(type=rule.action, description=f"ip rule {rule.text}")
    best = _best(snapshot, rule.table, query) if rule.table else None
    if best is None or best.type == "throw":
        return None
    if best.destination.prefixlen <= rule.suppress:
        return None
    return RouteLookupResult(
        type=best.type, route=best, nexthops=_live_nexthops(best, query.oif), table=rule.table
    )


def _best(snapshot: Snapshot, table: str, query: RouteQuery) -> Route | None:
    destination = address(query.flow.dst)
    best: Route | None = None
    for route in snapshot.table(table, query.family):
        if destination not in route.destination or not _reachable(route, query.oif):
            continue
        if best is None or _rank(route) < _rank(best):
            best = route
    return best


def _rank(route: Route) -> tuple[int, int]:
    return -route.destination.prefixlen, route.metric


def _reachable(route: Route, oif: str) -> bool:
    return not route.nexthops or bool(_live_nexthops(route, oif))


def _live_nexthops(route: Route, oif: str) -> tuple[Nexthop, ...]:
    return tuple(
        hop for hop in route.nexthops if not hop.dead and (not oif or hop.interface == oif)
    )


def _is_own(snapshot: Snapshot, query: RouteQuery) -> bool:
    """Whether the source is this namespace's own address, which the kernel drops as a martian.

    fib_validate_source ("regarded as a martian source"), whatever rp_filter says, and over lo, too,
    where a packet is routed there.
    """
    source = query.flow.src
    held = bool(source) and snapshot.holds(source) is not None
    return held and not _all_or_interface(snapshot, query.iif, "accept_local")


def _bad_source(snapshot: Snapshot, query: RouteQuery) -> str:
    """Return why rp_filter takes the source for forged; empty: it does not."""
    source = query.flow.src
    if not source or _is_loopback(snapshot, query.iif):
        return ""
    modes = (snapshot.conf(Family.IPV4, name, "rp_filter") for name in ("all", query.iif))
    mode = max(value or 0 for value in modes)
    if not mode:
        return ""
    marked = _all_or_interface(snapshot, query.iif, "src_valid_mark")
    unmarked = RouteQuery(flow=query.flow, mark=query.mark if marked else 0, iif=query.iif)
    back = reverse_path(snapshot, unmarked)
    if not back.usable:
        return f"rp_filter={mode} and no route back to {source}"
    ways = {hop.interface for hop in back.nexthops}
    if mode == 1 and query.iif not in ways:
        return f"rp_filter=1 on {query.iif}, but {source} is reached by {', '.join(sorted(ways))}"
    return ""


def _all_or_interface(snapshot: Snapshot, interface: str, name: str) -> bool:
    return any(snapshot.conf(Family.IPV4, device, name) for device in ("all", interface))


def _is_loopback(snapshot: Snapshot, interface: str) -> bool:
    link = snapshot.link(interface)
    return interface == "lo" or (link is not None and link.loopback)


def _source6(snapshot: Snapshot, interface: str, dst: str) -> str:
    """Return the IPv6 source address by RFC 6724 as far as it decides here (ipv6_get_saddr_eval).

    The order is: the destination itself, scope, not deprecated, of the interface that the packet
    leaves by, longest match.
    """
    destination = address(dst)

    def rank(held: InterfaceAddress) -> tuple[bool, bool, bool, bool, int]:
        candidate = address(held.address)
        narrow = held.scope != "global" and not (
            destination.is_link_local or destination.is_loopback
        )
        common = 128 - (int(candidate) ^ int(destination)).bit_length()
        length = min(common, held.length)
        return (
            candidate != destination,
            narrow,
            held.deprecated,
            held.interface != interface,
            -length,
        )

    usable = [
        held
        for held in snapshot.addresses
        if ":" in held.address and not held.tentative
        if not destination.is_link_local or held.interface == interface
    ]
    return min(usable, key=rank).address if usable else ""


def _same_network(first: str, second: str, length: int) -> bool:
    left, right = address(first), address(second)
    shift = left.max_prefixlen - length
    return left.version == right.version and int(left) >> shift == int(right) >> shift


def _with_fault(decision: RouteLookupResult, fault: CauseId, description: str) -> RouteLookupResult:
    return msgspec.structs.replace(decision, fault=fault, description=description)
