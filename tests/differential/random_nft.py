"""Random rules in nft's own words, one command a line.

In: dice and the families of the packets. Out: a text for ``nft -f``. A table's sets and maps come
before its chains, chains before rules; user chains are of a side (``dst``, ``src``, ``filter``), so
that what stands in them may stand there.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from differential.words import DEVICES, Dice

_SIDES = {
    "prerouting": "dst",
    "output": "dst",
    "input": "src",
    "postrouting": "src",
}
_NAT_PRIORITIES = {"dst": (-100, -101, -90, -100, -150), "src": (100, 101, 90, 100, 50)}
_FILTER_PRIORITIES = (-310, -300, -190, -150, -110, -10, 0, 0, 0, 10, 50, 150, 300)
_HOOKS = ("prerouting", "input", "forward", "output", "postrouting")


class Home:
    """A table while it is made.

    sets: name -> key types; maps: name -> (key types, data type); chains: name -> side
    """

    def __init__(self, family: str, name: str, dice: Dice) -> None:
        self.family, self.name, self.dice = family, name, dice
        self.sets: dict[str, tuple[str, ...]] = {}
        self.growing: list[tuple[str, int]] = []  # sets that rules add to, and nobody asks
        self.maps: dict[str, tuple[tuple[str, ...], str]] = {}
        self.chains: list[tuple[str, str]] = []

    def version(self) -> int:
        """The IP version of a rule."""
        if self.family == "inet":
            return self.dice.number((4, 6))
        return 6 if self.family == "ip6" else 4


class Spot:
    """A chain while its rules are made. later: chains of its own side that it may jump to."""

    def __init__(self, home: Home, side: str, hook: str, later: Sequence[str]) -> None:
        self.home, self.side, self.hook, self.later = home, side, hook, later


def text(dice: Dice, versions: Sequence[int]) -> str:
    lines: list[str] = []
    for number in range(dice.number((1, 1, 2, 3))):
        families = [
            *(("ip",) if 4 in versions else ()),
            *(("ip6",) if 6 in versions else ()),
            "inet",
        ]
        lines += _table(Home(dice.one(families), f"t{number}", dice))
    return "\n".join([*lines, ""])


def _table(home: Home) -> list[str]:
    dice, at = home.dice, f"{home.family} {home.name}"
    lines = [f"add table {at}"]
    for number in range(dice.random.randint(0, 5)):
        home.chains.append((f"u{number}", dice.one(("dst", "src", "filter", "filter", "edge"))))
    lines += [f"add chain {at} {name}" for name, _ in home.chains]
    for number in range(dice.random.randint(0, 4)):
        lines += _set(home, f"s{number}")
    for number in range(dice.random.randint(0, 3)):
        lines += _map(home, f"m{number}")
    if dice.chance(0.3):
        version = home.version()
        home.growing.append(("g0", version))
        lines.append(f"add set {at} g0 {{ type ipv{version}_addr; flags dynamic; size 1000; }}")
    rules: list[str] = []
    for number in range(dice.random.randint(1, 6)):
        hook, kind = dice.one(_HOOKS), dice.one(("filter", "filter", "nat", "nat", "route"))
        side = _SIDES.get(hook, "filter")
        if kind == "nat" and hook == "forward":
            kind = "filter"
        if kind == "route":
            hook, side = "output", "filter"
        if kind == "nat":
            priority = dice.number(_NAT_PRIORITIES[side])
        else:
            side = "edge" if hook in ("prerouting", "postrouting") else "filter"
            priority = dice.number(_FILTER_PRIORITIES)
        policy = "drop" if dice.chance(0.05) and kind != "nat" else "accept"
        name = f"b{number}"
        lines.append(
            f"add chain {at} {name} {{ type {kind} hook {hook} priority {priority}; "
            f"policy {policy}; }}"
        )
        later = [chain for chain, theirs in home.chains if theirs == side]
        rules += _rules(Spot(home, side, hook, later), name)
    for index, (name, side) in enumerate(home.chains):
        later = [chain for chain, theirs in home.chains[index + 1 :] if theirs == side]
        rules += _rules(Spot(home, side, "", later), name)
    return lines + rules


def _rules(spot: Spot, chain: str) -> list[str]:
    dice, at = spot.home.dice, f"{spot.home.family} {spot.home.name}"
    count = dice.number((1, 2, 3, 4))
    return [f"add rule {at} {chain} {rule(spot)}" for _ in range(count)]


def rule(spot: Spot) -> str:
    dice = spot.home.dice
    version = spot.home.version()
    protocol = dice.one(("", "", "tcp", "udp", "icmp"))
    drawn = dice.random.sample(_MATCHES, dice.number((0, 1, 1, 2, 2, 3)))
    words = [made for make in dict.fromkeys(drawn) if (made := make(spot, version, protocol))]
    statement = _statement(spot, version, protocol)
    if statement.startswith(("dnat", "snat")) and spot.home.family == "inet":
        words.insert(0, f"meta nfproto ipv{version}")
    if any(raw in f"{words} {statement}" for raw in (" th ", "'th ", "@th")) and dice.chance(0.9):
        words.insert(0, "meta l4proto { tcp, udp }")
    counts = dice.chance(0.2) or not words + [statement][: bool(statement)]
    return " ".join([*words, *(["counter"] if counts else []), statement]).strip()


# --- sets and maps ----------------------------------------------------------------------------

_KEYS = (
    ("addr",),
    ("addr",),
    ("inet_service",),
    ("ifname",),
    ("mark",),
    ("inet_proto",),
    ("addr", "inet_proto", "inet_service"),
    ("addr", "inet_service"),
    ("addr", "addr"),
    ("inet_proto", "inet_service"),
)


def _version_of(types: tuple[str, ...]) -> int:
    return 6 if "ipv6_addr" in types else 4


def _typed(types: tuple[str, ...], version: int) -> tuple[str, ...]:
    return tuple(f"ipv{version}_addr" if one == "addr" else one for one in types)


def _set(home: Home, name: str) -> list[str]:
    dice, at = home.dice, f"{home.family} {home.name}"
    types = _typed(dice.random.choice(_KEYS), home.version())
    wide = dice.chance(0.4) and "ifname" not in types
    flags = (["interval"] if wide else []) + (["timeout"] if dice.chance(0.2) else [])
    options = f" flags {','.join(flags)};" if flags else ""
    options += " auto-merge;" if wide else ""
    home.sets[name] = types
    elements = _distinct(
        [_key(dice, types, wide and dice.chance(0.6)) for _ in range(dice.random.randint(0, 6))]
    )
    lines = [f"add set {at} {name} {{ type {' . '.join(types)};{options} }}"]
    for element in elements:
        timed = " timeout 1h" if "timeout" in flags and dice.chance(0.6) else ""
        lines.append(f"add element {at} {name} {{ {element}{timed} }}")
    return lines


def _map(home: Home, name: str) -> list[str]:
    dice, at = home.dice, f"{home.family} {home.name}"
    version = home.version()
    types = _typed(dice.random.choice(_KEYS), version)
    data = dice.one(("verdict", "verdict", f"ipv{version}_addr", "mark", "inet_service", "both"))
    if data == "both":
        data = f"ipv{version}_addr . inet_service"
    home.maps[name] = (types, data)
    lines = [f"add map {at} {name} {{ type {' . '.join(types)} : {data}; }}"]
    for element in _distinct([_key(dice, types, False) for _ in range(dice.random.randint(0, 6))]):
        lines.append(f"add element {at} {name} {{ {element} : {_datum(home, data, version)} }}")
    return lines


def _datum(home: Home, data: str, version: int) -> str:
    dice = home.dice
    if data == "verdict":
        chains = [name for name, side in home.chains if side == "filter"]
        ways = ["accept", "drop", "return", "continue"]
        return dice.one([*ways, *(f"{dice.one(('jump', 'goto'))} {one}" for one in chains)])
    if data == "mark":
        return hex(dice.mark())
    if data == "inet_service":
        return str(dice.port())
    if " . " in data:
        return f"{dice.backend(version)} . {dice.port()}"
    return dice.backend(version)


def _distinct(keys: list[str]) -> list[str]:
    return list(dict.fromkeys(keys))


def _key(dice: Dice, types: tuple[str, ...], wide: bool) -> str:
    return " . ".join(_part(dice, one, wide) for one in types)


def _part(dice: Dice, kind: str, wide: bool) -> str:
    if kind.endswith("_addr"):
        version = 6 if kind == "ipv6_addr" else 4
        return dice.prefix(version) if wide else dice.address(version)
    if kind == "inet_service":
        low, high = dice.ports()
        return f"{low}-{high}" if wide and low < high else str(dice.port())
    if kind == "ifname":
        return f'"{dice.one(DEVICES)}"'
    if kind == "mark":
        return hex(dice.mark())
    return dice.one(("tcp", "udp"))


# --- matches ----------------------------------------------------------------------------------


def _field(dice: Dice, kind: str, version: int) -> str:
    """An expression of a set's type."""
    ip = "ip6" if version == 6 else "ip"
    words = {
        f"ipv{version}_addr": (f"{ip} saddr", f"{ip} daddr", f"{ip} daddr"),
        "inet_service": ("th dport", "th dport", "th sport", "tcp dport", "udp dport"),
        "ifname": ("iifname", "oifname"),
        "mark": ("meta mark", "ct mark"),
        "inet_proto": ("meta l4proto",),
    }
    return dice.one(words[kind])


