"""Makes and reads the network objects of a lab's namespaces, over rtnetlink with pyroute2.

pyroute2 is imported when a namespace is really changed: ``kptrace lab faults`` needs none of it.
"""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from ipaddress import ip_interface, ip_network
from typing import TYPE_CHECKING, Any, TypeVar

from kptrace.agent.netns import run_in_netns
from kptrace.lab.network_objects import (
    AddAddress,
    AddFdbEntry,
    AddLink,
    AddNeighbour,
    AddRoute,
    NetworkObject,
    RemoveAddress,
    RemoveFdbEntry,
    RemoveRoute,
    SetHairpin,
    SetLink,
)
from kptrace.lab.state import NETNS
from kptrace.model.errors import ObservationError

if TYPE_CHECKING:
    from pyroute2 import IPRoute

T = TypeVar("T")

_NODAD = 0x02  # IFA_F_NODAD, linux/if_addr.h
_SCOPE_LINK = 253  # RT_SCOPE_LINK, linux/rtnetlink.h
_SCOPE_ANY = 255  # RT_SCOPE_NOWHERE: of a deletion, whatever the scope
_ONLINK = 4  # RTNH_F_ONLINK
# of what the kernel learned for one destination, as its path MTU, and lists among the routes
_CLONED = 0x200  # RTM_F_CLONED
_MAIN = 254  # RT_TABLE_MAIN
_AF_BRIDGE = 7
_SELF = 2  # NTF_SELF, linux/neighbour.h
_BLACKHOLE = 6  # RTN_BLACKHOLE


class NetworkObjectError(ObservationError):
    """An object that the kernel did not make, change or remove; ``number`` is the errno."""

    def __init__(self, obj: NetworkObject, netns: str, number: int) -> None:
        name = errno.errorcode.get(number, str(number))
        super().__init__(f"{obj} in namespace {netns}: {os.strerror(number)} ({name})")
        self.number = number


def make(objects: Iterable[NetworkObject], netns: str) -> None:
    """Make these objects in a named namespace, in their order.

    Raises NetworkObjectError for the first that the kernel refuses.
    """
    pending = tuple(objects)
    if pending:
        _in_netns(netns, lambda route: _make_all(route, pending, netns))


def routes(netns: str, destination: str = "", device: str = "") -> tuple[AddRoute, ...]:
    """The IPv4 routes of the main table to this destination, over this device (empty: any)."""

    def read(route: IPRoute) -> tuple[AddRoute, ...]:
        names = {link["index"]: link.get_attr("IFLA_IFNAME") for link in route.get_links()}
        messages = route.get_routes(table=_MAIN, family=2)
        listed = (_as_route(entry, names) for entry in messages if not entry["flags"] & _CLONED)
        return tuple(
            entry
            for entry in listed
            if destination in ("", entry.destination) and device in ("", entry.device)
        )

    return _in_netns(netns, read)


def fdb_destination(netns: str, device: str, mac: str) -> str:
    """The node that a VXLAN device sends packets for this MAC to; empty where it has no entry."""

    def read(route: IPRoute) -> str:
        index = _index(route, device)
        for entry in route.fdb("dump"):
            if entry["ifindex"] == index and entry.get_attr("NDA_LLADDR") == mac:
                destination = entry.get_attr("NDA_DST")
                if destination:
                    return str(destination)
        return ""

    return _in_netns(netns, read)


def _in_netns(netns: str, work: Callable[[IPRoute], T]) -> T:
    def enter() -> T:
        from pyroute2 import IPRoute

        with IPRoute() as route:
            return work(route)

    return run_in_netns(str(NETNS / netns), enter)


def _make_all(route: IPRoute, objects: tuple[NetworkObject, ...], netns: str) -> None:
    from pyroute2.netlink.exceptions import NetlinkError

    for obj in objects:
        try:
            _make(route, obj)
        except NetlinkError as error:
            raise NetworkObjectError(obj, netns, error.code) from error
        except OSError as error:
            raise NetworkObjectError(obj, netns, error.errno or errno.EIO) from error


