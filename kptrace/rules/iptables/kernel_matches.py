"""Write the bytes of an iptables match as the options that iptables-save prints.

Legacy tables and the ``match`` expressions of iptables-nft hold the same bytes. ``matches.py`` then
reads the options like those of a text, so a match has one reader however it was obtained.

Sources: the structures of linux/netfilter/xt_*.h, the ``_save`` functions of iptables' extensions.
"""

from __future__ import annotations

from functools import partial

from kptrace.rules.byte_reader import ByteReader
from kptrace.rules.iptables.options import Unknown
from kptrace.rules.iptables.save_format import (
    Args,
    IpsetName,
    Reader,
    bit_names,
    limit_args,
    numbered_bits,
    option,
    port_args,
    quote,
    range_text,
    rate_text,
    tcp_flag_args,
    value_and_mask,
)


def match_args(name: str, revision: int, blob: ByteReader, ipset: IpsetName) -> Args:
    """The options after ``-m NAME``.

    ``ipset``: finds the name of a set by its number. Raises Unknown for a match, revision or flag
    that is not in MATCHES, and TruncatedData for too few bytes.
    """
    reader = MATCHES.get((name, revision))
    if reader is None:
        raise Unknown(f"{name} revision {revision}")
    return reader(blob, ipset)


# --- connections ------------------------------------------------------------------------------

_STATES: tuple[tuple[int, str], ...] = (
    (1, "INVALID"),
    (8, "NEW"),
    (4, "RELATED"),
    (2, "ESTABLISHED"),
    (256, "UNTRACKED"),
)
_STATES += ((64, "SNAT"), (128, "DNAT"))
_STATUSES = numbered_bits("EXPECTED SEEN_REPLY ASSURED CONFIRMED")
_CT_ADDRESSES = (
    (4, "orig", "src"),
    (8, "orig", "dst"),
    (0x10, "repl", "src"),
    (0x20, "repl", "dst"),
)
_BY_ALIAS = 0x2000


def is_state(blob: ByteReader) -> bool:
    """Whether a conntrack match was written as ``-m state``, its alias."""
    return bool(blob.u16(146) & _BY_ALIAS)


def _conntrack(revision: int, blob: ByteReader, _: IpsetName) -> Args:
    flags, inverted = blob.u16(146), blob.u16(148)
    narrow = revision == 1  # masks of one byte
    states = blob.u8(150) if narrow else blob.u16(150)
    status = blob.u8(151) if narrow else blob.u16(152)
    args: Args = []
    if flags & 1:
        name = "--state" if flags & _BY_ALIAS else "--ctstate"
        args += option(inverted & 1, name, bit_names(states, _STATES))
    if flags & 2:
        args += option(inverted & 2, "--ctproto", str(blob.u16(136)))
    for index, (bit, direction, side) in enumerate(_CT_ADDRESSES):
        if flags & bit:
            text = blob.address(32 * index) + blob.mask(32 * index + 16)
            args += option(inverted & bit, f"--ct{direction}{side}", text)
    for index, (bit, direction, side) in enumerate(_CT_ADDRESSES):
        if flags & bit << 6:
            text = _ct_ports(revision, blob, index)
            args += option(inverted & bit << 6, f"--ct{direction}{side}port", text)
    if flags & 0x40:
        args += option(inverted & 0x40, "--ctstatus", bit_names(status, _STATUSES) or "NONE")
    if flags & 0x80:
        args += option(inverted & 0x80, "--ctexpire", range_text(blob.u32(128), blob.u32(132)))
    if flags & 0x1000:
        args += ["--ctdir", "REPLY" if inverted & 0x1000 else "ORIGINAL"]
    return args


def _ct_ports(revision: int, blob: ByteReader, index: int) -> str:
    """Revision 3 has ranges in the machine's byte order; earlier ones have one big-endian port."""
    low = 138 + 2 * index
    if revision < 3:
        return str(blob.be16(low))
    return range_text(blob.u16(low), blob.u16(154 + 2 * index))


def _state(blob: ByteReader, _: IpsetName) -> Args:
    return ["--state", bit_names(blob.u32(0), _STATES)]


def _mark(blob: ByteReader, _: IpsetName) -> Args:
    return option(blob.u8(8), "--mark", value_and_mask(blob.u32(0), blob.u32(4)))


