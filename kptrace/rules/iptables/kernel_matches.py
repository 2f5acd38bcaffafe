"""The bytes of iptables' matches -> the options that iptables-save prints for them.

In: a match's name, revision and bytes, as legacy tables and iptables-nft's ``match`` expressions
hold them alike. Out: the words behind ``-m NAME``, to the letter. They are then read by
``matches.py`` like any other text, so native and text reading cannot come apart.

Sources: the structures of linux/netfilter/xt_*.h, the ``_save`` functions of iptables' extensions.
A match, revision or flag that is not in the table raises Unknown; the caller keeps its bytes.
"""

from __future__ import annotations

from functools import partial

from kptrace.rules.byte_reader import ByteReader
from kptrace.rules.iptables.kernel_port_matches import PORT_MATCHES
from kptrace.rules.iptables.options import Unknown
from kptrace.rules.iptables.save_format import (
    IpsetName,
    Reader,
    Words,
    bits,
    limit_words,
    marked,
    named,
    option,
    rate,
    saved,
    span,
)


def match_words(name: str, revision: int, blob: ByteReader, ipset: IpsetName) -> Words:
    """Raises Unknown or Short."""
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
_STATUSES = bits("EXPECTED SEEN_REPLY ASSURED CONFIRMED")
_CT_ADDRESSES = (
    (4, "orig", "src"),
    (8, "orig", "dst"),
    (0x10, "repl", "src"),
    (0x20, "repl", "dst"),
)
_BY_ALIAS = 0x2000


def is_state(blob: ByteReader) -> bool:
    """Written as ``-m state``, which is an alias of conntrack."""
    return bool(blob.u16(146) & _BY_ALIAS)


def _conntrack(revision: int, blob: ByteReader, _: IpsetName) -> Words:
    given, inverted = blob.u16(146), blob.u16(148)
    narrow = revision == 1  # masks of one byte
    states = blob.u8(150) if narrow else blob.u16(150)
    status = blob.u8(151) if narrow else blob.u16(152)
    words: Words = []
    if given & 1:
        name = "--state" if given & _BY_ALIAS else "--ctstate"
        words += option(inverted & 1, name, named(states, _STATES))
    if given & 2:
        words += option(inverted & 2, "--ctproto", str(blob.u16(136)))
    for turn, (bit, direction, side) in enumerate(_CT_ADDRESSES):
        if given & bit:
            text = blob.address(32 * turn) + blob.mask(32 * turn + 16)
            words += option(inverted & bit, f"--ct{direction}{side}", text)
    for turn, (bit, direction, side) in enumerate(_CT_ADDRESSES):
        if given & bit << 6:
            text = _ct_ports(revision, blob, turn)
            words += option(inverted & bit << 6, f"--ct{direction}{side}port", text)
    if given & 0x40:
        words += option(inverted & 0x40, "--ctstatus", named(status, _STATUSES) or "NONE")
    if given & 0x80:
        words += option(inverted & 0x80, "--ctexpire", span(blob.u32(128), blob.u32(132)))
    if given & 0x1000:
        words += ["--ctdir", "REPLY" if inverted & 0x1000 else "ORIGINAL"]
    return words


def _ct_ports(revision: int, blob: ByteReader, turn: int) -> str:
    """Revision 3 has ranges and the machine's byte order, those before one port in the net's."""
    low = 138 + 2 * turn
    if revision < 3:
        return str(blob.be16(low))
    return span(blob.u16(low), blob.u16(154 + 2 * turn))


def _state(blob: ByteReader, _: IpsetName) -> Words:
    return ["--state", named(blob.u32(0), _STATES)]


def _mark(blob: ByteReader, _: IpsetName) -> Words:
    return option(blob.u8(8), "--mark", marked(blob.u32(0), blob.u32(4)))


def _helper(blob: ByteReader, _: IpsetName) -> Words:
    return option(blob.u32(0), "--helper", saved(blob.text(4, 30)))


def _connlimit(blob: ByteReader, _: IpsetName) -> Words:
    flags = blob.u32(20)
    length = blob.mask(0).removeprefix("/") or ("128" if blob.family == "ip6" else "32")
    if not length.isdigit():
        raise Unknown("--connlimit-mask with holes")
    kind = "--connlimit-upto" if flags & 1 else "--connlimit-above"
    side = "--connlimit-daddr" if flags & 2 else "--connlimit-saddr"
    return [kind, str(blob.u32(16)), "--connlimit-mask", length, side]