def _fields(dice: Dice, types: tuple[str, ...], version: int) -> str:
    """For a concatenation the protocol comes first, or nft asks for one."""
    return " . ".join(_field(dice, one, version) for one in types)


def _op(dice: Dice) -> str:
    return "!= " if dice.chance(0.2) else ""


def _address(spot: Spot, version: int, protocol: str) -> str:
    dice = spot.home.dice
    ip = "ip6" if version == 6 else "ip"
    low, high = dice.span(version)
    some = ", ".join(_distinct([dice.address(version) for _ in range(3)]))
    what = dice.one(
        (
            dice.address(version),
            dice.address(version),
            dice.prefix(version),
            f"{low}-{high}" if low != high else low,
            f"{{ {some} }}",
            f"{{ {dice.prefix(version)} }}",
        )
    )
    if dice.chance(0.1):
        mask = "ffff::" if version == 6 else "255.255.0.0"
        base = "fd02::" if version == 6 else "10.2.0.0"
        return f"{ip} daddr & {mask} {dice.one(('==', '!='))} {base}"
    return f"{ip} {dice.one(('saddr', 'daddr', 'daddr'))} {_op(dice)}{what}"


def _transport(spot: Spot, version: int, protocol: str) -> str:
    dice = spot.home.dice
    if protocol == "icmp":
        name, kinds = (
            ("icmpv6", ("echo-request", "echo-reply", "128"))
            if version == 6
            else ("icmp", ("echo-request", "echo-reply", "{ 0, 8 }", "8"))
        )
        return f"{name} type {_op(dice)}{dice.one(kinds)}"
    low, high = dice.ports()
    some = ", ".join(_distinct([str(dice.port()), str(dice.port())]))
    spans = (str(dice.port()), str(dice.port()), f"{low}-{high}", f"{{ {some} }}", f"> {low}")
    what = dice.one(spans)
    op = _op(dice) if not what.startswith(">") else ""
    if protocol == "tcp" and dice.chance(0.2):
        return "tcp flags " + dice.one(
            ("syn", "& (syn | ack) == syn", "& (fin | syn | rst | ack) == (syn | ack)", "! rst",
             "!= syn", "{ syn, syn | ack }", "syn,ack / syn,ack", "& syn != 0")
        )  # fmt: skip
    if protocol:
        return f"{protocol} {dice.one(('dport', 'dport', 'sport'))} {op}{what}"
    return dice.one(
        (f"meta l4proto {_op(dice)}{dice.one(('tcp', 'udp', '{ tcp, udp }'))}",
         f"meta l4proto {{ tcp, udp }} th dport {op}{what}",
         f"@th,16,16 {dice.port()}")
    )  # fmt: skip