def _helper(blob: ByteReader, _: IpsetName) -> Args:
    return option(blob.u32(0), "--helper", quote(blob.text(4, 30)))


def _connlimit(blob: ByteReader, _: IpsetName) -> Args:
    flags = blob.u32(20)
    length = blob.mask(0).removeprefix("/") or ("128" if blob.family == "ip6" else "32")
    if not length.isdigit():
        raise Unknown("--connlimit-mask with holes")
    kind = "--connlimit-upto" if flags & 1 else "--connlimit-above"
    side = "--connlimit-daddr" if flags & 2 else "--connlimit-saddr"
    return [kind, str(blob.u32(16)), "--connlimit-mask", length, side]


def _connbytes(blob: ByteReader, _: IpsetName) -> Args:
    low, high, what, direction = blob.u64(0), blob.u64(8), blob.u8(16), blob.u8(17)
    negated = bool(high) and low > high
    text = f"{high}:{low}" if negated else f"{low}:{high or ''}"
    modes, directions = ("packets", "bytes", "avgpkt"), ("original", "reply", "both")
    if what >= len(modes) or direction >= len(directions):
        raise Unknown("connbytes")
    rest = ("--connbytes-mode", modes[what], "--connbytes-dir", directions[direction])
    return [*option(negated, "--connbytes", text), *rest]


# --- ports and protocols -----------------------------------------------------------------------


def _udp(blob: ByteReader, _: IpsetName) -> Args:
    inverted = blob.u8(8)
    return [
        *port_args("--sport", blob.u16(0), blob.u16(2), inverted & 1),
        *port_args("--dport", blob.u16(4), blob.u16(6), inverted & 2),
    ]


def _tcp(blob: ByteReader, _: IpsetName) -> Args:
    kind, mask, expected, inverted = (blob.u8(offset) for offset in range(8, 12))
    args = [
        *port_args("--sport", blob.u16(0), blob.u16(2), inverted & 1),
        *port_args("--dport", blob.u16(4), blob.u16(6), inverted & 2),
    ]
    if kind or inverted & 8:
        args += option(inverted & 8, "--tcp-option", str(kind))
    return args + tcp_flag_args(mask, expected, inverted & 4)


def _sctp(blob: ByteReader, _: IpsetName) -> Args:
    flags, inverted = blob.u32(284), blob.u32(288)
    if flags & 4:
        raise Unknown("--chunk-types")
    return _both_ports(blob, flags, inverted)


def _dccp(blob: ByteReader, _: IpsetName) -> Args:
    flags, inverted = blob.u16(8), blob.u16(10)
    if flags & ~3:
        raise Unknown("--dccp-types")
    return _both_ports(blob, flags, inverted)


def _both_ports(blob: ByteReader, flags: int, inverted: int) -> Args:
    """The structure has destination ports first, the text source ports."""
    args: Args = []
    for bit, name, offset in ((1, "--sport", 4), (2, "--dport", 0)):
        if flags & bit:
            args += option(inverted & bit, name, range_text(blob.u16(offset), blob.u16(offset + 2)))
    return args


def _multiport(blob: ByteReader, _: IpsetName) -> Args:
    side, count = blob.u8(0), blob.u8(1)
    ports: Args = []
    remaining = iter(range(count))
    for index in remaining:
        port = str(blob.u16(2 + 2 * index))
        if blob.u8(32 + index):
            port += f":{blob.u16(2 + 2 * next(remaining, 99))}"
        ports.append(port)
    names = ("--sports", "--dports", "--ports")
    if side >= len(names) or count > 15:
        raise Unknown("multiport")
    return option(blob.u8(47), names[side], ",".join(ports))


def _icmp(name: str, any_type: int, blob: ByteReader, _: IpsetName) -> Args:
    kind, low, high, inverted = (blob.u8(offset) for offset in range(4))
    text = "any" if kind == any_type else str(kind)
    if (low, high) != (0, 0xFF) and kind != any_type:
        text += f"/{low}"
    return option(inverted & 1, name, text)


def _esp(blob: ByteReader, _: IpsetName) -> Args:
    low, high, inverted = blob.u32(0), blob.u32(4), blob.u8(8)
    is_default = (low, high) == (0, 0xFFFFFFFF)
    return (
        []
        if is_default and not inverted
        else option(inverted & 1, "--espspi", range_text(low, high))
    )


