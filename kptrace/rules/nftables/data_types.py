"""The data types of nf_tables: format the bytes of a register or set element as nft's JSON does.

A value is a text or number, a list for several flags. The kernel stores a type as the number that
nft gives it (``enum datatypes``); in the type of a concatenation each part has 6 bits.

Header fields are big-endian, meta and conntrack values have the machine's byte order; nft reverses
the latter if it compares their size, and says so in the user data of a set.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from kptrace.rules.byte_reader import address_text, prefix_length
from kptrace.rules.iptables.kernel_rule import PROTOCOL_NAMES
from kptrace.rules.nftables.json_expressions import ICMP, ICMPV6

Json = Any

TYPE_NAMES = {
    1: "verdict",
    2: "nf_proto",
    3: "bitmask",
    4: "integer",
    5: "string",
    6: "ll_addr",
    7: "ipv4_addr",
    8: "ipv6_addr",
    9: "ether_addr",
    10: "ether_type",
    11: "arp_op",
    12: "inet_proto",
    13: "inet_service",
    14: "icmp_type",
    15: "tcp_flag",
    16: "dccp_pkttype",
    17: "mh_type",
    18: "time",
    19: "mark",
    20: "iface_index",
    21: "iface_type",
    22: "realm",
    23: "classid",
    24: "uid",
    25: "gid",
    26: "ct_state",
    27: "ct_dir",
    28: "ct_status",
    29: "icmpv6_type",
    30: "ct_label",
    31: "pkt_type",
    32: "icmp_code",
    33: "icmpv6_code",
    34: "icmpx_code",
    35: "devgroup",
    36: "dscp",
    37: "ecn",
    38: "fib_addrtype",
    39: "boolean",
    40: "ct_event",
    41: "ifname",
    42: "igmp_type",
    43: "time_date",
    44: "time_hour",
    45: "time_day",
    46: "cgroupsv2",
}
_BITS = 6
LENGTHS = {
    "nf_proto": 1,
    "ipv4_addr": 4,
    "ipv6_addr": 16,
    "ether_addr": 6,
    "ether_type": 2,
    "arp_op": 2,
    "inet_proto": 1,
    "inet_service": 2,
    "icmp_type": 1,
    "tcp_flag": 1,
    "mark": 4,
    "iface_index": 4,
    "iface_type": 2,
    "realm": 4,
    "classid": 4,
    "uid": 4,
    "gid": 4,
    "ct_state": 4,
    "ct_dir": 1,
    "ct_status": 4,
    "icmpv6_type": 1,
    "pkt_type": 1,
    "icmp_code": 1,
    "icmpv6_code": 1,
    "devgroup": 4,
    "dscp": 1,
    "ecn": 1,
    "fib_addrtype": 4,
    "boolean": 1,
    "ifname": 16,
    "igmp_type": 1,
    "time_hour": 4,
    "time_day": 1,
    "time_date": 8,
    "cgroupsv2": 8,
}
_HOST = {"host", "mark", "iface_index", "iface_type", "realm", "classid", "uid", "gid", "time"}
_HOST |= {"ct_state", "ct_dir", "ct_status", "ct_label", "ct_event", "pkt_type", "devgroup"}
_HOST |= {"fib_addrtype", "nf_proto", "boolean"}
BIG_ENDIAN = frozenset({"ipv4_addr", "ipv6_addr", "ether_addr", "ether_type", "inet_service"})
PREFIXED = frozenset({"ipv4_addr", "ipv6_addr"})  # DTYPE_F_PREFIX


class UnformattableValueError(Exception):
    """Bytes of a type that cannot be formatted."""


def type_names(number: int) -> tuple[str, ...]:
    """The types of a key, in order; empty for an unknown type."""
    names: list[str] = []
    while number:
        if number & (1 << _BITS) - 1 not in TYPE_NAMES:
            return ()
        names.insert(0, TYPE_NAMES[number & (1 << _BITS) - 1])
        number >>= _BITS
    return tuple(names)


def decode_integer(raw: bytes, kind: str, big: bool = False) -> int:
    """A number of this type. ``big``: nft has reversed its bytes to big-endian."""
    order = "big" if big or kind not in _HOST else sys.byteorder
    return int.from_bytes(raw, order)


def format_value(raw: bytes, kind: str, interfaces: Mapping[int, str], big: bool = False) -> Json:
    """One value as nft prints it.

    kind: the type's name; interfaces: names by index
    Raises UnformattableValueError for a type without a known form.
    """
    if kind in ("ipv4_addr", "ipv6_addr"):
        if len(raw) != LENGTHS[kind]:
            raise UnformattableValueError(kind)
        return address_text(raw)
    if kind in ("ifname", "string"):
        return _name(raw)
    if kind == "ether_addr":
        return ":".join(f"{byte:02x}" for byte in raw)
    number = decode_integer(raw, kind, big)
    if kind == "iface_index":
        return interfaces.get(number, str(number))
    if kind in FLAGS:
        return format_flags(number, kind)
    if kind in NAMES:
        return NAMES[kind].get(number, number)
    if kind in _FORMS:
        return _FORMS[kind](number)
    if kind in _HIDDEN:
        raise UnformattableValueError(kind)
    return number


def format_flags(number: int, kind: str) -> Json:
    """The name of a flag, or a list of names; the number itself if a bit has no name."""
    names = [name for bit, name in FLAGS[kind].items() if number & bit]
    if sum(bit for bit in FLAGS[kind] if number & bit) != number or not names:
        return number
    return names[0] if len(names) == 1 else names


def element_flags(raw: bytes, kind: str, big: bool) -> Json:
    """Flags as an element of a set has them: several as ``{"|": [...]}``."""
    names = format_flags(decode_integer(raw, kind, big), kind)
    if not isinstance(names, list):
        return names
    joined: Json = names[0]
    for name in names[1:]:
        joined = {"|": [joined, name]}
    return joined


def format_prefix(raw: bytes, mask: bytes, kind: str) -> Json | None:
    """``ADDRESS/LENGTH`` as JSON; None for another type, or a mask that is no prefix."""
    length = prefix_length(mask)
    if kind not in PREFIXED or not length:
        return None
    return {"prefix": {"addr": address_text(raw), "len": length}}


def _name(raw: bytes) -> str:
    """A name. Bytes without a final zero are the beginning of names; a literal ``*`` is escaped."""
    text = raw.rstrip(b"\0").decode(errors="replace")
    if b"\0" in raw or len(raw) == 16:
        return text.removesuffix("*") + "\\*" if text.endswith("*") else text
    return f"{text}*"


def _enumerated(names: str, first: int = 0) -> dict[int, str]:
    return dict(enumerate(names.split(), start=first))


def _inverted(numbers: Mapping[str, int]) -> dict[int, str]:
    names: dict[int, str] = {}
    for name, number in numbers.items():
        names.setdefault(number, name)
    return names


_DSCP = {f"cs{index}": index << 3 for index in range(8)}
_DSCP |= {f"af{a}{b}": a << 3 | b << 1 for a in range(1, 5) for b in range(1, 4)}
NAMES: dict[str, dict[int, str]] = {
    "nf_proto": {2: "ipv4", 10: "ipv6"},
    "inet_proto": PROTOCOL_NAMES,
    "ether_type": {0x800: "ip", 0x806: "arp", 0x86DD: "ip6", 0x8100: "vlan", 0x88A8: "8021ad"},
    "arp_op": {1: "request", 2: "reply", 3: "rrequest", 4: "rreply", 8: "inrequest", 9: "inreply"},
    "icmp_type": _inverted(ICMP),
    "icmpv6_type": _inverted(ICMPV6),
    "icmp_code": {
        0: "net-unreachable",
        1: "host-unreachable",
        2: "prot-unreachable",
        3: "port-unreachable",
        4: "frag-needed",
        9: "net-prohibited",
        10: "host-prohibited",
        13: "admin-prohibited",
    },
    "icmpv6_code": {
        0: "no-route",
        1: "admin-prohibited",
        3: "addr-unreachable",
        4: "port-unreachable",
        5: "policy-fail",
        6: "reject-route",
    },
    "icmpx_code": _enumerated("no-route port-unreachable host-unreachable admin-prohibited"),
    "ct_dir": _enumerated("original reply"),
    "pkt_type": _enumerated("host broadcast multicast other"),
    "fib_addrtype": _enumerated(
        "unspec unicast local broadcast anycast multicast blackhole unreachable prohibit"
    ),
    "devgroup": {0: "default"},
    "iface_type": {
        1: "ether",
        512: "ppp",
        768: "ipip",
        769: "ipip6",
        772: "loopback",
        776: "sit",
        778: "ipgre",
    },
    "dscp": _inverted(_DSCP | {"ef": 0x2E}),
    "ecn": _enumerated("not-ect ect1 ect0 ce"),
}
FLAGS: dict[str, dict[int, str]] = {
    "ct_state": {
        1: "invalid",
        2: "established",
        4: "related",
        8: "new",
        64: "untracked",
    },
    "ct_status": {
        1: "expected",
        2: "seen-reply",
        4: "assured",
        8: "confirmed",
        16: "snat",
        32: "dnat",
        512: "dying",
    },
    "tcp_flag": {
        1 << index: n for index, n in _enumerated("fin syn rst psh ack urg ecn cwr").items()
    },
    "ct_event": {
        1 << index: name
        for index, name in _enumerated(
            "new related destroy reply assured protoinfo helper mark seqadj secmark label"
        ).items()
    },
}


def _classid(number: int) -> str:
    return f"{number >> 16:x}:{number & 0xFFFF:x}"


_FORMS: dict[str, Callable[[int], Json]] = {
    "boolean": bool,
    "classid": _classid,
    "realm": str,
    "time": lambda number: number // 1000,
}
_HIDDEN = frozenset({"time_hour", "time_date", "time_day", "ct_label", "cgroupsv2"})


def part_lengths(kinds: Sequence[str], total: int) -> list[int]:
    """The number of bytes of each part of a key; ``total``: of a key that is no concatenation."""
    if len(kinds) == 1:
        return [total]
    if any(kind not in LENGTHS for kind in kinds):
        raise UnformattableValueError(" . ".join(kinds))
    return [LENGTHS[kind] for kind in kinds]
