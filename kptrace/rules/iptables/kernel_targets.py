"""Write the bytes of an iptables target as the options that iptables-save prints.

This is to ``-j`` what ``kernel_matches.py`` is to ``-m``.
"""

from __future__ import annotations

from functools import partial

from kptrace.rules.byte_reader import ByteReader, prefix_length
from kptrace.rules.iptables.kernel_matches import set_args
from kptrace.rules.iptables.options import Unknown
from kptrace.rules.iptables.save_format import (
    Args,
    IpsetName,
    Reader,
    bit_names,
    numbered_bits,
    quote,
)


def target_args(name: str, revision: int, blob: ByteReader, ipset: IpsetName) -> Args:
    """The target's name and its options; CT without tracking is printed as its alias NOTRACK.

    Raises Unknown for a target, revision or flag that is not in TARGETS, and TruncatedData.
    """
    reader = TARGETS.get((name, revision))
    if reader is None:
        raise Unknown(f"{name} revision {revision}")
    if name == "CT" and blob.u16(0) & 2:
        return ["NOTRACK"]
    return [name, *reader(blob, ipset)]


# --- address translation ----------------------------------------------------------------------

_MAP_IPS, _PORTS, _RANDOM, _PERSISTENT, _RANDOM_FULLY, _OFFSET = (1 << bit for bit in range(6))
_RANDOM_WORDS = (
    (_RANDOM, "--random"),
    (_RANDOM_FULLY, "--random-fully"),
    (_PERSISTENT, "--persistent"),
)


class _Range:
    """struct nf_nat_range2 or nf_nat_range, or ``old``: nf_nat_ipv4_range."""

    def __init__(self, blob: ByteReader, old: bool) -> None:
        size, offset = (4, 4) if old else (16, 0)
        self.flags = blob.u32(offset)
        low, high = offset + 4, offset + 4 + size
        self.low, self.high = blob.address(low), blob.address(high)
        self.edges = blob.bytes(low, size), blob.bytes(high, size)
        ports = high + size
        self.port, self.last = blob.be16(ports), blob.be16(ports + 2)
        self.base = blob.be16(ports + 4) if self.flags & _OFFSET else 0

    @property
    def ports(self) -> str:
        if not self.flags & _PORTS:
            return ""
        text = str(self.port) if self.port == self.last else f"{self.port}-{self.last}"
        return f"{text}/{self.base}" if self.flags & _OFFSET else text

    @property
    def randomness(self) -> Args:
        return [word for bit, word in _RANDOM_WORDS if self.flags & bit]


def _is_old(blob: ByteReader, revision: int) -> bool:
    return blob.family == "ip" and revision < 2


def _nat(name: str, revision: int, blob: ByteReader, _: IpsetName) -> Args:
    nat_range = _Range(blob, _is_old(blob, revision))
    text = ""
    if nat_range.flags & _MAP_IPS:
        text = (
            nat_range.low
            if nat_range.low == nat_range.high
            else f"{nat_range.low}-{nat_range.high}"
        )
        text = f"[{text}]" if blob.family == "ip6" and nat_range.ports else text
    text += f":{nat_range.ports}" if nat_range.ports else ""
    return [name, text, *nat_range.randomness] if text else nat_range.randomness


def _port_nat(blob: ByteReader, _: IpsetName) -> Args:
    nat_range = _Range(blob, _is_old(blob, 0))
    return (["--to-ports", nat_range.ports] if nat_range.ports else []) + nat_range.randomness


def _netmap(blob: ByteReader, _: IpsetName) -> Args:
    nat_range = _Range(blob, _is_old(blob, 0))
    low, high = (int.from_bytes(edge, "big") for edge in nat_range.edges)
    size = 16 if blob.family == "ip6" else 4
    unused = 16 - size if len(nat_range.edges[0]) == 16 else 0
    mask = (~(low ^ high) >> unused * 8) & (1 << size * 8) - 1
    length = prefix_length(mask.to_bytes(size, "big"))
    if length is None:
        raise Unknown("a mask with holes")
    return ["--to", nat_range.low if length == size * 8 else f"{nat_range.low}/{length}"]


# --- verdicts with a reply, marks --------------------------------------------------------------

