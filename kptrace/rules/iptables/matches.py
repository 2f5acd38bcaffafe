"""Read the options of iptables' matches: MATCHES has a reader for each module.

Sources: the ``_save`` functions of iptables' extensions for the options, the kernel's ``xt_*.c``
for their meaning. A reader raises Unknown (or ValueError) for an option that it does not know; the
caller then keeps the whole module as opaque text.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from kptrace.model.addresses import address as parse_address
from kptrace.rules.iptables.ipset_match import ipset_key
from kptrace.rules.iptables.options import (
    Context,
    Option,
    Unknown,
    address,
    choice,
    field,
    flags,
    masked,
    number,
    numbers,
    protocol,
    test,
)
from kptrace.rules.model.expressions import (
    AnonymousSet,
    AnyOf,
    BitwiseExpr,
    Comparison,
    Const,
    Count,
    Expr,
    Fib,
    InterfaceWildcard,
    Limit,
    NthMatch,
    Part,
    RandomMatch,
    Range,
    Recent,
    SetRef,
    Socket,
)

Reader = Callable[[Sequence[Option], Context], Iterable[Part]]


def _option_by_option(readers: dict[str, Callable[[Option, Context], Part]]) -> Reader:
    """A reader of a module each of whose options is a test of its own."""

    def read(options: Sequence[Option], context: Context) -> Iterable[Part]:
        for option in options:
            if option.name not in readers:
                raise Unknown(option.text)
            yield readers[option.name](option, context)

    return read


def _ports(name: str) -> dict[str, Callable[[Option, Context], Part]]:
    return {
        "--sport": lambda option, _: test(f"{name} sport", option, numbers(option.arg)),
        "--dport": lambda option, _: test(f"{name} dport", option, numbers(option.arg)),
    }


TCP_FLAGS = {"FIN": 1, "SYN": 2, "RST": 4, "PSH": 8, "ACK": 16, "URG": 32, "ECE": 64, "CWR": 128}
TCP_FLAGS |= {"NONE": 0, "ALL": 63}


def _syn(option: Option, context: Context) -> Part:
    """``--syn`` is short for the flags of a packet that opens a connection."""
    return _tcp_flags(
        Option(name="--tcp-flags", args=("FIN,SYN,RST,ACK", "SYN"), negated=option.negated),
        context,
    )


def _tcp_flags(option: Option, _: Context) -> Part:
    mask, expected = (sum(TCP_FLAGS[name] for name in arg.split(",")) for arg in option.args)
    left = BitwiseExpr(op="and", left=field("tcp flags"), right=Const(value=mask))
    return Comparison(left=left, op="!=" if option.negated else "==", right=Const(value=expected))


def _icmp(name: str, any_type: int) -> Reader:
    """``--icmp-type TYPE[/CODE]``; in IPv4 type 255 stands for any."""

    def read(options: Sequence[Option], context: Context) -> Iterable[Part]:
        for option in options:
            kind, slash, code = option.arg.partition("/")
            if kind == "any" or int(kind) == any_type:
                continue
            tests = [test(f"{name} type", option, Const(value=int(kind)))]
            if slash:
                tests.append(test(f"{name} code", option, Const(value=int(code))))
            if option.negated and slash:
                yield AnyOf(tests=tuple(tests))
            else:
                yield from tests

    return read


def _multiport(options: Sequence[Option], context: Context) -> Iterable[Part]:
    for option in options:
        ports = choice([numbers(text) for text in option.arg.split(",")])
        if option.name in ("--sports", "--dports"):
            yield test(f"th {option.name[2:-1]}", option, ports)
        elif option.name == "--ports":
            sides = (field("th sport"), field("th dport"))
            either = tuple(Comparison(left=side, op="==", right=ports) for side in sides)
            yield AnyOf(tests=either, negated=option.negated)
        else:
            raise Unknown(option.text)


def _conntrack_field(key: str) -> Callable[[Option, Context], Part]:
    return lambda option, _: test(key, option, address(option.arg))


def _conntrack_port(key: str) -> Callable[[Option, Context], Part]:
    return lambda option, _: test(key, option, numbers(option.arg))


def _ct_status(option: Option, _: Context) -> Part:
    """NONE means no bit, so alone it never matches."""
    if option.arg == "NONE":
        op = "not in" if option.negated else "in"
        return Comparison(left=field("ct status"), op=op, right=AnonymousSet(items=()))  # type: ignore[arg-type]
    return flags("ct status", option, option.arg.replace("SEEN_REPLY", "SEEN-REPLY"))


_CONNTRACK: dict[str, Callable[[Option, Context], Part]] = {
    "--ctstate": lambda option, _: flags("ct state", option, option.arg),
    "--ctstatus": _ct_status,
    "--ctdir": lambda option, _: test("ct direction", option, Const(value=option.arg.lower())),
    "--ctproto": lambda option, _: test(
        "ct original protocol", option, Const(value=protocol(option.arg))
    ),
    "--ctexpire": lambda option, _: test("ct expiration", option, numbers(option.arg, 0, 2**32)),
    "--ctorigsrc": _conntrack_field("ct original saddr"),
    "--ctorigdst": _conntrack_field("ct original daddr"),
    "--ctreplsrc": _conntrack_field("ct reply saddr"),
    "--ctrepldst": _conntrack_field("ct reply daddr"),
    "--ctorigsrcport": _conntrack_port("ct original proto-src"),
    "--ctorigdstport": _conntrack_port("ct original proto-dst"),
    "--ctreplsrcport": _conntrack_port("ct reply proto-src"),
    "--ctrepldstport": _conntrack_port("ct reply proto-dst"),
}


def _addrtype(options: Sequence[Option], context: Context) -> Iterable[Part]:
    names = {option.name for option in options}
    limits = {"--limit-iface-in": "iif", "--limit-iface-out": "oif"}
    interface = tuple(flag for name, flag in limits.items() if name in names)
    for option in options:
        if option.name in limits:
            continue
        side = {"--src-type": "saddr", "--dst-type": "daddr"}.get(option.name)
        if side is None:
            raise Unknown(option.text)
        if context.family == "ip6":
            yield from _addrtype6(option, (side, *interface))
            continue
        kinds: list[Expr] = [Const(value=kind.lower()) for kind in option.arg.split(",")]
        op = "!=" if option.negated else "=="
        fib = Fib(result="type", flags=(side, *interface))
        yield Comparison(left=fib, op=op, right=choice(kinds))  # type: ignore[arg-type]


_BY_ADDRESS = frozenset({"unspec", "unicast", "multicast"})


def _addrtype6(option: Option, flags: tuple[str, ...]) -> Iterable[Part]:
    """match_type6(): all types that follow from the address alone must match, of the others one."""
    kinds = option.arg.lower().split(",")
    alone: list[tuple[str, ...]] = [(kind,) for kind in kinds if kind in _BY_ADDRESS]
    groups = [*alone, tuple(kind for kind in kinds if kind not in _BY_ADDRESS)]
    op = "not in" if option.negated else "in"
    tests = tuple(
        Comparison(
            left=Fib(result="types", flags=flags),
            op=op,  # type: ignore[arg-type]
            right=AnonymousSet(items=tuple(Const(value=kind) for kind in group)),
        )
        for group in groups
        if group
    )
    if option.negated and len(tests) > 1:
        return [AnyOf(tests=tests)]
    return tests


def _set(options: Sequence[Option], context: Context) -> Iterable[Part]:
    if len(options) != 1 or options[0].name not in ("--match-set", "--set"):
        raise Unknown("options that count or look for nomatch")
    name, directions = options[0].args
    left = ipset_key(context, name, directions.split(","))
    op = "!=" if options[0].negated else "=="
    yield Comparison(left=left, op=op, right=SetRef(name=name, ipset=True))  # type: ignore[arg-type]


def _statistic(options: Sequence[Option], context: Context) -> Iterable[Part]:
    options_by_name = {option.name: option for option in options}
    mode = options_by_name["--mode"].arg if "--mode" in options_by_name else ""
    if mode == "random" and set(options_by_name) == {"--mode", "--probability"}:
        option = options_by_name["--probability"]
        probability = float(option.arg)
        if not 0 <= probability <= 1:
            raise Unknown(option.text)
        yield RandomMatch(probability=1 - probability if option.negated else probability)
    elif mode == "nth" and set(options_by_name) <= {"--mode", "--every", "--packet"}:
        packet = options_by_name.get("--packet")
        yield NthMatch(
            every=int(options_by_name["--every"].arg),
            packet=int(packet.arg) if packet else 0,
            negated=options_by_name["--every"].negated,
        )
    else:
        raise Unknown(mode)


def _recent(options: Sequence[Option], context: Context) -> Iterable[Part]:
    options_by_name = {option.name: option for option in options}
    actions = [
        name for name in ("--set", "--rcheck", "--update", "--remove") if name in options_by_name
    ]
    if len(actions) != 1 or not set(options_by_name) <= _RECENT:
        raise Unknown("recent")
    yield Recent(
        action=actions[0][2:],  # type: ignore[arg-type]
        list=options_by_name["--name"].arg if "--name" in options_by_name else "DEFAULT",
        seconds=int(options_by_name["--seconds"].arg) if "--seconds" in options_by_name else 0,
        hits=int(options_by_name["--hitcount"].arg) if "--hitcount" in options_by_name else 0,
        reap="--reap" in options_by_name,
        by="daddr" if "--rdest" in options_by_name else "saddr",
        mask=options_by_name["--mask"].arg if "--mask" in options_by_name else "",
        negated=options_by_name[actions[0]].negated,
    )


_RECENT = {"--set", "--rcheck", "--update", "--remove", "--name", "--seconds", "--hitcount"}
_RECENT |= {"--reap", "--rsource", "--rdest", "--mask", "--rttl"}


def _limit(options: Sequence[Option], context: Context) -> Iterable[Part]:
    options_by_name = {option.name: option for option in options}
    burst = options_by_name.get("--limit-burst")
    yield Limit(rate=options_by_name["--limit"].arg, burst=int(burst.arg) if burst else 5)


def _hashlimit(options: Sequence[Option], context: Context) -> Iterable[Part]:
    options_by_name = {option.name: option for option in options}
    over = "--hashlimit-above" in options_by_name
    rate = options_by_name.get("--hashlimit-above") or options_by_name.get("--hashlimit-upto")
    if rate is None:
        raise Unknown("hashlimit")
    burst = options_by_name.get("--hashlimit-burst")
    yield Limit(rate=rate.arg, burst=int(burst.arg) if burst else 5, over=over)


def _flag(key: str) -> Callable[[Option, Context], Part]:
    return lambda option, _: test(key, option, Const(value=1))


def _name(key: str) -> Callable[[Option, Context], Part]:
    """An interface name; with ``+`` at its end any name that begins so."""

    def read(option: Option, context: Context) -> Part:
        name = option.arg
        value: Expr = (
            InterfaceWildcard(start=name[:-1]) if name.endswith("+") else Const(value=name)
        )
        return test(key, option, value)

    return read


def _range(key: str) -> Callable[[Option, Context], Part]:
    def read(option: Option, context: Context) -> Part:
        low, _, high = option.arg.partition("-")
        parse_address(low)
        parse_address(high or low)
        return test(f"{context.family} {key}", option, Range(low=low, high=high or low))

    return read


def _nfacct(options: Sequence[Option], context: Context) -> Iterable[Part]:
    """A match that counts and is always true (xt_nfacct.c)."""
    yield Count(name=options[0].arg)


def _rpfilter(options: Sequence[Option], context: Context) -> Iterable[Part]:
    """The reverse path filter: the route to the source leaves by the packet's input interface."""
    options_by_name = {option.name for option in options}
    if not options_by_name <= {"--loose", "--validmark", "--invert"}:
        raise Unknown("--accept-local asks for more than a route")
    keys = ("saddr", *(("mark",) if "--validmark" in options_by_name else ()))
    keys += () if "--loose" in options_by_name else ("iif",)
    op = "==" if "--invert" in options_by_name else "!="
    yield Comparison(left=Fib(result="oif", flags=keys), op=op, right=Const(value=0))  # type: ignore[arg-type]


