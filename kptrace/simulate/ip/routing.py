"""Where the kernel sends a packet: policy rules, longest match, nexthops, source address.

In: a Snapshot and a Query. Out: a Decision, which says what route was taken or what killed it.

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
from kptrace.simulate.snapshot.network import InterfaceAddress, Nexthop, Route, RoutingRule
from kptrace.simulate.snapshot.snapshot import Snapshot

_SCOPES = {"global": 0, "site": 200, "link": 253, "host": 254, "nowhere": 255}


class RouteQuery(Value):
    """What is asked with. iif: empty for a packet of this namespace's own; mark: None, unknown."""

    flow: Flow
    mark: int | None = 0
    iif: str = ""
    oif: str = ""

    @property
    def family(self) -> int:
        return 6 if self.flow.ipv6 else 4


class RouteLookupResult(Value):
    """type: the route's, or ``none`` where no route covers the destination.

    fault: what killed it before (``ip-forward-off``, ``rp-filter``, ``martian``), with ``words``
    certain: false where a policy rule that nobody here can evaluate might have led elsewhere
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
    """The routing decision alone, without the checks that an incoming packet meets."""
    certain = True
    skip_to = 0
    for rule in sorted(snapshot.policy, key=lambda one: one.priority):
        if rule.family != query.family or rule.priority < skip_to or not _selects(rule, query):
            continue
        if rule.action == "goto":
            skip_to = rule.goto
            continue
        found = _follow(snapshot, rule, query)
        if found is None:
            continue
        unmarked = rule.mark is not None and query.mark is None
        if rule.opaque or unmarked:  # it may select this packet; the usual case is that it does not
            certain = False
            continue
        return msgspec.structs.replace(found, certain=certain)
    return RouteLookupResult(type="none", certain=certain)


def route_input(snapshot: Snapshot, query: RouteQuery) -> RouteLookupResult:
    """For a packet that came in by ``query.iif``, with the kernel's checks."""
    flow = query.flow
    found = lookup(snapshot, query)
    if query.family == 4 and _is_own(snapshot, query):
        return _faulty(found, CauseId.MARTIAN, f"the source {flow.src} is this node's own address")
    if query.family == 4 and (fault := _bad_source(snapshot, query)):
        return _faulty(found, CauseId.RP_FILTER, fault)
    loopback = address(flow.dst).is_loopback and not _is_loopback(snapshot, query.iif)
    if loopback and not may_route_localnet(snapshot, query.iif):
        return _faulty(
            found, CauseId.MARTIAN, f"{flow.dst} came in by {query.iif}: route_localnet is 0"
        )
    if found.type in ("local", "broadcast", "multicast", "anycast"):
        return found
    if (off := forwarding_off(snapshot, query.family, query.iif)) and found.type != "blackhole":
        return _faulty(found, CauseId.IP_FORWARD_OFF, off)
    return found


def may_route_localnet(snapshot: Snapshot, interface: str) -> bool:
    """Whether 127.0.0.0/8 may cross the interface; kube-proxy turns it on for NodePorts."""
    return snapshot.sysctls is None or _either(snapshot, interface, "route_localnet")


def forwarding_off(snapshot: Snapshot, family: int, interface: str) -> str:
    """The sysctl that keeps this namespace from forwarding, with its value; empty: it forwards."""
    if family == 6:
        name = "net.ipv6.conf.all.forwarding"
        forced = snapshot.conf(6, interface, "force_forwarding")
        return f"{name}=0" if snapshot.sysctl(name) == 0 and not forced else ""
    own = snapshot.conf(4, interface, "forwarding")
    if own is not None:
        whole = snapshot.sysctl("net.ipv4.ip_forward") == 0
        name = "ip_forward" if whole else f"conf.{interface}.forwarding"
        return "" if own else f"net.ipv4.{name}=0"
    return "net.ipv4.ip_forward=0" if snapshot.sysctl("net.ipv4.ip_forward") == 0 else ""


def address_type(snapshot: Snapshot, text: str, interface: str = "") -> str:
    """What ``addrtype`` and ``fib type`` say: the local table decides, else unicast.

    ``inet_dev_addr_type`` (fib_frontend.c) looks nowhere but there; IPv6 asks the whole FIB.
    """
    wanted = address(text)
    if wanted.version == 6:
        return _address_type6(snapshot, text, interface)
    if wanted.is_multicast:
        return "multicast"
    if wanted.is_unspecified or text == "255.255.255.255":
        return "broadcast"
    best = _best(
        snapshot, "local", RouteQuery(flow=Flow(protocol="", src="", dst=text), oif=interface)
    )
    return best.type if best else "unicast"


def _address_type6(snapshot: Snapshot, text: str, interface: str) -> str:
    """__nft_fib6_eval_type: with an interface, local is what that interface itself has."""
    found = lookup(snapshot, RouteQuery(flow=Flow(protocol="", src="", dst=text)))
    if found.type in _DEAD_ENDS:
        return "unreachable" if found.type == "none" else found.type
    if found.type == "anycast":
        return found.type
    if _has(snapshot, interface, text) if interface else found.local:
        return "local"
    return "multicast" if address(text).is_multicast else "unicast"


def _has(snapshot: Snapshot, interface: str, text: str) -> bool:
    return any(one.address == text for one in snapshot.on(interface, 6))