def _device(spot: Spot, version: int, protocol: str) -> str:
    dice = spot.home.dice
    key = dice.one(("iifname", "oifname"))
    names = f'{{ "{dice.device()}", "v*" }}' if dice.chance(0.3) else ""
    what = names or dice.one((f'"{dice.device()}"', f'"{dice.device()}"', '"v*"', '"p*"'))
    if dice.chance(0.2):
        return f'{dice.one(("iif", "oif"))} {_op(dice)}"{dice.one(("vc", "vs", "lo", "br0"))}"'
    return f"{key} {_op(dice)}{what}"


def _mark(spot: Spot, version: int, protocol: str) -> str:
    dice = spot.home.dice
    key = dice.one(("meta mark", "meta mark", "ct mark"))
    value, mask = dice.mark(), dice.mask()
    return dice.one(
        (
            f"{key} {_op(dice)}{value:#x}",
            f"{key} & {mask:#x} {dice.one(('==', '!='))} {value & mask:#x}",
            f"{key} and {mask:#x} {dice.one(('==', '!='))} {value & mask:#x}",
            f"{key} {{ {value:#x}, 0x0 }}",
            f"{key} {dice.one(('<', '>', '<=', '>='))} {value:#x}",
            f"{key} 0x1-{max(value, 2):#x}",
        )
    )


