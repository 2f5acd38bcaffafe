"""iptables' matches: module name -> how its options become parts.

Sources: the ``_save`` functions of iptables' extensions for the words, the kernel's ``xt_*.c`` for
what they mean. A reader raises Unknown (or ValueError) for options that it does not know; the
caller then keeps the whole module as opaque text.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

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


def _each(readers: dict[str, Callable[[Option, Context], Part]]) -> Reader:
    """A module whose options are each a test of their own."""

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


def _tcp_flags(option: Option, _: Context) -> Part:
    mask, wanted = (sum(TCP_FLAGS[name] for name in arg.split(",")) for arg in option.args)
    left = BitwiseExpr(op="and", left=field("tcp flags"), right=Const(value=mask))
    return Comparison(left=left, op="!=" if option.negated else "==", right=Const(value=wanted))


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
    """NONE stands for no bit, so alone it is never true."""
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


def _addrtype6(option: Option, asked: tuple[str, ...]) -> Iterable[Part]:
    """match_type6(): kinds that the address alone tells must all be right, of the others one."""
    kinds = option.arg.lower().split(",")
    alone: list[tuple[str, ...]] = [(kind,) for kind in kinds if kind in _BY_ADDRESS]
    groups = [*alone, tuple(kind for kind in kinds if kind not in _BY_ADDRESS)]
    op = "not in" if option.negated else "in"
    tests = tuple(
        Comparison(
            left=Fib(result="types", flags=asked),
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
    if len(options) != 1 or options[0].name != "--match-set":
        raise Unknown("options that count or look for nomatch")
    name, directions = options[0].args
    left = ipset_key(context, name, directions.split(","))
    op = "!=" if options[0].negated else "=="
    yield Comparison(left=left, op=op, right=SetRef(name=name, ipset=True))  # type: ignore[arg-type]


def _statistic(options: Sequence[Option], context: Context) -> Iterable[Part]:
    given = {option.name: option for option in options}
    mode = given["--mode"].arg if "--mode" in given else ""
    if mode == "random" and set(given) == {"--mode", "--probability"}:
        option = given["--probability"]
        probability = float(option.arg)
        if not 0 <= probability <= 1:
            raise Unknown(option.text)
        yield RandomMatch(probability=1 - probability if option.negated else probability)
    elif mode == "nth" and set(given) <= {"--mode", "--every", "--packet"}:
        packet = given.get("--packet")
        yield NthMatch(
            every=int(given["--every"].arg),
            packet=int(packet.arg) if packet else 0,
            negated=given["--every"].negated,
        )
    else:
        raise Unknown(mode)


def _recent(options: Sequence[Option], context: Context) -> Iterable[Part]:
    given = {option.name: option for option in options}
    actions = [name for name in ("--set", "--rcheck", "--update", "--remove") if name in given]
    if len(actions) != 1 or not set(given) <= _RECENT:
        raise Unknown("recent")
    yield Recent(
        action=actions[0][2:],  # type: ignore[arg-type]
        list=given["--name"].arg if "--name" in given else "DEFAULT",
        seconds=int(given["--seconds"].arg) if "--seconds" in given else 0,
        hits=int(given["--hitcount"].arg) if "--hitcount" in given else 0,
        reap="--reap" in given,
        by="daddr" if "--rdest" in given else "saddr",
        mask=given["--mask"].arg if "--mask" in given else "",
        negated=given[actions[0]].negated,
    )


_RECENT = {"--set", "--rcheck", "--update", "--remove", "--name", "--seconds", "--hitcount"}
_RECENT |= {"--reap", "--rsource", "--rdest", "--mask", "--rttl"}


def _limit(options: Sequence[Option], context: Context) -> Iterable[Part]:
    given = {option.name: option for option in options}
    burst = given.get("--limit-burst")
    yield Limit(rate=given["--limit"].arg, burst=int(burst.arg) if burst else 5)


def _hashlimit(options: Sequence[Option], context: Context) -> Iterable[Part]:
    given = {option.name: option for option in options}
    over = "--hashlimit-above" in given
    rate = given.get("--hashlimit-above") or given.get("--hashlimit-upto")
    if rate is None:
        raise Unknown("hashlimit")
    burst = given.get("--hashlimit-burst")
    yield Limit(rate=rate.arg, burst=int(burst.arg) if burst else 5, over=over)


def _flag(key: str) -> Callable[[Option, Context], Part]:
    return lambda option, _: test(key, option, Const(value=1))


def _name(key: str) -> Callable[[Option, Context], Part]:
    """Interface names end in ``+`` for any that starts so."""

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
        return test(f"{context.family} {key}", option, Range(low=low, high=high or low))

    return read


def _nfacct(options: Sequence[Option], context: Context) -> Iterable[Part]:
    """Counts and is always true (xt_nfacct.c)."""
    yield Count(name=options[0].arg)


def _rpfilter(options: Sequence[Option], context: Context) -> Iterable[Part]:
    """True when the way back to the source leaves by the interface that the packet came in by."""
    given = {option.name for option in options}
    if not given <= {"--loose", "--validmark", "--invert"}:
        raise Unknown("--accept-local asks for more than a route")
    keys = ("saddr", *(("mark",) if "--validmark" in given else ()))
    keys += () if "--loose" in given else ("iif",)
    op = "==" if "--invert" in given else "!="
    yield Comparison(left=Fib(result="oif", flags=keys), op=op, right=Const(value=0))  # type: ignore[arg-type]


def _socket(options: Sequence[Option], context: Context) -> Iterable[Part]:
    given = {option.name for option in options}
    if not given <= {"--transparent", "--nowildcard"}:
        raise Unknown("--restore-skmark")
    yield Socket(transparent="--transparent" in given, nowildcard="--nowildcard" in given)


def _compare(key: str, op: str) -> Callable[[Option, Context], Part]:
    def read(option: Option, context: Context) -> Part:
        if option.negated and op != "==":
            raise Unknown(option.text)
        sign = "!=" if option.negated else op
        value = Const(value=number(option.arg))
        return Comparison(left=field(key), op=sign, right=value)  # type: ignore[arg-type]

    return read


def _hops(key: str, name: str) -> Reader:
    return _each(
        {
            f"--{name}-eq": _compare(key, "=="),
            f"--{name}-lt": _compare(key, "<"),
            f"--{name}-gt": _compare(key, ">"),
        }
    )


def _id(option: Option, key: str) -> Part:
    """A packet without a socket is nobody's, so it is not this user's (owner_mt)."""
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
    "tcp": _each({**_ports("tcp"), "--tcp-flags": _tcp_flags}),
    "udp": _each(_ports("udp")),
    "sctp": _each(_ports("sctp")),
    "dccp": _each(_ports("dccp")),
    "udplite": _each(_ports("udplite")),
    "icmp": _icmp("icmp", 255),
    "icmp6": _icmp("icmpv6", -1),
    "icmpv6": _icmp("icmpv6", -1),
    "multiport": _multiport,
    "conntrack": _each(_CONNTRACK),
    "state": _each({"--state": _CONNTRACK["--ctstate"]}),
    "mark": _each({"--mark": lambda option, _: masked("meta mark", option.arg, option)}),
    "connmark": _each({"--mark": lambda option, _: masked("ct mark", option.arg, option)}),
    "addrtype": _addrtype,
    "set": _set,
    "statistic": _statistic,
    "recent": _recent,
    "limit": _limit,
    "hashlimit": _hashlimit,
    "physdev": _each(
        {
            "--physdev-in": _name("physdev in"),
            "--physdev-out": _name("physdev out"),
            "--physdev-is-in": _flag("physdev is-in"),
            "--physdev-is-out": _flag("physdev is-out"),
            "--physdev-is-bridged": _flag("physdev is-bridged"),
        }
    ),
    "nfacct": _nfacct,
    "iprange": _each({"--src-range": _range("saddr"), "--dst-range": _range("daddr")}),
    "mac": _each(
        {"--mac-source": lambda option, _: test("ether saddr", option, Const(value=option.arg))}
    ),
    "owner": _each(
        {
            "--uid-owner": lambda option, _: _id(option, "meta skuid"),
            "--gid-owner": lambda option, _: _id(option, "meta skgid"),
        }
    ),
    "pkttype": _each({"--pkt-type": _pkttype}),
    "length": _each(
        {"--length": lambda option, _: test("meta length", option, numbers(option.arg))}
    ),
    "ttl": _hops("ip ttl", "ttl"),
    "hl": _hops("ip6 hoplimit", "hl"),
    "rpfilter": _rpfilter,
    "socket": _socket,
    "helper": _each({"--helper": lambda o, _: test("ct helper", o, Const(value=o.arg))}),
    "cgroup": _each({"--cgroup": _compare("meta cgroup", "==")}),
    "cpu": _each({"--cpu": _compare("meta cpu", "==")}),
    "devgroup": _each(
        {
            "--src-group": lambda option, _: masked("meta iifgroup", option.arg, option),
            "--dst-group": lambda option, _: masked("meta oifgroup", option.arg, option),
        }
    ),
    "dscp": _each({"--dscp": _dscp}),
}