def _connbytes(blob: ByteReader, _: IpsetName) -> Words:
    low, high, what, direction = blob.u64(0), blob.u64(8), blob.u8(16), blob.u8(17)
    negated = bool(high) and low > high
    text = f"{high}:{low}" if negated else f"{low}:{high or ''}"
    modes, directions = ("packets", "bytes", "avgpkt"), ("original", "reply", "both")
    if what >= len(modes) or direction >= len(directions):
        raise Unknown("connbytes")
    rest = ("--connbytes-mode", modes[what], "--connbytes-dir", directions[direction])
    return [*option(negated, "--connbytes", text), *rest]


# --- the packet -------------------------------------------------------------------------------

_TYPES = bits(
    "UNSPEC UNICAST LOCAL BROADCAST ANYCAST MULTICAST BLACKHOLE UNREACHABLE PROHIBIT THROW NAT "
    "XRESOLVE"
)


def _addrtype(blob: ByteReader, _: IpsetName) -> Words:
    flags = blob.u32(4)
    words: Words = []
    for bit, name, kinds in ((1, "--src-type", blob.u16(0)), (2, "--dst-type", blob.u16(2))):
        if kinds:
            words += option(flags & bit, name, named(kinds, _TYPES))
    limits = ((4, "--limit-iface-in"), (8, "--limit-iface-out"))
    return words + [name for bit, name in limits if flags & bit]


def _addrtype_0(blob: ByteReader, _: IpsetName) -> Words:
    words: Words = []
    for at, name in ((0, "--src-type"), (2, "--dst-type")):
        if blob.u16(at):
            words += option(blob.u32(4 + 2 * at), name, named(blob.u16(at), _TYPES))
    return words


def _iprange(blob: ByteReader, _: IpsetName) -> Words:
    flags = blob.u8(64)
    words: Words = []
    for bit, name, at in ((1, "--src-range", 0), (2, "--dst-range", 32)):
        if flags & bit:
            text = f"{blob.address(at)}-{blob.address(at + 16)}"
            words += option(flags & bit << 4, name, text)
    return words


def _mac(blob: ByteReader, _: IpsetName) -> Words:
    text = ":".join(f"{byte:02x}" for byte in blob.bytes(0, 6))
    return option(blob.u32(8), "--mac-source", text)


def _physdev(blob: ByteReader, _: IpsetName) -> Words:
    inverted, given = blob.u8(64), blob.u8(65)
    table: tuple[tuple[int, str, int | None], ...] = (
        (8, "--physdev-is-in", None),
        (1, "--physdev-in", 0),
        (16, "--physdev-is-out", None),
        (2, "--physdev-out", 32),
        (4, "--physdev-is-bridged", None),
    )
    words: Words = []
    for bit, name, at in table:
        if given & bit:
            words += option(inverted & bit, name, *([] if at is None else [blob.text(at, 16)]))
    return words


def _pkttype(blob: ByteReader, _: IpsetName) -> Words:
    names = ("unicast", "broadcast", "multicast")
    kind = blob.u32(0)
    return option(blob.u32(4), "--pkt-type", names[kind] if kind < len(names) else str(kind))


def _length(blob: ByteReader, _: IpsetName) -> Words:
    return option(blob.u8(4), "--length", span(blob.u16(0), blob.u16(2)))


def _hops(name: str, blob: ByteReader, _: IpsetName) -> Words:
    forms = ((False, "eq"), (True, "eq"), (False, "lt"), (False, "gt"))
    mode, value = blob.u8(0), blob.u8(1)
    if mode >= len(forms):
        raise Unknown(name)
    negated, sign = forms[mode]
    return option(negated, f"--{name}-{sign}", str(value))


def _dscp(blob: ByteReader, _: IpsetName) -> Words:
    return option(blob.u8(1), "--dscp", f"0x{blob.u8(0):02x}")


def _tos(blob: ByteReader, _: IpsetName) -> Words:
    return option(blob.u8(2), "--tos", f"0x{blob.u8(1):02x}/0x{blob.u8(0):02x}")


def _rpfilter(blob: ByteReader, _: IpsetName) -> Words:
    names = ("--loose", "--validmark", "--accept-local", "--invert")
    return [name for bit, name in enumerate(names) if blob.u8(0) & 1 << bit]