_STATES = ("new", "established", "related", "invalid", "untracked")


def _conntrack(spot: Spot, version: int, protocol: str) -> str:
    dice = spot.home.dice
    ip = "ip6" if version == 6 else "ip"
    states = dice.some(_STATES, 1, 3)
    return dice.one(
        (
            f"ct state {','.join(states)}",
            f"ct state {','.join(states)}",
            f"ct state != {states[0]}",
            f"ct state == {states[0]}",
            f"ct state {{ {', '.join(states)} }}",
            f"ct state & ({' | '.join(states)}) != 0" if len(states) > 1 else "ct state new",
            f"ct direction {dice.one(('original', 'reply'))}",
            f"ct status {dice.one(('dnat', 'snat', 'confirmed', 'seen-reply', 'dnat,snat'))}",
            f"ct status & dnat == {dice.one(('dnat', '0'))}",
            f"ct {dice.one(('original', 'reply'))} {ip} {dice.one(('saddr', 'daddr'))} "
            f"{_op(dice)}{dice.address(version)}",
            f"meta l4proto {dice.one(('tcp', 'udp'))} "
            f"ct {dice.one(('original', 'reply'))} {dice.one(('proto-src', 'proto-dst'))} "
            f"{_op(dice)}{dice.port()}",
        )
    )


def _fib(spot: Spot, version: int, protocol: str) -> str:
    dice = spot.home.dice
    words = ["fib daddr type local", "fib daddr type != local", "fib daddr type { unicast, local }",
             "fib saddr type local", "fib saddr type unicast"]  # fmt: skip
    if spot.hook in ("prerouting",):
        words += [
            "fib saddr . iif oif missing", "fib saddr . iif oif exists",
            "fib saddr oif missing", "fib saddr . mark . iif oif != 0",
            "fib daddr . iif type local",
            'fib daddr oifname "vs"', "fib daddr oif exists",
        ]  # fmt: skip
    if spot.hook in ("prerouting", "input", "forward"):
        words += ["fib daddr . iif type local", 'fib daddr . iif oifname "vc"']
    if spot.hook in ("output", "postrouting", "forward"):
        words += ["fib daddr . oif type local"]
    return dice.one(words)


def _member(spot: Spot, version: int, protocol: str) -> str:
    dice, home = spot.home.dice, spot.home
    fitting = [
        (name, types) for name, types in home.sets.items() if f"ipv{10 - version}_addr" not in types
    ]
    if not fitting:
        return ""
    name, types = dice.random.choice(fitting)
    return f"{_fields(dice, types, version)} {_op(dice)}@{name}"


def _sizes(spot: Spot, version: int, protocol: str) -> str:
    dice = spot.home.dice
    hops = "ip6 hoplimit" if version == 6 else "ip ttl"
    return dice.one(
        (
            f"meta length {dice.one(('> 60', '< 100', '28-60', '48'))}",
            f"{hops} {dice.one(('64', '< 64', '>= 63', '!= 64', '{ 63, 64 }'))}",
            "meta pkttype host",
            "meta pkttype != host",
            f"meta nfproto ipv{dice.number((4, 6))}" if spot.home.family == "inet" else "counter",
            f"meta protocol {dice.one(('ip', 'ip6'))}" if spot.home.family == "inet" else "counter",
            f"{'ip6' if version == 6 else 'ip'} dscp {dice.one(('cs0', 'cs1', '!= cs0'))}",
            "limit rate 1000/second burst 5000 packets",
            "meta iifkind veth" if spot.hook == "prerouting" else "counter",
            f"ip protocol {dice.one(('tcp', 'udp', 'icmp'))}" if version == 4 else
            f"ip6 nexthdr {dice.one(('tcp', 'udp', 'icmpv6'))}",
        )
    )  # fmt: skip


def _chance(spot: Spot, version: int, protocol: str) -> str:
    dice = spot.home.dice
    mod = dice.number((2, 3, 4))
    ip = "ip6" if version == 6 else "ip"
    return dice.one(
        (
            f"numgen random mod {mod} {dice.one(('0', '< 1', '!= 0', '{ 0, 1 }'))}",
            f"numgen random mod {mod} {dice.one(('0', '1'))}",
            f"numgen inc mod {mod} {dice.one(('0', '1', '!= 0'))}",
            f"jhash {ip} saddr mod {mod} {dice.one(('0', '1'))}",
            f"jhash {ip} saddr . {ip} daddr mod {mod} seed 0x1 {dice.one(('0', '1'))}",
        )
    )