_REJECT = {
    "ip": {
        0: "icmp-net-unreachable",
        1: "icmp-host-unreachable",
        2: "icmp-proto-unreachable",
        3: "icmp-port-unreachable",
        5: "icmp-net-prohibited",
        6: "icmp-host-prohibited",
        7: "tcp-reset",
        8: "icmp-admin-prohibited",
    },
    "ip6": {
        0: "icmp6-no-route",
        1: "icmp6-adm-prohibited",
        3: "icmp6-addr-unreachable",
        4: "icmp6-port-unreachable",
        6: "tcp-reset",
        7: "icmp6-policy-fail",
        8: "icmp6-reject-route",
    },
}


def _reject(blob: ByteReader, _: IpsetName) -> Args:
    kind, names = blob.u32(0), _REJECT[blob.family]
    if kind not in names:
        raise Unknown("REJECT")
    return ["--reject-with", names[kind]]


def _mark(blob: ByteReader, _: IpsetName) -> Args:
    return ["--set-xmark", f"{blob.u32(0):#x}/{blob.u32(4):#x}"]


def _connmark(revision: int, blob: ByteReader, _: IpsetName) -> Args:
    ctmark, ctmask, nfmask = (blob.u32(offset) for offset in (0, 4, 8))
    mode = blob.u8(12) if revision == 1 else blob.u8(14)
    if mode == 0:
        args = ["--set-xmark", f"{ctmark:#x}/{ctmask:#x}"]
    elif mode in (1, 2):
        name = "--save-mark" if mode == 1 else "--restore-mark"
        args = [name, "--nfmask", f"{nfmask:#x}", "--ctmask", f"{ctmask:#x}"]
    else:
        raise Unknown("CONNMARK")
    if revision == 2 and blob.u8(13):
        side = "--right-shift-mark" if blob.u8(12) else "--left-shift-mark"
        args += [side, str(blob.u8(13))]
    return args


def _tproxy(blob: ByteReader, _: IpsetName) -> Args:
    mask, value, port = blob.u32(0), blob.u32(4), blob.be16(24)
    mark = f"{value:#x}/{mask:#x}"
    return ["--on-port", str(port), "--on-ip", blob.address(8), "--tproxy-mark", mark]


_EVENTS = numbered_bits(
    "new related destroy reply assured protoinfo helper mark natseqinfo secmark"
)


def _ct(blob: ByteReader, _: IpsetName) -> Args:
    flags, zone = blob.u16(0), blob.u16(2)
    args = ["--notrack"] if flags & 1 else []
    for name, offset, size in (("--helper", 12, 16), ("--timeout", 28, 32)):
        text = blob.text(offset, size)
        args += [name, quote(text) if name == "--helper" else text] if text else []
    for name, offset in (("--ctevents", 4), ("--expevents", 8)):
        if blob.u32(offset):
            args += [name, bit_names(blob.u32(offset), _EVENTS)]
    side = "-orig" if flags & 4 else "-reply" if flags & 8 else ""
    if flags & 16:
        return [*args, f"--zone{side}", "mark"]
    return [*args, f"--zone{side}", str(zone)] if zone else args


# --- logs and queues --------------------------------------------------------------------------

_LOG_FLAGS = (
    (1, "--log-tcp-sequence"),
    (2, "--log-tcp-options"),
    (4, "--log-ip-options"),
    (8, "--log-uid"),
    (32, "--log-macdecode"),
)


def _log(blob: ByteReader, _: IpsetName) -> Args:
    level, flags, prefix = blob.u8(0), blob.u8(1), blob.text(2, 30)
    args = ["--log-prefix", quote(prefix)] if prefix else []
    args += ["--log-level", str(level)] if level != 4 else []
    return args + [name for bit, name in _LOG_FLAGS if flags & bit]


def nflog_args(prefix: str, group: int, size: int | None, threshold: int) -> Args:
    args = ["--nflog-prefix", quote(prefix)] if prefix else []
    args += ["--nflog-group", str(group)] if group else []
    args += ["--nflog-size", str(size)] if size is not None else []
    return args + (["--nflog-threshold", str(threshold)] if threshold else [])


def _nflog(blob: ByteReader, _: IpsetName) -> Args:
    size, group, threshold, flags = blob.u32(0), blob.u16(4), blob.u16(6), blob.u16(8)
    if size and not flags & 1:
        raise Unknown("--nflog-range")
    return nflog_args(blob.text(12, 64), group, size if flags & 1 else None, threshold)


