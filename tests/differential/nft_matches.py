"""Random matches in nft's words: each maker gives one, or nothing where none fits."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from differential.nft_parts import Spot, distinct
from differential.words import Dice


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


def fields(dice: Dice, types: tuple[str, ...], version: int) -> str:
    """For a concatenation the protocol comes first, or nft asks for one."""
    return " . ".join(_field(dice, one, version) for one in types)


def _op(dice: Dice) -> str:
    return "!= " if dice.chance(0.2) else ""


def _address(spot: Spot, version: int, protocol: str) -> str:
    dice = spot.home.dice
    ip = "ip6" if version == 6 else "ip"
    low, high = dice.span(version)
    some = ", ".join(distinct([dice.address(version) for _ in range(3)]))
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
    some = ", ".join(distinct([str(dice.port()), str(dice.port())]))
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
    return f"{fields(dice, types, version)} {_op(dice)}@{name}"


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
MATCHES: Sequence[_Match] = (
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