def _realm(blob: ByteReader, _: IpsetName) -> Words:
    return option(blob.u8(8), "--realm", marked(blob.u32(0), blob.u32(4)))


def _devgroup(blob: ByteReader, _: IpsetName) -> Words:
    flags = blob.u32(0)
    words: Words = []
    for bit, name, at in ((1, "--src-group", 4), (4, "--dst-group", 12)):
        if flags & bit:
            text = marked(blob.u32(at), blob.u32(at + 4))
            words += option(flags & bit << 1, name, text)
    return words


# --- who sends, how often, and what is remembered ---------------------------------------------


def _owner(blob: ByteReader, _: IpsetName) -> Words:
    given, inverted = blob.u8(16), blob.u8(17)
    words = option(inverted & 4, "--socket-exists") if given & 4 else []
    for bit, name, at in ((1, "--uid-owner", 0), (2, "--gid-owner", 8)):
        if given & bit:
            text = span(blob.u32(at), blob.u32(at + 4), "-")
            words += option(inverted & bit, name, text)
    return words + (["--suppl-groups"] if given & 8 else [])


def _socket(revision: int, blob: ByteReader, _: IpsetName) -> Words:
    names = ("--transparent", "--nowildcard", "--restore-skmark")
    flags = blob.u8(0) if revision else 0
    return [name for bit, name in enumerate(names) if flags & 1 << bit]


def _cgroup(blob: ByteReader, _: IpsetName) -> Words:
    by_path, by_class, not_path, not_class = (blob.u8(at) for at in range(4))
    if by_path:
        return option(not_path, "--path", blob.text(4, 512))
    return option(not_class, "--cgroup", str(blob.u32(4))) if by_class else []


def _number(name: str, blob: ByteReader, _: IpsetName) -> Words:
    """A number, and whether it is negated: cpu, and cgroup's first revision."""
    return option(blob.u32(4), name, str(blob.u32(0)))


def _statistic(blob: ByteReader, _: IpsetName) -> Words:
    mode, negated = blob.u16(0), blob.u16(2)
    if mode == 0:
        likely = f"{blob.u32(4) / 0x80000000:.11f}"
        return ["--mode", "random", *option(negated, "--probability", likely)]
    if mode != 1:
        raise Unknown("statistic")
    packet = blob.u32(8)
    words = ["--mode", "nth", *option(negated, "--every", str(blob.u32(4) + 1))]
    return words + (["--packet", str(packet)] if packet else [])


def _recent(revision: int, blob: ByteReader, _: IpsetName) -> Words:
    does, side = blob.u8(8), blob.u8(210)
    words = ["!"] if blob.u8(9) else []
    actions = ((2, "--set"), (1, "--rcheck"), (4, "--update"), (8, "--remove"))
    words += [name for bit, name in actions if does & bit]
    words += ["--seconds", str(blob.u32(0))] if blob.u32(0) else []
    words += ["--reap"] if does & 32 else []
    words += ["--hitcount", str(blob.u32(4))] if blob.u32(4) else []
    words += ["--rttl"] if does & 16 else []
    words += ["--name", blob.text(10, 200)]
    words += ["--mask", blob.address(212)] if revision else []
    return [*words, "--rdest" if side else "--rsource"]


def _limit(blob: ByteReader, _: IpsetName) -> Words:
    return limit_words(blob.u32(0), blob.u32(4))


_HASHLIMIT_SCALE = 1_000_000
_HASH_MODES = ((4, "srcip"), (8, "srcport"), (1, "dstip"), (2, "dstport"))


def _hashlimit(blob: ByteReader, _: IpsetName) -> Words:
    mode = blob.u32(272)
    if mode & ~0x1F:
        raise Unknown("--hashlimit by bytes")
    text, seconds = rate(blob.u64(256), _HASHLIMIT_SCALE)
    words = ["--hashlimit-above" if mode & 16 else "--hashlimit-upto", text]
    words += ["--hashlimit-burst", str(blob.u64(264))]
    words += ["--hashlimit-mode", named(mode & 15, _HASH_MODES)] if mode & 15 else []
    words += ["--hashlimit-name", blob.text(0, 255)]
    usual = (
        (276, "--hashlimit-htable-size", 0),
        (280, "--hashlimit-htable-max", 0),
        (284, "--hashlimit-htable-gcinterval", 1000),
        (288, "--hashlimit-htable-expire", seconds * 1000),
        (292, "--hashlimit-rate-interval", 0),
    )
    for at, name, default in usual:
        if blob.u32(at) != default:
            words += [name, str(blob.u32(at))]
    whole = 128 if blob.family == "ip6" else 32
    for at, name in ((296, "--hashlimit-srcmask"), (297, "--hashlimit-dstmask")):
        if blob.u8(at) != whole:
            words += [name, str(blob.u8(at))]
    return words


