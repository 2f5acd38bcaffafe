"""ipsets by netlink and getsockopt, without the program.

In: a namespace to stand in. Out: the names of all sets, a set's name by the number that rules
hold, and a set with its elements as a tree (``rules/ipset/kernel_set.py`` reads it).

A set match in a rule holds the set's number; the name is asked for by getsockopt(SO_IP_SET).
"""

from __future__ import annotations

import ctypes
import errno
import os
import socket
from struct import pack_into
from typing import Any

from kptrace.agent.netlink.socket import (
    DUMP,
    NetlinkSocket,
    attribute,
    attribute_list,
    netfilter,
    text,
)

Tree = dict[str, Any]
_SUBSYSTEM = 6 << 8
_LIST = _SUBSYSTEM | 7
_PROTOCOL_VERSION = 6
_SO_IP_SET = 83
_BY_INDEX = 7
_NAME = 32
_PROTOCOL, _SETNAME, _TYPENAME, _REVISION, _FAMILY, _FLAGS, _DATA, _ADT = range(1, 9)
_LIST_SETNAMES = 1 << 1
_libc = ctypes.CDLL(None, use_errno=True)


def name(number: int) -> str:
    """Empty: no such set. To be called inside the namespace."""
    request = bytearray(8 + _NAME)
    pack_into("=IIH", request, 0, _BY_INDEX, _PROTOCOL_VERSION, number)
    kind = socket.SOCK_RAW | socket.SOCK_CLOEXEC
    with socket.socket(socket.AF_INET, kind, socket.IPPROTO_RAW) as sock:
        room = ctypes.c_uint32(len(request))
        view = (ctypes.c_char * len(request)).from_buffer(request)
        done = _libc.getsockopt(sock.fileno(), 0, _SO_IP_SET, view, ctypes.byref(room))
    if done < 0:
        code = ctypes.get_errno()
        if code in (errno.ENOENT, errno.ENOPROTOOPT, errno.EINVAL):
            return ""
        raise OSError(code, os.strerror(code))
    return bytes(request[8:]).split(b"\0")[0].decode(errors="replace")


def names() -> list[str]:
    flags = attribute(_FLAGS | 0x4000, _LIST_SETNAMES.to_bytes(4, "big"))
    with NetlinkSocket() as conversation:
        answers = conversation.ask(_LIST, _asked(flags), DUMP)
    attrs_list = [dict(attribute_list(answer.body[4:])) for answer in answers]
    return [_text(attrs[_SETNAME]) for attrs in attrs_list if _SETNAME in attrs]


def described(requested: str) -> Tree | None:
    """The set and its elements; None: there is none of this name."""
    with NetlinkSocket() as conversation:
        try:
            answers = conversation.ask(_LIST, _asked(text(_SETNAME, requested)), DUMP)
        except OSError as error:
            if error.errno == errno.ENOENT:
                return None
            raise
    description: Tree = {"elements": []}
    for answer in answers:
        attrs = dict(attribute_list(answer.body[4:]))
        if _TYPENAME in attrs:
            description["name"], description["type"] = (
                _text(attrs[_SETNAME]),
                _text(attrs[_TYPENAME]),
            )
            description["family"] = attrs.get(_FAMILY, b"\0")[0]
        if _DATA in attrs:
            description["options"] = _told(attrs[_DATA], _OPTIONS)
        elements = attribute_list(attrs.get(_ADT, b""))
        description["elements"] += [_told(data, _ELEMENT) for _, data in elements]
    return description if "type" in description else None


def _asked(*attributes: bytes) -> bytes:
    return netfilter(0, attribute(_PROTOCOL, bytes([_PROTOCOL_VERSION])), *attributes)


def _text(value: bytes) -> str:
    return value.split(b"\0")[0].decode(errors="replace")


def _told(data: bytes, names: dict[int, str]) -> dict[str, str]:
    """Attributes by the kernel's names, in hexadecimal."""
    return {
        names.get(kind, f"attribute {kind}"): _bare(names.get(kind, ""), value).hex()
        for kind, value in attribute_list(data)
    }


def _bare(name: str, value: bytes) -> bytes:
    """Addresses without the layer that tells their family."""
    if name in _ADDRESSES:
        return next((inner for _, inner in attribute_list(value)), b"")
    return value


_ADDRESSES = ("ip", "ip_to", "ip2", "ip2_to")
_COMMON = "ip ip_to cidr port port_to timeout proto cadt_flags lineno mark markmask bitmask"
_COMMON_NAMES = dict(enumerate(_COMMON.split(), start=1))
_OPTIONS = _COMMON_NAMES | {
    17: "initval",
    18: "hashsize",
    19: "maxelem",
    20: "netmask",
    21: "bucketsize",
    22: "resize",
    23: "size",
    24: "elements",
    25: "references",
    26: "memsize",
}
_ELEMENT = _COMMON_NAMES | {
    17: "ether",
    18: "name",
    19: "nameref",
    20: "ip2",
    21: "cidr2",
    22: "ip2_to",
    23: "iface",
    24: "bytes",
    25: "packets",
    26: "comment",
    27: "skbmark",
    28: "skbprio",
    29: "skbqueue",
}