def _tcpmss(blob: ByteReader, _: IpsetName) -> Args:
    return option(blob.u8(4), "--mss", range_text(blob.u16(0), blob.u16(2)))


# --- the packet -------------------------------------------------------------------------------

_TYPES = numbered_bits(
    "UNSPEC UNICAST LOCAL BROADCAST ANYCAST MULTICAST BLACKHOLE UNREACHABLE PROHIBIT THROW NAT "
    "XRESOLVE"
)


def _addrtype(blob: ByteReader, _: IpsetName) -> Args:
    flags = blob.u32(4)
    args: Args = []
    for bit, name, kinds in ((1, "--src-type", blob.u16(0)), (2, "--dst-type", blob.u16(2))):
        if kinds:
            args += option(flags & bit, name, bit_names(kinds, _TYPES))
    limits = ((4, "--limit-iface-in"), (8, "--limit-iface-out"))
    return args + [name for bit, name in limits if flags & bit]


def _addrtype_0(blob: ByteReader, _: IpsetName) -> Args:
    args: Args = []
    for offset, name in ((0, "--src-type"), (2, "--dst-type")):
        if blob.u16(offset):
            args += option(blob.u32(4 + 2 * offset), name, bit_names(blob.u16(offset), _TYPES))
    return args


def _iprange(blob: ByteReader, _: IpsetName) -> Args:
    flags = blob.u8(64)
    args: Args = []
    for bit, name, offset in ((1, "--src-range", 0), (2, "--dst-range", 32)):
        if flags & bit:
            text = f"{blob.address(offset)}-{blob.address(offset + 16)}"
            args += option(flags & bit << 4, name, text)
    return args


def _mac(blob: ByteReader, _: IpsetName) -> Args:
    text = ":".join(f"{byte:02x}" for byte in blob.bytes(0, 6))
    return option(blob.u32(8), "--mac-source", text)


def _physdev(blob: ByteReader, _: IpsetName) -> Args:
    inverted, flags = blob.u8(64), blob.u8(65)
    table: tuple[tuple[int, str, int | None], ...] = (
        (8, "--physdev-is-in", None),
        (1, "--physdev-in", 0),
        (16, "--physdev-is-out", None),
        (2, "--physdev-out", 32),
        (4, "--physdev-is-bridged", None),
    )
    args: Args = []
    for bit, name, offset in table:
        if flags & bit:
            args += option(
                inverted & bit, name, *([] if offset is None else [blob.text(offset, 16)])
            )
    return args


def _pkttype(blob: ByteReader, _: IpsetName) -> Args:
    names = ("unicast", "broadcast", "multicast")
    kind = blob.u32(0)
    return option(blob.u32(4), "--pkt-type", names[kind] if kind < len(names) else str(kind))


def _length(blob: ByteReader, _: IpsetName) -> Args:
    return option(blob.u8(4), "--length", range_text(blob.u16(0), blob.u16(2)))


def _hops(name: str, blob: ByteReader, _: IpsetName) -> Args:
    forms = ((False, "eq"), (True, "eq"), (False, "lt"), (False, "gt"))
    mode, value = blob.u8(0), blob.u8(1)
    if mode >= len(forms):
        raise Unknown(name)
    negated, sign = forms[mode]
    return option(negated, f"--{name}-{sign}", str(value))


def _dscp(blob: ByteReader, _: IpsetName) -> Args:
    return option(blob.u8(1), "--dscp", f"0x{blob.u8(0):02x}")


def _tos(blob: ByteReader, _: IpsetName) -> Args:
    return option(blob.u8(2), "--tos", f"0x{blob.u8(1):02x}/0x{blob.u8(0):02x}")


def _rpfilter(blob: ByteReader, _: IpsetName) -> Args:
    names = ("--loose", "--validmark", "--accept-local", "--invert")
    return [name for bit, name in enumerate(names) if blob.u8(0) & 1 << bit]


def _realm(blob: ByteReader, _: IpsetName) -> Args:
    return option(blob.u8(8), "--realm", value_and_mask(blob.u32(0), blob.u32(4)))


def _devgroup(blob: ByteReader, _: IpsetName) -> Args:
    flags = blob.u32(0)
    args: Args = []
    for bit, name, offset in ((1, "--src-group", 4), (4, "--dst-group", 12)):
        if flags & bit:
            text = value_and_mask(blob.u32(offset), blob.u32(offset + 4))
            args += option(flags & bit << 1, name, text)
    return args


