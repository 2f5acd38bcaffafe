"""WireGuard's devices as ``wg show`` prints them, without a program: by generic netlink.

Out: text; empty where no such device is. Keys that are secret are passed over as they come from the
kernel and are never held. ``wg`` itself would print them to whoever asks for a dump.

The kernel answers in parts: a device's peers may go on in the next message, and a peer's allowed
IPs too; then its key is told again (include/uapi/linux/wireguard.h). Devices are asked for by their
kind: a dump of links can be limited to one (rtnl_dump_ifinfo, IFLA_LINKINFO).
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Iterable, Iterator
from ipaddress import ip_address
from struct import calcsize, pack, unpack_from

from kptrace.agent.netlink.socket import (
    DUMP,
    NetlinkSocket,
    attribute_list,
    attributes,
    nested,
    string,
    text,
)

NETLINK_ROUTE, NETLINK_GENERIC = 0, 16
RTM_GETLINK = 18
IFLA_IFNAME, IFLA_LINKINFO, IFLA_INFO_KIND = 3, 18, 1
_IFINFOMSG = "=BxHiII"
KIND = "wireguard"

GENL_ID_CTRL, CTRL_CMD_GETFAMILY = 0x10, 3
CTRL_ATTR_FAMILY_ID, CTRL_ATTR_FAMILY_NAME = 1, 2
_GENLMSGHDR = "=BBxx"
WG_CMD_GET_DEVICE = 0
WGDEVICE_A_IFNAME, WGDEVICE_A_LISTEN_PORT, WGDEVICE_A_FWMARK, WGDEVICE_A_PEERS = 2, 6, 7, 8
WGPEER_A_PUBLIC_KEY, WGPEER_A_ENDPOINT, WGPEER_A_ALLOWEDIPS = 1, 4, 9
WGALLOWEDIP_A_FAMILY, WGALLOWEDIP_A_IPADDR, WGALLOWEDIP_A_CIDR_MASK = 1, 2, 3
AF_INET, AF_INET6 = 2, 10


class _Peer:
    def __init__(self) -> None:
        self.endpoint = ""
        self.allowed: list[str] = []


class _Device:
    def __init__(self) -> None:
        self.port = self.mark = 0
        self.peers: dict[bytes, _Peer] = {}


def show() -> str:
    """Of the namespace of the thread that asks. OSError where the kernel refuses."""
    with NetlinkSocket(NETLINK_ROUTE) as links:
        names = list(devices(links, KIND))
    if not names:
        return ""
    with NetlinkSocket(NETLINK_GENERIC) as generic:
        family = family_id(generic, KIND)
        return "\n".join(told(name, _device(generic, family, name)) for name in names)


def devices(links: NetlinkSocket, kind: str) -> Iterator[str]:
    body = pack(_IFINFOMSG, 0, 0, 0, 0, 0) + nested(IFLA_LINKINFO, text(IFLA_INFO_KIND, kind))
    for answer in links.listen(RTM_GETLINK, body, DUMP):
        attrs = attributes(answer.body[calcsize(_IFINFOMSG) :])
        # an old kernel takes no notice of what was asked for
        if string(attributes(attrs.get(IFLA_LINKINFO, b"")).get(IFLA_INFO_KIND)) == kind:
            yield string(attrs.get(IFLA_IFNAME))


def family_id(generic: NetlinkSocket, name: str) -> int:
    """The number of a family of generic netlink. OSError where the kernel does not have it."""
    body = pack(_GENLMSGHDR, CTRL_CMD_GETFAMILY, 1) + text(CTRL_ATTR_FAMILY_NAME, name)
    (answer,) = generic.ask(GENL_ID_CTRL, body)
    attrs = attributes(answer.body[calcsize(_GENLMSGHDR) :])
    return int(unpack_from("=H", attrs[CTRL_ATTR_FAMILY_ID])[0])


def _device(generic: NetlinkSocket, family: int, name: str) -> _Device:
    body = pack(_GENLMSGHDR, WG_CMD_GET_DEVICE, 1) + text(WGDEVICE_A_IFNAME, name)
    return device(answer.body for answer in generic.listen(family, body, DUMP))


def device(bodies: Iterable[bytes]) -> _Device:
    """All parts of the answer about one device."""
    device = _Device()
    for body in bodies:
        attrs = attributes(body[calcsize(_GENLMSGHDR) :])
        if len(port := attrs.get(WGDEVICE_A_LISTEN_PORT, b"")) == 2:
            (device.port,) = unpack_from("=H", port)
        if len(mark := attrs.get(WGDEVICE_A_FWMARK, b"")) == 4:
            (device.mark,) = unpack_from("=I", mark)
        for _, peer in attribute_list(attrs.get(WGDEVICE_A_PEERS, b"")):
            _add(device.peers, attributes(peer))
    return device


def _add(peers: dict[bytes, _Peer], attrs: dict[int, bytes]) -> None:
    peer = peers.setdefault(attrs.get(WGPEER_A_PUBLIC_KEY, b""), _Peer())
    peer.endpoint = _endpoint(attrs.get(WGPEER_A_ENDPOINT, b"")) or peer.endpoint
    for _, data in attribute_list(attrs.get(WGPEER_A_ALLOWEDIPS, b"")):
        allowed = attributes(data)
        address, length = allowed.get(WGALLOWEDIP_A_IPADDR), allowed.get(WGALLOWEDIP_A_CIDR_MASK)
        if address and length and len(address) in (4, 16):
            peer.allowed.append(f"{ip_address(address)}/{length[0]}")


def _endpoint(sockaddr: bytes) -> str:
    """A ``sockaddr_in`` or ``sockaddr_in6``: family, port, then the address, in IPv6 behind 4."""
    if len(sockaddr) < 8:
        return ""
    family, port = *unpack_from("=H", sockaddr), *unpack_from("!H", sockaddr, 2)
    if family == AF_INET:
        return f"{ip_address(sockaddr[4:8])}:{port}"
    if family == AF_INET6 and len(sockaddr) >= 24:
        return f"[{ip_address(sockaddr[8:24])}]:{port}"
    return ""


def told(name: str, device: _Device) -> str:
    lines = [f"interface: {name}", f"  listening port: {device.port}"]
    lines += [f"  fwmark: {device.mark:#x}"] if device.mark else []
    for key, peer in device.peers.items():
        lines += ["", f"peer: {b64encode(key).decode()}"]
        lines += [f"  endpoint: {peer.endpoint}"] if peer.endpoint else []
        lines.append(f"  allowed ips: {', '.join(peer.allowed) or '(none)'}")
    return "".join(f"{line}\n" for line in lines)
