"""The shapes of what ``ip -j`` and ``bridge -j`` print, field by field as they name them.

Only fields that ``iproute2.py`` reads; iproute2 leaves out what is empty, so each has a default.
"""

from __future__ import annotations

from typing import Any

import msgspec


class InfoData(msgspec.Struct):
    id: int | None = None
    port: int | None = None
    local: str = ""
    local6: str = ""
    remote: str = ""
    remote6: str = ""
    learning: bool = True
    external: bool = False
    ikey: str = ""
    okey: str = ""
    nf_call_iptables: int = 0
    nf_call_ip6tables: int = 0


class SlaveData(msgspec.Struct):
    hairpin: bool = False
    isolated: bool = False


class LinkInfo(msgspec.Struct):
    info_kind: str = ""
    info_data: InfoData = msgspec.field(default_factory=InfoData)
    info_slave_data: SlaveData = msgspec.field(default_factory=SlaveData)


class AddrInfo(msgspec.Struct):
    family: str = ""
    local: str = ""
    prefixlen: int = 0
    scope: str = "global"
    secondary: bool = False
    deprecated: bool = False
    tentative: bool = False


class XdpProgram(msgspec.Struct):
    id: int = 0
    name: str = ""


class Xdp(msgspec.Struct):
    prog: XdpProgram = msgspec.field(default_factory=XdpProgram)


class RawLink(msgspec.Struct):
    ifindex: int = 0
    ifname: str = ""
    flags: list[str] = []
    mtu: int = 1500
    master: str = ""
    link: str | None = None
    link_index: int = 0
    link_type: str = ""
    address: str = ""
    linkinfo: LinkInfo = msgspec.field(default_factory=LinkInfo)
    addr_info: list[AddrInfo] = []
    xdp: Xdp | None = None


class Via(msgspec.Struct):
    host: str


class RawNexthop(msgspec.Struct):
    gateway: str = ""
    via: Via | None = None
    dev: str = ""
    weight: int = 1
    flags: list[str] = []


class RawRoute(msgspec.Struct):
    dst: str
    type: str = "unicast"
    gateway: str = ""
    via: Via | None = None
    dev: str = ""
    table: str = "main"
    metric: int = 0
    prefsrc: str = ""
    protocol: str = ""
    scope: str = "global"
    flags: list[str] = []
    nexthops: list[RawNexthop] = []
    metrics: list[dict[str, Any]] = []
    weight: int = 1
    pref: Any = msgspec.UNSET


class RawRule(msgspec.Struct):
    priority: int = 0
    src: str = "all"
    srclen: int | None = None
    dst: str = "all"
    dstlen: int | None = None
    inverted: Any = msgspec.field(default=msgspec.UNSET, name="not")
    fwmark: str | None = None
    fwmask: str = "0xffffffff"
    iif: str = ""
    oif: str = ""
    ipproto: str = ""
    sport: int | None = None
    sport_start: int | None = None
    sport_end: int | None = None
    dport: int | None = None
    dport_start: int | None = None
    dport_end: int | None = None
    table: str = ""
    action: str = ""
    goto: str | int = 0
    suppress_prefixlen: int = -1
    tos: Any = None
    uid_start: Any = None
    tun_id: Any = None
    l3mdev: Any = msgspec.UNSET
    suppress_ifgroup: Any = None


class RawNeighbour(msgspec.Struct):
    dst: str
    dev: str = ""
    lladdr: str = ""
    state: list[str] = []
    proxy: Any = msgspec.UNSET


class RawFdb(msgspec.Struct):
    mac: str
    ifname: str = ""
    master: str = ""
    dst: str = ""
    state: str = ""