def _quota(blob: ByteReader, _: IpsetName) -> Words:
    return option(blob.u32(0) & 1, "--quota", str(blob.u64(8)))


def _nfacct(blob: ByteReader, _: IpsetName) -> Words:
    return ["--nfacct-name", f" {blob.text(0, 32)}"]  # two spaces, as nfacct_save has it


# --- sets -------------------------------------------------------------------------------------


def set_words(blob: ByteReader, at: int, ipset: IpsetName) -> Words:
    """The set's name and a direction for each dimension (struct xt_set_info)."""
    count, flags = blob.u8(at + 2), blob.u8(at + 3)
    sides = ("src" if flags & 2 << turn else "dst" for turn in range(min(count, 6)))
    return [ipset(blob.u16(at)), ",".join(sides)]


def _set(revision: int, blob: ByteReader, ipset: IpsetName) -> Words:
    words = option(blob.u8(3) & 1, "--match-set", *set_words(blob, 0, ipset))
    if revision in (2, 3):
        flags = blob.u32(24 if revision == 3 else 4) if len(blob.data) > 4 else 0
        if flags or any(blob.data[4:]):
            raise Unknown("set")
    if revision == 4:
        words += _set_options(blob)
    return words


def _set_options(blob: ByteReader) -> Words:
    flags = blob.u32(40)
    words = ["--return-nomatch"] if flags & 0x80 else []
    words += ["!", "--update-counters"] if flags & 8 else []
    words += ["!", "--update-subcounters"] if flags & 16 else []
    if flags & ~0x98:
        raise Unknown("set")
    for name, at in (("packets", 8), ("bytes", 24)):
        compare = blob.u8(at + 8)
        if compare > 4:
            raise Unknown("set")
        if compare:
            sign = ("eq", "eq", "lt", "gt")[compare - 1]
            words += option(compare == 2, f"--{name}-{sign}", str(blob.u64(at)))
    return words


MATCHES: dict[tuple[str, int], Reader] = {
    **PORT_MATCHES,
    ("addrtype", 0): _addrtype_0,
    ("addrtype", 1): _addrtype,
    ("cgroup", 0): partial(_number, "--cgroup"),
    ("cgroup", 2): _cgroup,
    ("comment", 0): lambda blob, _: ["--comment", saved(blob.text(0, len(blob.data)))],
    ("connbytes", 0): _connbytes,
    ("connlimit", 1): _connlimit,
    ("connmark", 1): _mark,
    **{("conntrack", revision): partial(_conntrack, revision) for revision in (1, 2, 3)},
    ("cpu", 0): partial(_number, "--cpu"),
    ("devgroup", 0): _devgroup,
    ("dscp", 0): _dscp,
    ("hashlimit", 3): _hashlimit,
    ("helper", 0): _helper,
    ("hl", 0): partial(_hops, "hl"),
    ("iprange", 1): _iprange,
    ("length", 0): _length,
    ("limit", 0): _limit,
    ("mac", 0): _mac,
    ("mark", 1): _mark,
    ("nfacct", 0): _nfacct,
    ("nfacct", 1): _nfacct,
    ("owner", 1): _owner,
    ("physdev", 0): _physdev,
    ("pkttype", 0): _pkttype,
    ("quota", 0): _quota,
    ("realm", 0): _realm,
    **{("recent", revision): partial(_recent, revision) for revision in (0, 1)},
    ("rpfilter", 0): _rpfilter,
    **{("set", revision): partial(_set, revision) for revision in (1, 2, 3, 4)},
    **{("socket", revision): partial(_socket, revision) for revision in (0, 1, 2, 3)},
    ("state", 0): _state,
    ("statistic", 0): _statistic,
    ("tos", 1): _tos,
    ("ttl", 0): partial(_hops, "ttl"),
}