_Match = Callable[[Spot, int, str], str]
_MATCHES: Sequence[_Match] = (
    _address,
    _address,
    _address,
    _transport,
    _transport,
    _transport,
    _device,
    _mark,
    _mark,
    _conntrack,
    _conntrack,
    _fib,
    _member,
    _member,
    _sizes,
    _chance,
)

# --- statements -------------------------------------------------------------------------------


def _statement(spot: Spot, version: int, protocol: str) -> str:
    dice = spot.home.dice
    if spot.later and dice.chance(0.35):
        return _jumping(spot, version)
    if spot.side in ("dst", "src") and dice.chance(0.6):
        return _nat(spot, version, protocol)
    if dice.chance(0.35):
        return _marking(spot, version)
    if spot.side == "filter" and dice.chance(0.15):
        return _reject(spot, version, protocol)
    if dice.chance(0.08) and spot.side in ("filter", "edge"):
        return dice.one(_side_effects(spot, version))
    updated = _updating(spot, version)
    if updated and dice.chance(0.1):
        return updated
    return dice.one(("accept", "accept", "return", "drop", "", "continue"))


def _side_effects(spot: Spot, version: int) -> list[str]:
    words = ["notrack", 'log prefix "x"', "meta priority set 1:1", "counter"]
    if spot.hook in ("prerouting", "output"):
        words += ["ct zone set 1"]
    if version == 4:
        words += ["ip ttl set 40", "ip dscp set cs1"]
    # an IPv6 header that is changed before a socket takes the packet spoils its checksum
    elif spot.hook in ("forward", "output", "postrouting"):
        words += ["ip6 hoplimit set 40", "ip6 dscp set cs1"]
    return words


def _jumping(spot: Spot, version: int) -> str:
    dice, home = spot.home.dice, spot.home
    roll = dice.random.random()
    fitting = [
        (name, types)
        for name, (types, data) in home.maps.items()
        if data == "verdict" and f"ipv{10 - version}_addr" not in types
    ]
    if roll < 0.25 and fitting and spot.side == "filter":
        name, types = dice.random.choice(fitting)
        return f"{_fields(dice, types, version)} vmap @{name}"
    ways = [f"{dice.one(('jump', 'goto'))} {one}" for one in spot.later]
    ways += ["accept", "return", "continue"]
    if roll < 0.4:
        mod = dice.number((2, 3))
        mode = dice.one(("random", "random", "inc"))
        pairs = ", ".join(
            f"{n} : {dice.one(ways)}" for n in range(mod) if n == 0 or dice.chance(0.9)
        )
        return f"numgen {mode} mod {mod} vmap {{ {pairs} }}"
    if roll < 0.55:
        types = _typed(dice.random.choice(_KEYS), version)
        keys = _distinct([_key(dice, types, False) for _ in range(3)])
        pairs = ", ".join(f"{one} : {dice.one(ways)}" for one in keys)
        return f"{_fields(dice, types, version)} vmap {{ {pairs} }}"
    return f"{dice.one(('jump', 'jump', 'goto'))} {dice.one(spot.later)}"


