"""The bytes of iptables' targets -> the options that iptables-save prints for them.

As ``kernel_matches.py``, for ``-j``. NOTRACK is an alias of CT, so a target can have another name.
"""

from __future__ import annotations

from functools import partial

from kptrace.rules.byte_reader import ByteReader, prefix_length
from kptrace.rules.iptables.kernel_matches import set_words
from kptrace.rules.iptables.options import Unknown
from kptrace.rules.iptables.save_format import IpsetName, Reader, Words, bits, named, saved


def target_words(name: str, revision: int, blob: ByteReader, ipset: IpsetName) -> Words:
    """The name and its options. Raises Unknown or Short."""
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
    """struct nf_nat_range2 or nf_nat_range, or the one of IPv4's first revisions."""

    def __init__(self, blob: ByteReader, old: bool) -> None:
        size, at = (4, 4) if old else (16, 0)
        self.flags = blob.u32(at)
        low, high = at + 4, at + 4 + size
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
    def randomness(self) -> Words:
        return [word for bit, word in _RANDOM_WORDS if self.flags & bit]


def _is_old(blob: ByteReader, revision: int) -> bool:
    return blob.family == "ip" and revision < 2


def _nat(name: str, revision: int, blob: ByteReader, _: IpsetName) -> Words:
    given = _Range(blob, _is_old(blob, revision))
    text = ""
    if given.flags & _MAP_IPS:
        text = given.low if given.low == given.high else f"{given.low}-{given.high}"
        text = f"[{text}]" if blob.family == "ip6" and given.ports else text
    text += f":{given.ports}" if given.ports else ""
    return [name, text, *given.randomness] if text else given.randomness


def _port_nat(blob: ByteReader, _: IpsetName) -> Words:
    given = _Range(blob, _is_old(blob, 0))
    return (["--to-ports", given.ports] if given.ports else []) + given.randomness


def _netmap(blob: ByteReader, _: IpsetName) -> Words:
    given = _Range(blob, _is_old(blob, 0))
    low, high = (int.from_bytes(edge, "big") for edge in given.edges)
    size = 16 if blob.family == "ip6" else 4
    whole = 16 - size if len(given.edges[0]) == 16 else 0
    mask = (~(low ^ high) >> whole * 8) & (1 << size * 8) - 1
    length = prefix_length(mask.to_bytes(size, "big"))
    if length is None:
        raise Unknown("a mask with holes")
    return ["--to", given.low if length == size * 8 else f"{given.low}/{length}"]


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


def _reject(blob: ByteReader, _: IpsetName) -> Words:
    kind, names = blob.u32(0), _REJECT[blob.family]
    if kind not in names:
        raise Unknown("REJECT")
    return ["--reject-with", names[kind]]


def _mark(blob: ByteReader, _: IpsetName) -> Words:
    return ["--set-xmark", f"{blob.u32(0):#x}/{blob.u32(4):#x}"]


def _connmark(revision: int, blob: ByteReader, _: IpsetName) -> Words:
    ctmark, ctmask, nfmask = (blob.u32(at) for at in (0, 4, 8))
    mode = blob.u8(12) if revision == 1 else blob.u8(14)
    if mode == 0:
        words = ["--set-xmark", f"{ctmark:#x}/{ctmask:#x}"]
    elif mode in (1, 2):
        name = "--save-mark" if mode == 1 else "--restore-mark"
        words = [name, "--nfmask", f"{nfmask:#x}", "--ctmask", f"{ctmask:#x}"]
    else:
        raise Unknown("CONNMARK")
    if revision == 2 and blob.u8(13):
        side = "--right-shift-mark" if blob.u8(12) else "--left-shift-mark"
        words += [side, str(blob.u8(13))]
    return words


def _tproxy(blob: ByteReader, _: IpsetName) -> Words:
    mask, value, port = blob.u32(0), blob.u32(4), blob.be16(24)
    mark = f"{value:#x}/{mask:#x}"
    return ["--on-port", str(port), "--on-ip", blob.address(8), "--tproxy-mark", mark]


_EVENTS = bits("new related destroy reply assured protoinfo helper mark natseqinfo secmark")