def _nfqueue(revision: int, blob: ByteReader, _: IpsetName) -> Args:
    first = blob.u16(0)
    count = blob.u16(2) if revision else 1
    flags = blob.u16(4) if revision > 1 else 0
    last = first + max(count, 1) - 1
    args = ["--queue-num", str(first)] if count <= 1 else ["--queue-balance", f"{first}:{last}"]
    names = ((1, "--queue-bypass"), (2, "--queue-cpu-fanout"))
    return args + [name for bit, name in names if flags & bit]


# --- changes of the packet, copies, sets -------------------------------------------------------


def _hops(name: str, blob: ByteReader, _: IpsetName) -> Args:
    names, mode = ("set", "inc", "dec"), blob.u8(0)
    if mode >= len(names):
        raise Unknown(name)
    return [f"--{name}-{names[mode]}", str(blob.u8(1))]


def _dscp(blob: ByteReader, _: IpsetName) -> Args:
    return ["--set-dscp", f"0x{blob.u8(0):02x}"]


def _tos(blob: ByteReader, _: IpsetName) -> Args:
    return ["--set-tos", f"0x{blob.u8(0):02x}/0x{blob.u8(1):02x}"]


def _tcpmss(blob: ByteReader, _: IpsetName) -> Args:
    size = blob.u16(0)
    return ["--clamp-mss-to-pmtu"] if size == 0xFFFF else ["--set-mss", str(size)]


def _checksum(blob: ByteReader, _: IpsetName) -> Args:
    return ["--checksum-fill"] if blob.u8(0) & 1 else []


def _classify(blob: ByteReader, _: IpsetName) -> Args:
    value = blob.u32(0)
    return ["--set-class", f"{value >> 16:04x}:{value & 0xFFFF:04x}"]


def _tee(blob: ByteReader, _: IpsetName) -> Args:
    device = blob.text(16, 16)
    return ["--gateway", blob.address(0), *(["--oif", device] if device else [])]


_NO_SET = 0xFFFF
_NO_TIMEOUT = 0xFFFFFFFF


def _set(revision: int, blob: ByteReader, ipset: IpsetName) -> Args:
    names = (("--add-set", 0), ("--del-set", 4), ("--map-set", 8))
    offset = {1: 8, 2: 8, 3: 12}[revision]
    args: Args = []
    for name, place in names[: offset // 4]:
        if blob.u16(place) != _NO_SET:
            args += [name, *set_args(blob, place, ipset)]
    if revision == 1:
        return args
    flags, timeout = blob.u32(offset), blob.u32(offset + 4)
    if flags & ~1:
        raise Unknown("SET")
    args += ["--exist"] if flags & 1 else []
    return args + (["--timeout", str(timeout)] if timeout != _NO_TIMEOUT else [])


TARGETS: dict[tuple[str, int], Reader] = {
    ("CHECKSUM", 0): _checksum,
    ("CLASSIFY", 0): _classify,
    **{("CONNMARK", revision): partial(_connmark, revision) for revision in (1, 2)},
    **{("CT", revision): _ct for revision in (1, 2)},
    **{("DNAT", revision): partial(_nat, "--to-destination", revision) for revision in (0, 1, 2)},
    ("DSCP", 0): _dscp,
    ("HL", 0): partial(_hops, "hl"),
    ("LOG", 0): _log,
    ("MARK", 2): _mark,
    ("MASQUERADE", 0): _port_nat,
    ("NETMAP", 0): _netmap,
    ("NFLOG", 0): _nflog,
    **{("NFQUEUE", revision): partial(_nfqueue, revision) for revision in (0, 1, 2, 3)},
    ("NOTRACK", 0): lambda blob, _: [],
    ("REDIRECT", 0): _port_nat,
    ("REJECT", 0): _reject,
    **{("SET", revision): partial(_set, revision) for revision in (1, 2, 3)},
    **{("SNAT", revision): partial(_nat, "--to-source", revision) for revision in (0, 1, 2)},
    ("TCPMSS", 0): _tcpmss,
    ("TEE", 1): _tee,
    ("TOS", 1): _tos,
    ("TPROXY", 1): _tproxy,
    ("TRACE", 0): lambda blob, _: [],
    ("TTL", 0): partial(_hops, "ttl"),
}