# --- who sends, how often, and what is remembered ---------------------------------------------


def _owner(blob: ByteReader, _: IpsetName) -> Args:
    flags, inverted = blob.u8(16), blob.u8(17)
    args = option(inverted & 4, "--socket-exists") if flags & 4 else []
    for bit, name, offset in ((1, "--uid-owner", 0), (2, "--gid-owner", 8)):
        if flags & bit:
            text = range_text(blob.u32(offset), blob.u32(offset + 4), "-")
            args += option(inverted & bit, name, text)
    return args + (["--suppl-groups"] if flags & 8 else [])


def _socket(revision: int, blob: ByteReader, _: IpsetName) -> Args:
    names = ("--transparent", "--nowildcard", "--restore-skmark")
    flags = blob.u8(0) if revision else 0
    return [name for bit, name in enumerate(names) if flags & 1 << bit]


def _cgroup(blob: ByteReader, _: IpsetName) -> Args:
    by_path, by_class, not_path, not_class = (blob.u8(offset) for offset in range(4))
    if by_path:
        return option(not_path, "--path", blob.text(4, 512))
    return option(not_class, "--cgroup", str(blob.u32(4))) if by_class else []


def _number(name: str, blob: ByteReader, _: IpsetName) -> Args:
    """A match of one number: cpu, and the first revision of cgroup."""
    return option(blob.u32(4), name, str(blob.u32(0)))


def _statistic(blob: ByteReader, _: IpsetName) -> Args:
    mode, negated = blob.u16(0), blob.u16(2)
    if mode == 0:
        likely = f"{blob.u32(4) / 0x80000000:.11f}"
        return ["--mode", "random", *option(negated, "--probability", likely)]
    if mode != 1:
        raise Unknown("statistic")
    packet = blob.u32(8)
    args = ["--mode", "nth", *option(negated, "--every", str(blob.u32(4) + 1))]
    return args + (["--packet", str(packet)] if packet else [])


def _recent(revision: int, blob: ByteReader, _: IpsetName) -> Args:
    does, side = blob.u8(8), blob.u8(210)
    args = ["!"] if blob.u8(9) else []
    actions = ((2, "--set"), (1, "--rcheck"), (4, "--update"), (8, "--remove"))
    args += [name for bit, name in actions if does & bit]
    args += ["--seconds", str(blob.u32(0))] if blob.u32(0) else []
    args += ["--reap"] if does & 32 else []
    args += ["--hitcount", str(blob.u32(4))] if blob.u32(4) else []
    args += ["--rttl"] if does & 16 else []
    args += ["--name", blob.text(10, 200)]
    args += ["--mask", blob.address(212)] if revision else []
    return [*args, "--rdest" if side else "--rsource"]


def _limit(blob: ByteReader, _: IpsetName) -> Args:
    return limit_args(blob.u32(0), blob.u32(4))


_HASHLIMIT_SCALE = 1_000_000
_HASH_MODES = ((4, "srcip"), (8, "srcport"), (1, "dstip"), (2, "dstport"))


def _hashlimit(blob: ByteReader, _: IpsetName) -> Args:
    mode = blob.u32(272)
    if mode & ~0x1F:
        raise Unknown("--hashlimit by bytes")
    text, seconds = rate_text(blob.u64(256), _HASHLIMIT_SCALE)
    args = ["--hashlimit-above" if mode & 16 else "--hashlimit-upto", text]
    args += ["--hashlimit-burst", str(blob.u64(264))]
    args += ["--hashlimit-mode", bit_names(mode & 15, _HASH_MODES)] if mode & 15 else []
    args += ["--hashlimit-name", blob.text(0, 255)]
    usual = (
        (276, "--hashlimit-htable-size", 0),
        (280, "--hashlimit-htable-max", 0),
        (284, "--hashlimit-htable-gcinterval", 1000),
        (288, "--hashlimit-htable-expire", seconds * 1000),
        (292, "--hashlimit-rate-interval", 0),
    )
    for offset, name, default in usual:
        if blob.u32(offset) != default:
            args += [name, str(blob.u32(offset))]
    width = 128 if blob.family == "ip6" else 32
    for offset, name in ((296, "--hashlimit-srcmask"), (297, "--hashlimit-dstmask")):
        if blob.u8(offset) != width:
            args += [name, str(blob.u8(offset))]
    return args