def _make(route: IPRoute, obj: NetworkObject) -> None:
    match obj:
        case AddLink():
            _add_link(route, obj)
        case SetLink(name=name):
            changes: dict[str, Any] = {}
            if obj.up is not None:
                changes["state"] = "up" if obj.up else "down"
            if obj.mtu:
                changes["mtu"] = obj.mtu
            if obj.master:
                changes["master"] = _index(route, obj.master)
            route.link("set", index=_index(route, name), **changes)
        case SetHairpin(port=port):
            route.brport("set", index=_index(route, port), mode=1)
        case AddAddress(device=device, address=address):
            interface = ip_interface(address)
            route.addr(
                "replace",
                index=_index(route, device),
                address=str(interface.ip),
                prefixlen=interface.network.prefixlen,
                flags=_NODAD if obj.nodad else 0,
            )
        case RemoveAddress(device=device, address=address):
            interface = ip_interface(address)
            route.addr(
                "del",
                index=_index(route, device),
                address=str(interface.ip),
                prefixlen=interface.network.prefixlen,
            )
        case AddRoute():
            route.route("replace", **_route_attributes(route, obj))
        case RemoveRoute(destination=destination, device=device):
            over = {"oif": _index(route, device)} if device else {}
            route.route("del", dst=_network(destination), scope=_SCOPE_ANY, **over)
        case AddNeighbour(address=address, device=device, mac=mac):
            route.neigh(
                "replace",
                dst=address,
                lladdr=mac,
                ifindex=_index(route, device),
                state="permanent",
            )
        case AddFdbEntry(mac=mac, device=device, destination=destination):
            route.neigh(
                "replace",
                **_fdb_key(route, device, mac),
                dst=destination,
                state="permanent",
            )
        case RemoveFdbEntry(mac=mac, device=device):
            route.neigh("del", **_fdb_key(route, device, mac))


def _add_link(route: IPRoute, link: AddLink) -> None:
    attributes: dict[str, Any] = {"ifname": link.name, "kind": link.kind}
    if link.mac:
        attributes["address"] = link.mac
    if link.mtu:
        attributes["mtu"] = link.mtu
    if link.kind == "vxlan":
        attributes |= {
            "vxlan_id": link.vni,
            "vxlan_port": link.port,
            "vxlan_learning": int(link.learning),
        }
        if link.local:
            attributes["vxlan_local6" if ":" in link.local else "vxlan_local"] = link.local
        if link.lower:
            attributes["vxlan_link"] = _index(route, link.lower)
    if link.kind == "ipip":
        attributes["ipip_local"] = link.local
        if link.lower:
            attributes["ipip_link"] = _index(route, link.lower)
    with ExitStack() as opened:
        if link.peer:
            peer: dict[str, Any] = {"ifname": link.peer.name}
            if link.peer.mac:
                peer["address"] = link.peer.mac
            if link.peer.mtu:
                peer["mtu"] = link.peer.mtu
            if link.peer.netns:
                file = os.open(NETNS / link.peer.netns, os.O_RDONLY | os.O_CLOEXEC)
                opened.callback(os.close, file)
                peer["net_ns_fd"] = file
            attributes["peer"] = peer
        route.link("add", **attributes)


def _route_attributes(route: IPRoute, entry: AddRoute) -> dict[str, Any]:
    attributes: dict[str, Any] = {"dst": _network(entry.destination), "proto": entry.protocol}
    if entry.destination == "default":
        attributes["family"] = socket.AF_INET6 if ":" in entry.gateway else socket.AF_INET
    if entry.kind == "blackhole":
        attributes["type"] = "blackhole"
    if entry.gateway:
        attributes["gateway"] = entry.gateway
    if entry.device:
        attributes["oif"] = _index(route, entry.device)
    if entry.onlink:
        attributes["flags"] = ["onlink"]
    if entry.link_scope:
        attributes["scope"] = _SCOPE_LINK
    if entry.source:
        attributes["prefsrc"] = entry.source
    return attributes


def _network(destination: str) -> str:
    return destination if destination == "default" else str(ip_network(destination))


def _fdb_key(route: IPRoute, device: str, mac: str) -> dict[str, Any]:
    return {
        "family": _AF_BRIDGE,
        "flags": _SELF,
        "ifindex": _index(route, device),
        "lladdr": mac,
    }


def _index(route: IPRoute, device: str) -> int:
    indexes = route.link_lookup(ifname=device)
    if not indexes:
        raise OSError(errno.ENODEV, os.strerror(errno.ENODEV))
    return int(indexes[0])


def _as_route(message: Any, names: dict[int, str]) -> AddRoute:  # noqa: ANN401 - pyroute2's nlmsg
    address, length = message.get_attr("RTA_DST"), message["dst_len"]
    return AddRoute(
        destination=f"{address}/{length}" if address else "default",
        device=names.get(message.get_attr("RTA_OIF") or 0, ""),
        gateway=message.get_attr("RTA_GATEWAY") or "",
        onlink=bool(message["flags"] & _ONLINK),
        link_scope=message["scope"] == _SCOPE_LINK,
        source=message.get_attr("RTA_PREFSRC") or "",
        protocol=message["proto"],
        kind="blackhole" if message["type"] == _BLACKHOLE else "unicast",
    )