def address_kinds(snapshot: Snapshot, text: str, interface: str = "") -> frozenset[str]:
    """All that ip6tables' addrtype says of an IPv6 address (match_type6, match_lookup_rt6).

    With an interface, local is what that interface itself has.
    """
    wanted = address(text)
    named = "multicast" if wanted.is_multicast else "unspec" if wanted.is_unspecified else "unicast"
    query = RouteQuery(flow=Flow(protocol="", src="", dst=text), oif=interface)
    found = lookup(snapshot, query)
    if found.type in _DEAD_ENDS:
        return frozenset({named, "unreachable"})
    local = _has(snapshot, interface, text) if interface else found.local
    return frozenset({named} | ({"local"} if local else set()) | ({"anycast"} & {found.type}))


def source_address(
    snapshot: Snapshot, decision: RouteLookupResult, hop: Nexthop | None, dst: str
) -> str:
    """The source that a packet without one gets (``fib_result_prefsrc``, ``rt6_get_prefsrc``)."""
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
    """An IPv4 address of the interface (``inet_select_addr``): one whose network holds ``near``,
    else its first; of another interface when it has none. MASQUERADE takes this one.
    """
    first = ""
    for one in snapshot.on(interface, 4):
        if one.secondary or _SCOPES.get(one.scope, 0) > _SCOPES.get(scope, 0):
            continue
        if not near or _same_network(one.address, near, one.length):
            return one.address
        first = first or one.address
    if first:
        return first
    elsewhere = (
        one.address
        for one in snapshot.addresses
        if ":" not in one.address and one.scope != "link" and not one.secondary
        if _SCOPES.get(one.scope, 0) <= _SCOPES.get(scope, 0)
    )
    return next(elsewhere, "")


def masquerade_address(snapshot: Snapshot, interface: str, hop: Nexthop | None, dst: str) -> str:
    """The source that MASQUERADE gives a packet that leaves by ``interface``."""
    if ":" in dst:
        return _source6(snapshot, interface, dst)
    return interface_address(snapshot, interface, (hop.gateway if hop else "") or dst)


def reverse_path(snapshot: Snapshot, query: RouteQuery) -> RouteLookupResult:
    """The way that a packet back to the source would take, as rp_filter and ``fib`` ask for it."""
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
        type=best.type, route=best, nexthops=_alive(best, query.oif), table=rule.table
    )


def _best(snapshot: Snapshot, table: str, query: RouteQuery) -> Route | None:
    wanted = address(query.flow.dst)
    best: Route | None = None
    for route in snapshot.table(table, query.family):
        if wanted not in route.destination or not _reachable(route, query.oif):
            continue
        if best is None or _rank(route) < _rank(best):
            best = route
    return best


def _rank(route: Route) -> tuple[int, int]:
    return -route.destination.prefixlen, route.metric


def _reachable(route: Route, oif: str) -> bool:
    return not route.nexthops or bool(_alive(route, oif))


def _alive(route: Route, oif: str) -> tuple[Nexthop, ...]:
    return tuple(
        hop for hop in route.nexthops if not hop.dead and (not oif or hop.interface == oif)
    )


def _is_own(snapshot: Snapshot, query: RouteQuery) -> bool:
    """Whatever rp_filter says (fib_validate_source: "regarded as a martian source"), and over lo,
    too, where a packet is routed there.
    """
    source = query.flow.src
    held = bool(source) and snapshot.holds(source) is not None
    return held and not _either(snapshot, query.iif, "accept_local")


def _bad_source(snapshot: Snapshot, query: RouteQuery) -> str:
    """Why the kernel takes the source for forged; empty: it does not."""
    source = query.flow.src
    if not source or _is_loopback(snapshot, query.iif):
        return ""
    mode = max(
        snapshot.conf(4, "all", "rp_filter") or 0, snapshot.conf(4, query.iif, "rp_filter") or 0
    )
    if not mode:
        return ""
    marked = _either(snapshot, query.iif, "src_valid_mark")
    unmarked = RouteQuery(flow=query.flow, mark=query.mark if marked else 0, iif=query.iif)
    back = reverse_path(snapshot, unmarked)
    if not back.usable:
        return f"rp_filter={mode} and no route back to {source}"
    ways = {hop.interface for hop in back.nexthops}
    if mode == 1 and query.iif not in ways:
        return f"rp_filter=1 on {query.iif}, but {source} is reached by {', '.join(sorted(ways))}"
    return ""


def _either(snapshot: Snapshot, interface: str, name: str) -> bool:
    return bool(snapshot.conf(4, "all", name) or snapshot.conf(4, interface, name))


def _is_loopback(snapshot: Snapshot, interface: str) -> bool:
    link = snapshot.link(interface)
    return interface == "lo" or (link is not None and link.loopback)


def _source6(snapshot: Snapshot, interface: str, dst: str) -> str:
    """RFC 6724 as far as it decides here (ipv6_get_saddr_eval): the destination itself, scope, not
    deprecated, of the interface that it leaves by, longest match.
    """
    wanted = address(dst)

    def rank(one: InterfaceAddress) -> tuple[bool, bool, bool, bool, int]:
        own = address(one.address)
        narrow = one.scope != "global" and not (wanted.is_link_local or wanted.is_loopback)
        common = 128 - (int(own) ^ int(wanted)).bit_length()
        length = min(common, one.length)
        return own != wanted, narrow, one.deprecated, one.interface != interface, -length

    usable = [
        one
        for one in snapshot.addresses
        if ":" in one.address and not one.tentative
        if not wanted.is_link_local or one.interface == interface
    ]
    return min(usable, key=rank).address if usable else ""


def _same_network(one: str, other: str, length: int) -> bool:
    left, right = address(one), address(other)
    shift = left.max_prefixlen - length
    return left.version == right.version and int(left) >> shift == int(right) >> shift


def _faulty(found: RouteLookupResult, fault: CauseId, description: str) -> RouteLookupResult:
    return msgspec.structs.replace(found, fault=fault, description=description)