def _socket(options: Sequence[Option], context: Context) -> Iterable[Part]:
    options_by_name = {option.name for option in options}
    if not options_by_name <= {"--transparent", "--nowildcard"}:
        raise Unknown("--restore-skmark")
    yield Socket(
        transparent="--transparent" in options_by_name, nowildcard="--nowildcard" in options_by_name
    )


def _compare(key: str, op: str) -> Callable[[Option, Context], Part]:
    def read(option: Option, context: Context) -> Part:
        if option.negated and op != "==":
            raise Unknown(option.text)
        sign = "!=" if option.negated else op
        value = Const(value=number(option.arg))
        return Comparison(left=field(key), op=sign, right=value)  # type: ignore[arg-type]

    return read


def _hops(key: str, name: str) -> Reader:
    return _option_by_option(
        {
            f"--{name}-eq": _compare(key, "=="),
            f"--{name}-lt": _compare(key, "<"),
            f"--{name}-gt": _compare(key, ">"),
        }
    )


def _id(option: Option, key: str) -> Part:
    """A user or group; a packet without a socket has none, so a negated test matches (owner_mt)."""
    low, dash, high = option.arg.partition("-")
    value = Range(low=int(low), high=int(high)) if dash else Const(value=int(low))
    asked = Comparison(left=field(key), op="==", right=value)
    return AnyOf(tests=(asked,), negated=True) if option.negated else asked