def _ct(blob: ByteReader, _: IpsetName) -> Words:
    flags, zone = blob.u16(0), blob.u16(2)
    words = ["--notrack"] if flags & 1 else []
    for name, at, size in (("--helper", 12, 16), ("--timeout", 28, 32)):
        text = blob.text(at, size)
        words += [name, saved(text) if name == "--helper" else text] if text else []
    for name, at in (("--ctevents", 4), ("--expevents", 8)):
        if blob.u32(at):
            words += [name, named(blob.u32(at), _EVENTS)]
    side = "-orig" if flags & 4 else "-reply" if flags & 8 else ""
    if flags & 16:
        return [*words, f"--zone{side}", "mark"]
    return [*words, f"--zone{side}", str(zone)] if zone else words


# --- logs and queues --------------------------------------------------------------------------

_LOG_FLAGS = (
    (1, "--log-tcp-sequence"),
    (2, "--log-tcp-options"),
    (4, "--log-ip-options"),
    (8, "--log-uid"),
    (32, "--log-macdecode"),
)


def _log(blob: ByteReader, _: IpsetName) -> Words:
    level, flags, prefix = blob.u8(0), blob.u8(1), blob.text(2, 30)
    words = ["--log-prefix", saved(prefix)] if prefix else []
    words += ["--log-level", str(level)] if level != 4 else []
    return words + [name for bit, name in _LOG_FLAGS if flags & bit]


def nflog_words(prefix: str, group: int, size: int | None, threshold: int) -> Words:
    words = ["--nflog-prefix", saved(prefix)] if prefix else []
    words += ["--nflog-group", str(group)] if group else []
    words += ["--nflog-size", str(size)] if size is not None else []
    return words + (["--nflog-threshold", str(threshold)] if threshold else [])


def _nflog(blob: ByteReader, _: IpsetName) -> Words:
    size, group, threshold, flags = blob.u32(0), blob.u16(4), blob.u16(6), blob.u16(8)
    if size and not flags & 1:
        raise Unknown("--nflog-range")
    return nflog_words(blob.text(12, 64), group, size if flags & 1 else None, threshold)


def _nfqueue(revision: int, blob: ByteReader, _: IpsetName) -> Words:
    first = blob.u16(0)
    count = blob.u16(2) if revision else 1
    flags = blob.u16(4) if revision > 1 else 0
    last = first + max(count, 1) - 1
    words = ["--queue-num", str(first)] if count <= 1 else ["--queue-balance", f"{first}:{last}"]
    names = ((1, "--queue-bypass"), (2, "--queue-cpu-fanout"))
    return words + [name for bit, name in names if flags & bit]


# --- changes of the packet, copies, sets -------------------------------------------------------


def _hops(name: str, blob: ByteReader, _: IpsetName) -> Words:
    names, mode = ("set", "inc", "dec"), blob.u8(0)
    if mode >= len(names):
        raise Unknown(name)
    return [f"--{name}-{names[mode]}", str(blob.u8(1))]


def _dscp(blob: ByteReader, _: IpsetName) -> Words:
    return ["--set-dscp", f"0x{blob.u8(0):02x}"]


def _tos(blob: ByteReader, _: IpsetName) -> Words:
    return ["--set-tos", f"0x{blob.u8(0):02x}/0x{blob.u8(1):02x}"]


def _tcpmss(blob: ByteReader, _: IpsetName) -> Words:
    size = blob.u16(0)
    return ["--clamp-mss-to-pmtu"] if size == 0xFFFF else ["--set-mss", str(size)]


def _checksum(blob: ByteReader, _: IpsetName) -> Words:
    return ["--checksum-fill"] if blob.u8(0) & 1 else []


def _classify(blob: ByteReader, _: IpsetName) -> Words:
    value = blob.u32(0)
    return ["--set-class", f"{value >> 16:04x}:{value & 0xFFFF:04x}"]


def _tee(blob: ByteReader, _: IpsetName) -> Words:
    device = blob.text(16, 16)
    return ["--gateway", blob.address(0), *(["--oif", device] if device else [])]


_NO_SET = 0xFFFF
_NO_TIMEOUT = 0xFFFFFFFF


def _set(revision: int, blob: ByteReader, ipset: IpsetName) -> Words:
    names = (("--add-set", 0), ("--del-set", 4), ("--map-set", 8))
    at = {1: 8, 2: 8, 3: 12}[revision]
    words: Words = []
    for name, place in names[: at // 4]:
        if blob.u16(place) != _NO_SET:
            words += [name, *set_words(blob, place, ipset)]
    if revision == 1:
        return words
    flags, timeout = blob.u32(at), blob.u32(at + 4)
    if flags & ~1:
        raise Unknown("SET")
    words += ["--exist"] if flags & 1 else []
    return words + (["--timeout", str(timeout)] if timeout != _NO_TIMEOUT else [])


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
