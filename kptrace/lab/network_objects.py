"""What a lab makes in a network namespace: links, addresses, routes, neighbours, FDB entries.

Each is a value with iproute2's words; ``lab/netlink.py`` makes them, in the order in which they
come. A name of a device is enough: its index is looked up when the object is made.
"""

from __future__ import annotations

from typing import Literal

from kptrace.model import Value


class Peer(Value):
    """The other end of a veth, which is made in the namespace ``netns``."""

    name: str
    netns: str = ""
    mac: str = ""
    mtu: int = 0


class AddLink(Value):
    """A new device of type ``kind`` (``veth``, ``bridge``, ``vxlan``, ``ipip``, ``dummy``).

    mac, mtu: empty and 0 leave the kernel's own
    peer:    the other end of a veth
    lower:   the device that a tunnel's packets leave by
    local:   the address that a tunnel's packets come from
    vni, port, learning: of a VXLAN device
    """

    name: str
    kind: str
    mac: str = ""
    mtu: int = 0
    peer: Peer | None = None
    lower: str = ""
    local: str = ""
    vni: int = 0
    port: int = 0
    learning: bool = True

    def __str__(self) -> str:
        return f"link {self.name} type {self.kind}"


class SetLink(Value):
    """A change of a device. ``master``: the bridge that it becomes a port of."""

    name: str
    up: bool | None = None
    mtu: int = 0
    master: str = ""

    def __str__(self) -> str:
        return f"link {self.name}"


class SetHairpin(Value):
    """A bridge's port sends frames back to where they came from."""

    port: str

    def __str__(self) -> str:
        return f"bridge port {self.port} hairpin"


class AddAddress(Value):
    """An address with its prefix length (``10.244.1.1/24``). ``nodad``: it can be used at once."""

    device: str
    address: str
    nodad: bool = False

    def __str__(self) -> str:
        return f"address {self.address} dev {self.device}"


class RemoveAddress(Value):
    device: str
    address: str

    def __str__(self) -> str:
        return f"address {self.address} dev {self.device}"


class AddRoute(Value):
    """A route, which replaces one to the same destination.

    destination: a network or an address; ``default``
    link_scope:  ``scope link``, as of a destination that is on the link itself
    protocol:    who made it, as in rtnetlink(7): 3 boot, 12 bird
    """

    destination: str
    device: str = ""
    gateway: str = ""
    onlink: bool = False
    link_scope: bool = False
    source: str = ""
    protocol: int = 3
    kind: Literal["unicast", "blackhole"] = "unicast"

    def __str__(self) -> str:
        return f"route {self.destination}"


class RemoveRoute(Value):
    destination: str
    device: str = ""

    def __str__(self) -> str:
        return f"route {self.destination}"


class AddNeighbour(Value):
    """A permanent neighbour entry: the link address of ``address`` on a device."""

    address: str
    device: str
    mac: str

    def __str__(self) -> str:
        return f"neighbour {self.address} dev {self.device}"


class AddFdbEntry(Value):
    """A permanent FDB entry of a VXLAN device: frames to ``mac`` go to the node ``destination``."""

    mac: str
    device: str
    destination: str

    def __str__(self) -> str:
        return f"FDB entry {self.mac} dev {self.device}"


class RemoveFdbEntry(Value):
    mac: str
    device: str

    def __str__(self) -> str:
        return f"FDB entry {self.mac} dev {self.device}"


NetworkObject = (
    AddLink
    | SetLink
    | SetHairpin
    | AddAddress
    | RemoveAddress
    | AddRoute
    | RemoveRoute
    | AddNeighbour
    | AddFdbEntry
    | RemoveFdbEntry
)


def up(name: str) -> SetLink:
    return SetLink(name=name, up=True)
