"""The parts of one network namespace that decide where a packet goes: links, addresses, routes.

These are values only, named as iproute2 names them; ``iproute2.py`` reads them, ``snapshot.py``
holds them together. Addresses are text as the kernel prints it; networks are parsed once, as they
are compared often.
"""

from __future__ import annotations

from kptrace.model import Value
from kptrace.model.addresses import Network, address
from kptrace.model.family import Family

# What encapsulation adds: an outer IPv4 or IPv6 header; VXLAN and Geneve UDP, 8 and the inner
# Ethernet header (RFC 7348, 8926); GRE 4, and 4 for a key (RFC 2890); WireGuard UDP, 16 and 16
_OUTER_IP = {False: 20, True: 40}
_FRAMED, _GRE, _KEY, _ETHERNET, _WIREGUARD = 30, 4, 4, 14, 40


class Vxlan(Value):
    """A VXLAN device. ``remote`` is the default destination (empty: the FDB alone decides)."""

    vni: int
    port: int
    local: str = ""
    remote: str = ""
    learning: bool = True
    external: bool = False


class Ipip(Value):
    """An IP-in-IP device; ``local`` or ``remote`` empty means any."""

    local: str = ""
    remote: str = ""


class Geneve(Value):
    """A Geneve device. ``external``: a program writes each packet's remote (OVN, Antrea,
    Cilium).
    """

    vni: int
    port: int
    remote: str = ""
    external: bool = False


class Gre(Value):
    """A GRE device.

    remote: empty: many ends
    key_in, key_out: None where it has none
    framed: whether it carries Ethernet frames (``gretap``), else IP packets
    """

    local: str = ""
    remote: str = ""
    key_in: int | None = None
    key_out: int | None = None
    framed: bool = False
    external: bool = False


class Peer(Value):
    """A WireGuard peer. ``endpoint`` is None where it is not configured and has not spoken yet."""

    key: str
    endpoint: tuple[str, int] | None = None
    allowed: tuple[Network, ...] = ()


class Wireguard(Value):
    """A WireGuard device.

    port: where it listens, and sends from
    mark: of the packets that carry its own
    """

    port: int = 0
    mark: int = 0
    peers: tuple[Peer, ...] = ()

    def peer_of(self, text: str) -> Peer | None:
        """Return the peer whose allowed IPs hold this address by the longest prefix."""
        destination = address(text)
        matching = [
            (prefix.prefixlen, peer)
            for peer in self.peers
            for prefix in peer.allowed
            if destination in prefix
        ]
        return max(matching, key=lambda pair: pair[0])[1] if matching else None


class Link(Value):
    """A network interface.

    peer: a veth's other end, its ifindex in whatever namespace that is
    peer_here: the other end is in this namespace
    hairpin: the bridge port may send a frame back where it came from
    nf_call: the bridge itself asks for (iptables, ip6tables), whatever the sysctl says
    wireguard: None where its peers are not known
    xdp: the name of the XDP program that sees what comes in first
    """

    index: int
    name: str
    kind: str = ""
    mac: str = ""
    mtu: int = 1500
    up: bool = True
    carrier: bool = True
    loopback: bool = False
    noarp: bool = False
    master: str = ""
    peer: int = 0
    peer_here: bool = False
    hairpin: bool = False
    isolated: bool = False
    nf_call: tuple[bool, bool] = (False, False)
    vxlan: Vxlan | None = None
    ipip: Ipip | None = None
    geneve: Geneve | None = None
    gre: Gre | None = None
    wireguard: Wireguard | None = None
    xdp: str = ""

    @property
    def tunnel(self) -> bool:
        tunnels = (self.vxlan, self.ipip, self.geneve, self.gre)
        return self.kind == "wireguard" or any(tunnel is not None for tunnel in tunnels)

    def overhead(self, *, ipv6: bool) -> int:
        """Return the bytes that the device puts around a packet, with an outer header of
        that family.

        0 for a device that is no tunnel. Geneve's options are not counted: only a packet shows
        them.
        """
        if not self.tunnel:
            return 0
        around = _FRAMED
        if self.gre is not None:
            keyed = self.gre.key_out is not None
            around = _GRE + _KEY * keyed + _ETHERNET * self.gre.framed
        elif self.ipip is not None:
            around = 0
        elif self.kind == "wireguard":
            around = _WIREGUARD
        return _OUTER_IP[ipv6] + around


class InterfaceAddress(Value):
    """An address on an interface, as ``ip addr`` prints it."""

    interface: str
    address: str
    length: int
    scope: str = "global"
    secondary: bool = False
    deprecated: bool = False
    tentative: bool = False


class Nexthop(Value):
    """A nexthop of a route. ``gateway`` is empty when the destination itself is on the link."""

    interface: str
    gateway: str = ""
    weight: int = 1
    dead: bool = False


class Route(Value):
    """An entry of a routing table.

    protocol: who set it (``kernel``, ``bird``, a number without a name)
    text: as ``ip route`` would print it
    """

    destination: Network
    type: str = "unicast"
    table: str = "main"
    metric: int = 0
    nexthops: tuple[Nexthop, ...] = ()
    source: str = ""
    scope: str = "global"
    mtu: int = 0
    onlink: bool = False
    protocol: str = ""
    text: str = ""

    @property
    def family(self) -> Family:
        return Family.of_version(self.destination.version)

    @property
    def default(self) -> bool:
        return self.destination.prefixlen == 0 and self.type == "unicast"


class RoutingRule(Value):
    """A line of ``ip rule``. An empty field matches anything.

    sport, dport: (from, to)
    suppress: a route found with a prefix as short as this (or shorter) is not taken (-1: off)
    opaque: it has a selector that cannot be evaluated (uidrange, tos)
    """

    priority: int
    family: Family
    table: str = ""
    action: str = "lookup"
    source: Network | None = None
    destination: Network | None = None
    iif: str = ""
    oif: str = ""
    mark: int | None = None
    mask: int = 0xFFFFFFFF
    protocol: str = ""
    sport: tuple[int, int] | None = None
    dport: tuple[int, int] | None = None
    inverted: bool = False
    suppress: int = -1
    goto: int = 0
    opaque: bool = False
    text: str = ""


class Neighbour(Value):
    """An ARP or NDP entry. ``mac`` is empty where resolution failed or is under way."""

    interface: str
    address: str
    mac: str = ""
    states: tuple[str, ...] = ()
    proxy: bool = False

    @property
    def permanent(self) -> bool:
        return "PERMANENT" in self.states


class FdbEntry(Value):
    """A MAC address and where it is: behind a bridge's port, or at a tunnel's ``destination``."""

    interface: str
    mac: str
    master: str = ""
    destination: str = ""
    permanent: bool = False