def _nat(spot: Spot, version: int, protocol: str) -> str:
    dice, home = spot.home.dice, spot.home
    ported = protocol in ("tcp", "udp")
    guard = f"meta l4proto {protocol} " if ported else ""
    flags = dice.one(("", "", "", " random", " fully-random", " persistent"))
    low, high = dice.ports()
    span = dice.one((str(dice.port()), str(dice.port()), f"{low}-{high}" if low < high else "80"))
    if spot.side == "dst":
        ip = "ip6" if version == 6 else "ip"
        family = f" {ip}" if home.family == "inet" else ""
        roll = dice.random.random()
        if roll < 0.2:
            return f"{guard}redirect{f' to :{span}' if ported else ''}"
        if roll < 0.35:
            mod = dice.number((2, 3))
            pairs = ", ".join(f"{n} : {dice.backend(version)}" for n in range(mod))
            mode = dice.one(("random", "inc"))
            return f"dnat{family} to numgen {mode} mod {mod} map {{ {pairs} }}"
        if roll < 0.5 and ported:
            mod = dice.number((2, 3))
            pairs = ", ".join(f"{n} : {dice.backend(version)} . {dice.port()}" for n in range(mod))
            return (f"{guard}dnat {ip} addr . port to numgen random mod {mod} "
                    f"map {{ {pairs} }}")  # fmt: skip
        fitting = [
            (name, types, data)
            for name, (types, data) in home.maps.items()
            if data.startswith(f"ipv{version}_addr") and f"ipv{10 - version}_addr" not in types
        ]
        if roll < 0.7 and fitting:
            name, types, data = dice.random.choice(fitting)
            fields = _fields(dice, types, version)
            if " . " in data:
                return (
                    f"{guard or 'meta l4proto tcp '}dnat {ip} addr . port to {fields} map @{name}"
                )
            return f"dnat{family} to {fields} map @{name}"
        first, last = dice.span(version)
        address = dice.backend(version)
        if dice.chance(0.15) and first != last:
            address = f"{first}-{last}"
        if ported and dice.chance(0.1):
            return f"{guard}dnat to :{span}"
        if ported and dice.chance(0.6):
            bracketed = f"[{address}]" if version == 6 else address
            if "-" in address and version == 6:
                bracketed = f"[{first}]-[{last}]"
            return f"{guard}dnat{family} to {bracketed}:{span}{flags}"
        return f"dnat{family} to {address}{flags}"
    if spot.hook == "postrouting" and dice.chance(0.6):
        return f"{guard}masquerade{f' to :{span}' if ported and dice.chance(0.3) else ''}{flags}"
    family = f" {'ip6' if version == 6 else 'ip'}" if home.family == "inet" else ""
    source = dice.source(version)
    if ported and dice.chance(0.3):
        source = f"[{source}]:{span}" if version == 6 else f"{source}:{span}"
        return f"{guard}snat{family} to {source}{flags}"
    return f"snat{family} to {source}{flags}"


def _marking(spot: Spot, version: int) -> str:
    dice, home = spot.home.dice, spot.home
    value, mask = dice.mark(), dice.mask()
    fitting = [
        (name, types)
        for name, (types, data) in home.maps.items()
        if data == "mark" and f"ipv{10 - version}_addr" not in types
    ]
    if fitting and dice.chance(0.4):
        name, types = dice.random.choice(fitting)
        return f"meta mark set {_fields(dice, types, version)} map @{name}"
    return dice.one(
        (
            f"meta mark set {value:#x}",
            f"meta mark set meta mark or {value:#x}",
            f"meta mark set meta mark and {mask:#x}",
            f"meta mark set meta mark & {mask:#x} | {value:#x}",
            f"meta mark set meta mark xor {value:#x}",
            "meta mark set ct mark",
            f"meta mark set ct mark and {mask:#x}",
            f"ct mark set {value:#x}",
            "ct mark set meta mark",
            f"ct mark set ct mark or {value:#x}",
            "ct mark set numgen random mod 2",
            "meta mark set numgen inc mod 2 offset 16",
            f"meta mark set numgen random mod 2 map {{ 0 : {value:#x}, 1 : {mask:#x} }}",
        )
    )


def _reject(spot: Spot, version: int, protocol: str) -> str:
    dice, family = spot.home.dice, spot.home.family
    words = ["reject"]
    if protocol == "tcp":
        words.append("meta l4proto tcp reject with tcp reset")
    four = ("net-unreachable", "host-unreachable", "prot-unreachable", "port-unreachable",
            "net-prohibited", "host-prohibited", "admin-prohibited")  # fmt: skip
    six = ("no-route", "admin-prohibited", "addr-unreachable", "port-unreachable", "policy-fail",
           "reject-route")  # fmt: skip
    both = ("no-route", "port-unreachable", "host-unreachable", "admin-prohibited")
    if family == "inet":
        words.append(f"reject with icmpx type {dice.one(both)}")
    elif family == "ip":
        words.append(f"reject with icmp type {dice.one(four)}")
    else:
        words.append(f"reject with icmpv6 type {dice.one(six)}")
    return dice.one(words)


def _updating(spot: Spot, version: int) -> str:
    dice = spot.home.dice
    fitting = [name for name, theirs in spot.home.growing if theirs == version]
    if not fitting:
        return ""
    ip = "ip6" if version == 6 else "ip"
    return f"{dice.one(('add', 'update'))} @{dice.one(fitting)} {{ {ip} saddr }}"