def _pkttype(option: Option, _: Context) -> Part:
    name = {"unicast": "host"}.get(option.arg, option.arg)
    return test("meta pkttype", option, Const(value=name))


def _dscp(option: Option, context: Context) -> Part:
    return test(f"{context.family} dscp", option, Const(value=number(option.arg)))


MATCHES: dict[str, Reader] = {
    "tcp": _option_by_option({**_ports("tcp"), "--tcp-flags": _tcp_flags, "--syn": _syn}),
    "udp": _option_by_option(_ports("udp")),
    "sctp": _option_by_option(_ports("sctp")),
    "dccp": _option_by_option(_ports("dccp")),
    "udplite": _option_by_option(_ports("udplite")),
    "icmp": _icmp("icmp", 255),
    "icmp6": _icmp("icmpv6", -1),
    "icmpv6": _icmp("icmpv6", -1),
    "multiport": _multiport,
    "conntrack": _option_by_option(_CONNTRACK),
    "state": _option_by_option({"--state": _CONNTRACK["--ctstate"]}),
    "mark": _option_by_option(
        {"--mark": lambda option, _: masked("meta mark", option.arg, option)}
    ),
    "connmark": _option_by_option(
        {"--mark": lambda option, _: masked("ct mark", option.arg, option)}
    ),
    "addrtype": _addrtype,
    "set": _set,
    "statistic": _statistic,
    "recent": _recent,
    "limit": _limit,
    "hashlimit": _hashlimit,
    "physdev": _option_by_option(
        {
            "--physdev-in": _name("physdev in"),
            "--physdev-out": _name("physdev out"),
            "--physdev-is-in": _flag("physdev is-in"),
            "--physdev-is-out": _flag("physdev is-out"),
            "--physdev-is-bridged": _flag("physdev is-bridged"),
        }
    ),
    "nfacct": _nfacct,
    "iprange": _option_by_option({"--src-range": _range("saddr"), "--dst-range": _range("daddr")}),
    "mac": _option_by_option(
        {"--mac-source": lambda option, _: test("ether saddr", option, Const(value=option.arg))}
    ),
    "owner": _option_by_option(
        {
            "--uid-owner": lambda option, _: _id(option, "meta skuid"),
            "--gid-owner": lambda option, _: _id(option, "meta skgid"),
        }
    ),
    "pkttype": _option_by_option({"--pkt-type": _pkttype}),
    "length": _option_by_option(
        {"--length": lambda option, _: test("meta length", option, numbers(option.arg))}
    ),
    "ttl": _hops("ip ttl", "ttl"),
    "hl": _hops("ip6 hoplimit", "hl"),
    "rpfilter": _rpfilter,
    "socket": _socket,
    "helper": _option_by_option(
        {"--helper": lambda o, _: test("ct helper", o, Const(value=o.arg))}
    ),
    "cgroup": _option_by_option({"--cgroup": _compare("meta cgroup", "==")}),
    "cpu": _option_by_option({"--cpu": _compare("meta cpu", "==")}),
    "devgroup": _option_by_option(
        {
            "--src-group": lambda option, _: masked("meta iifgroup", option.arg, option),
            "--dst-group": lambda option, _: masked("meta oifgroup", option.arg, option),
        }
    ),
    "dscp": _option_by_option({"--dscp": _dscp}),
}
