"""Random rules in the words of iptables, as ``iptables-restore`` takes them.

In: dice, the family (4 or 6), the names of ipsets. Out: one text. Chains jump only to later ones,
and each chain of the user's keeps to a set of hooks, so that what stands in it may stand there.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from differential.iptables_targets import Where, target_of
from differential.plan import CHAINS
from differential.words import Dice

# user chains of a table: the hooks that may come in
_SIDES: Mapping[str, Sequence[tuple[str, ...]]] = {
    "raw": (("PREROUTING", "OUTPUT"),),
    "mangle": (
        ("PREROUTING", "INPUT", "FORWARD", "OUTPUT", "POSTROUTING"),
        ("PREROUTING",),
        ("OUTPUT", "POSTROUTING"),
    ),
    "nat": (("PREROUTING", "OUTPUT"), ("INPUT", "POSTROUTING"), ("POSTROUTING",)),
    "filter": (("INPUT", "FORWARD", "OUTPUT"), ("INPUT", "FORWARD"), ("FORWARD",)),
    "security": (("INPUT", "FORWARD", "OUTPUT"),),
}
_COMMON_TABLES = ("filter", "nat", "nat", "mangle", "raw", "filter", "security")


def text(dice: Dice, family: int, sets: Mapping[str, str]) -> str:
    tables = sorted(set(dice.some(_COMMON_TABLES, 1, 4)))
    return "".join(_table(dice, table, family, sets) for table in tables)


def _table(dice: Dice, table: str, family: int, sets: Mapping[str, str]) -> str:
    lines = [f"*{table}"]
    for chain in CHAINS[table]:
        droppy = table in ("filter", "mangle") and dice.chance(0.06)
        lines.append(f":{chain} {'DROP' if droppy else 'ACCEPT'} [0:0]")
    users = [
        (f"{table[0].upper()}-{number}", dice.random.choice(_SIDES[table]))
        for number in range(dice.random.randint(0, 5))
    ]
    lines += [f":{name} - [0:0]" for name, _ in users]
    for chain in CHAINS[table]:
        where = Where(table, (chain,), family, True, sets)
        targets = [name for name, hooks in users if chain in hooks]
        lines += _rules(dice, chain, where, targets)
    for index, (name, hooks) in enumerate(users):
        where = Where(table, hooks, family, False, sets)
        later = [other for other, theirs in users[index + 1 :] if set(hooks) <= set(theirs)]
        lines += _rules(dice, name, where, later)
    return "\n".join([*lines, "COMMIT", ""])


def _rules(dice: Dice, chain: str, where: Where, targets: Sequence[str]) -> list[str]:
    count = dice.number((0, 1, 1, 2, 3, 4)) if where.base else dice.number((1, 2, 3, 5))
    return [f"-A {chain} {rule(dice, where, targets)}" for _ in range(count)]


def rule(dice: Dice, where: Where, targets: Sequence[str]) -> str:
    protocol, words = _protocol(dice, where)
    kind, target = target_of(dice, where, targets, protocol)
    if kind == "needs tcp" and protocol != "tcp":
        words, protocol = "-p tcp", "tcp"
    if kind == "needs ports" and protocol not in ("tcp", "udp"):
        words, protocol = "-p udp", "udp"
    matches = [words] if words else []
    drawn = dice.random.sample(_MATCHES, dice.number((0, 0, 1, 1, 2, 3)))
    for make in dict.fromkeys(drawn):
        made = make(dice, where, protocol)
        if made:
            matches.append(made)
    return " ".join([*matches, target]).strip()


# --- matches ----------------------------------------------------------------------------------

_Match = Callable[[Dice, Where, str], str]


def _no(dice: Dice) -> str:
    return "! " if dice.chance(0.2) else ""


def _protocol(dice: Dice, where: Where) -> tuple[str, str]:
    roll = dice.random.random()
    if roll < 0.45:
        return "", ""
    if roll < 0.5:
        return "", f"! -p {dice.one(('tcp', 'udp'))}"
    icmp = "icmp" if where.family == 4 else "ipv6-icmp"
    protocol = dice.one(("tcp", "tcp", "udp", "udp", icmp))
    words = f"-p {protocol}"
    if protocol in ("tcp", "udp"):
        words += _ports(dice, protocol)
    elif dice.chance(0.7):
        words += _icmp(dice, where)
    return protocol, words


def _ports(dice: Dice, protocol: str) -> str:
    words = ""
    if dice.chance(0.75):
        low, high = dice.ports()
        span = dice.one((str(dice.port()), str(dice.port()), f"{low}:{high}"))
        words += f" -m {protocol} {_no(dice)}--dport {span}"
    if dice.chance(0.15):
        words += f" -m {protocol} {_no(dice)}--sport 20000:{dice.sport()}"
    if protocol == "tcp" and dice.chance(0.15):
        words += f" -m tcp {_no(dice)}" + dice.one(("--syn", "--tcp-flags SYN,ACK SYN,ACK"))
    return words


def _icmp(dice: Dice, where: Where) -> str:
    if where.family == 4:
        kind = dice.one(("8", "0", "any", "3/3", "8/0"))
        return f" -m icmp {_no(dice) if kind != 'any' else ''}--icmp-type {kind}"
    return f" -m icmp6 {_no(dice)}--icmpv6-type {dice.one(('128', '129', '1/4'))}"


def _addresses(dice: Dice, where: Where, _: str) -> str:
    flag = dice.one(("-s", "-d", "-d"))
    what = dice.prefix(where.family) if dice.chance(0.5) else dice.address(where.family)
    return f"{_no(dice)}{flag} {what}"


def _device(dice: Dice, where: Where, _: str) -> str:
    flags = []
    if not (where.base and where.hooks[0] in ("OUTPUT", "POSTROUTING")):
        flags.append("-i")
    if not (where.base and where.hooks[0] in ("PREROUTING", "INPUT")):
        flags.append("-o")
    name = dice.one((dice.device(), dice.device(), "v+", "br+", "p+"))
    return f"{_no(dice)}{dice.one(flags)} {name}"


def _multiport(dice: Dice, where: Where, protocol: str) -> str:
    if protocol not in ("tcp", "udp"):
        return ""
    low, high = dice.ports()
    flag = dice.one(("--dports", "--dports", "--ports", "--sports"))
    ports = [str(dice.port()), f"{low}:{high + 1 if high < 65535 else high}"] + (
        [str(dice.sport())] if dice.chance(0.3) else []
    )
    return f"-m multiport {_no(dice)}{flag} {','.join(dice.some(ports, 1, 3))}"


def _masked(dice: Dice) -> str:
    value = dice.mark()
    if dice.chance(0.4):
        return hex(value)
    mask = dice.mask()
    return f"{value & mask:#x}/{mask:#x}"


def _mark(dice: Dice, where: Where, _: str) -> str:
    return f"-m {dice.one(('mark', 'mark', 'connmark'))} {_no(dice)}--mark {_masked(dice)}"


_STATES = ("NEW", "ESTABLISHED", "RELATED", "INVALID", "UNTRACKED", "DNAT", "SNAT")


def _conntrack(dice: Dice, where: Where, _: str) -> str:
    family = where.family
    if where.table == "raw":
        return ""
    choice = dice.one(("state", "state", "state", "dir", "status", "tuple", "tuple"))
    if choice == "state":
        states = dice.some(_STATES, 1, 3)
        return f"-m conntrack {_no(dice)}--ctstate {','.join(states)}"
    if choice == "dir":
        return f"-m conntrack --ctdir {dice.one(('ORIGINAL', 'REPLY'))}"
    if choice == "status":
        flags = ("NONE", "SEEN_REPLY", "CONFIRMED", "ASSURED", "EXPECTED")
        return f"-m conntrack {_no(dice)}--ctstatus {','.join(dice.some(flags, 1, 2))}"
    key = dice.one(("--ctorigsrc", "--ctorigdst", "--ctreplsrc", "--ctrepldst", "port", "proto"))
    if key == "port":
        flag = dice.one(("--ctorigdstport", "--ctreplsrcport"))
        return f"-m conntrack {_no(dice)}{flag} {dice.port()}"
    if key == "proto":
        return f"-m conntrack {_no(dice)}--ctproto {dice.one(('6', '17'))}"
    what = dice.prefix(family) if dice.chance(0.5) else dice.address(family)
    return f"-m conntrack {_no(dice)}{key} {what}"


_TYPES = ("LOCAL", "UNICAST", "BROADCAST", "UNREACHABLE", "BLACKHOLE", "MULTICAST", "ANYCAST")


def _addrtype(dice: Dice, where: Where, _: str) -> str:
    kinds = _TYPES if where.family == 4 else ("LOCAL", "UNICAST", "UNREACHABLE", "MULTICAST")
    side = dice.one(("--dst-type", "--dst-type", "--src-type"))
    kind = dice.one(("LOCAL", "LOCAL", dice.one(kinds), ",".join(dice.some(kinds, 2, 2))))
    words = f"-m addrtype {_no(dice)}{side} {kind}"
    if dice.chance(0.2) and where.only("PREROUTING", "INPUT", "FORWARD"):
        words += " --limit-iface-in"
    elif dice.chance(0.15) and where.only("OUTPUT", "POSTROUTING", "FORWARD"):
        words += " --limit-iface-out"
    return words


def _statistic(dice: Dice, where: Where, _: str) -> str:
    if dice.chance(0.3):
        every = dice.number((2, 3))
        return f"-m statistic --mode nth {_no(dice)}--every {every} --packet {every - 1}"
    return f"-m statistic --mode random {_no(dice)}--probability {dice.one(('0.5', '0.25', '1'))}"


def _set(dice: Dice, where: Where, protocol: str) -> str:
    fitting = [name for name in where.sets if name.startswith(f"s{where.family}")]
    if not fitting:
        return ""
    name = dice.one(fitting)
    count = where.sets[name].count(",") + 1
    directions = ",".join(dice.one(("src", "dst", "dst")) for _ in range(count))
    return f"-m set {_no(dice)}--match-set {name} {directions}"


def _iprange(dice: Dice, where: Where, _: str) -> str:
    low, high = dice.span(where.family)
    return f"-m iprange {_no(dice)}{dice.one(('--src-range', '--dst-range'))} {low}-{high}"


def _sizes(dice: Dice, where: Where, _: str) -> str:
    choice = dice.one(("length", "ttl", "pkttype", "dscp"))
    if choice == "length":
        return f"-m length {_no(dice)}--length {dice.one(('28:60', '48', '100:65535'))}"
    if choice == "pkttype":
        return f"-m pkttype {_no(dice)}--pkt-type {dice.one(('unicast', 'broadcast'))}"
    if choice == "dscp":
        return f"-m dscp {_no(dice)}--dscp {dice.one(('0x00', '0x08'))}"
    name, flag = ("ttl", "ttl") if where.family == 4 else ("hl", "hl")
    return f"-m {name} --{flag}-{dice.one(('eq', 'gt', 'lt'))} {dice.one(('63', '64', '2'))}"


def _physdev(dice: Dice, where: Where, _: str) -> str:
    words = [
        f"{_no(dice)}--physdev-in {dice.one(('pa', 'pb', 'p+'))}",
        f"{_no(dice)}--physdev-is-in",
    ]
    if where.base and where.hooks[0] in ("FORWARD", "POSTROUTING"):
        words += [
            f"{_no(dice)}--physdev-is-bridged",
            "--physdev-is-bridged --physdev-out " + dice.one(("pa", "pb", "p+")),
            f"{_no(dice)}--physdev-is-out",
        ]
    return f"-m physdev {dice.one(words)}"


def _others(dice: Dice, where: Where, _: str) -> str:
    kinds = (
        "comment",
        "comment",
        "comment",
        "mac",
        "owner",
        "recent",
        "limit",
        "limit",
        "rpfilter",
    )
    choice = dice.one(kinds)
    if choice == "comment":
        return f"-m comment --comment {dice.one(_COMMENTS)}"
    if choice == "mac" and where.only("PREROUTING", "INPUT", "FORWARD"):
        return f"-m mac {_no(dice)}--mac-source {dice.mac()}"
    if choice == "owner" and where.only("OUTPUT", "POSTROUTING"):
        return f"-m owner {_no(dice)}--uid-owner {dice.one(('0', '1000', '0-500'))}"
    if choice == "recent":
        return dice.one(("-m recent --set --name SEEN", "-m recent --rcheck --name OTHERS"))
    if choice == "limit":
        return "-m limit --limit 1000/s --limit-burst 5000"
    if choice == "rpfilter" and where.table in ("raw", "mangle") and where.only("PREROUTING"):
        return f"-m rpfilter{dice.one(('', ' --loose', ' --validmark'))}{_invert(dice)}"
    return ""


def _invert(dice: Dice) -> str:
    return " --invert" if dice.chance(0.5) else ""


_COMMENTS = (
    '"two words"',
    "plain",
    '"quote \\" and back \\\\ slash"',
    '"-j DROP"',
    '"shop/web:http has no endpoints"',
)
_MATCHES: Sequence[_Match] = (
    _addresses,
    _addresses,
    _addresses,
    _device,
    _device,
    _multiport,
    _mark,
    _mark,
    _conntrack,
    _conntrack,
    _addrtype,
    _statistic,
    _set,
    _iprange,
    _sizes,
    _physdev,
    _others,
)