def _quota(blob: ByteReader, _: IpsetName) -> Args:
    return option(blob.u32(0) & 1, "--quota", str(blob.u64(8)))


def _nfacct(blob: ByteReader, _: IpsetName) -> Args:
    return ["--nfacct-name", f" {blob.text(0, 32)}"]  # two spaces, as nfacct_save has it


# --- sets -------------------------------------------------------------------------------------


def set_args(blob: ByteReader, offset: int, ipset: IpsetName) -> Args:
    """The set's name and a direction for each dimension (struct xt_set_info)."""
    count, flags = blob.u8(offset + 2), blob.u8(offset + 3)
    sides = ("src" if flags & 2 << index else "dst" for index in range(min(count, 6)))
    return [ipset(blob.u16(offset)), ",".join(sides)]


def _set(revision: int, blob: ByteReader, ipset: IpsetName) -> Args:
    args = option(blob.u8(3) & 1, "--match-set", *set_args(blob, 0, ipset))
    if revision in (2, 3):
        flags = blob.u32(24 if revision == 3 else 4) if len(blob.data) > 4 else 0
        if flags or any(blob.data[4:]):
            raise Unknown("set")
    if revision == 4:
        args += _set_options(blob)
    return args


def _set_options(blob: ByteReader) -> Args:
    flags = blob.u32(40)
    args = ["--return-nomatch"] if flags & 0x80 else []
    args += ["!", "--update-counters"] if flags & 8 else []
    args += ["!", "--update-subcounters"] if flags & 16 else []
    if flags & ~0x98:
        raise Unknown("set")
    for name, offset in (("packets", 8), ("bytes", 24)):
        compare = blob.u8(offset + 8)
        if compare > 4:
            raise Unknown("set")
        if compare:
            sign = ("eq", "eq", "lt", "gt")[compare - 1]
            args += option(compare == 2, f"--{name}-{sign}", str(blob.u64(offset)))
    return args


MATCHES: dict[tuple[str, int], Reader] = {
    ("addrtype", 0): _addrtype_0,
    ("addrtype", 1): _addrtype,
    ("cgroup", 0): partial(_number, "--cgroup"),
    ("cgroup", 2): _cgroup,
    ("comment", 0): lambda blob, _: ["--comment", quote(blob.text(0, len(blob.data)))],
    ("connbytes", 0): _connbytes,
    ("connlimit", 1): _connlimit,
    ("connmark", 1): _mark,
    **{("conntrack", revision): partial(_conntrack, revision) for revision in (1, 2, 3)},
    ("cpu", 0): partial(_number, "--cpu"),
    ("dccp", 0): _dccp,
    ("devgroup", 0): _devgroup,
    ("dscp", 0): _dscp,
    ("esp", 0): _esp,
    ("hashlimit", 3): _hashlimit,
    ("helper", 0): _helper,
    ("hl", 0): partial(_hops, "hl"),
    ("icmp", 0): partial(_icmp, "--icmp-type", 0xFF),
    ("icmp6", 0): partial(_icmp, "--icmpv6-type", -1),
    ("iprange", 1): _iprange,
    ("length", 0): _length,
    ("limit", 0): _limit,
    ("mac", 0): _mac,
    ("mark", 1): _mark,
    ("multiport", 1): _multiport,
    ("nfacct", 0): _nfacct,
    ("nfacct", 1): _nfacct,
    ("owner", 1): _owner,
    ("physdev", 0): _physdev,
    ("pkttype", 0): _pkttype,
    ("quota", 0): _quota,
    ("realm", 0): _realm,
    **{("recent", revision): partial(_recent, revision) for revision in (0, 1)},
    ("rpfilter", 0): _rpfilter,
    ("sctp", 0): _sctp,
    **{("set", revision): partial(_set, revision) for revision in (1, 2, 3, 4)},
    **{("socket", revision): partial(_socket, revision) for revision in (0, 1, 2, 3)},
    ("state", 0): _state,
    ("statistic", 0): _statistic,
    ("tcp", 0): _tcp,
    ("tcpmss", 0): _tcpmss,
    ("tos", 1): _tos,
    ("ttl", 0): partial(_hops, "ttl"),
    ("udp", 0): _udp,
    ("udplite", 0): _udp,
}
