"""Read the options of iptables' targets: TARGETS has a reader for each target.

Sources as for ``matches.py``. MARK and CONNMARK become a SetField with an expression over marks, so
that there is one way to compute a mark (xt_mark.c, xt_connmark.c)::

    MARK --set-xmark V/M      mark  = (mark & ~M) ^ V
    CONNMARK --save-mark      ct    = (ct & ~C) ^ (mark & N)
    CONNMARK --restore-mark   mark  = (mark & ~N) ^ (ct & C)
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from kptrace.model.addresses import address as parse_address
from kptrace.rules.iptables.ipset_match import ipset_key
from kptrace.rules.iptables.options import Context, Option, Unknown, field, number
from kptrace.rules.model.expressions import (
    BitwiseExpr,
    Const,
    Dnat,
    Expr,
    Log,
    Masquerade,
    NoEffect,
    NoTrack,
    Part,
    Range,
    Redirect,
    Reject,
    SetField,
    SetRef,
    SetUpdate,
    Snat,
    Tproxy,
    Verdict,
)

Reader = Callable[[Sequence[Option], Context], Iterable[Part]]

VERDICTS = {
    "ACCEPT": Verdict(kind="accept"),
    "DROP": Verdict(kind="drop"),
    "RETURN": Verdict(kind="return"),
    "QUEUE": Verdict(kind="queue"),
}
_ALL = 0xFFFFFFFF
_RANDOM = {"--random": "random", "--random-fully": "fully-random", "--persistent": "persistent"}


def _by_name(options: Sequence[Option], known_names: set[str]) -> dict[str, Option]:
    for option in options:
        if option.name not in known_names or option.negated:
            raise Unknown(option.text)
    return {option.name: option for option in options}


def _nat(name: str, kind: Callable[..., Part]) -> Reader:
    """``ADDRESS[-ADDRESS][:PORT[-PORT]]``, IPv6 addresses in brackets when a port follows."""

    def read(options: Sequence[Option], context: Context) -> Iterable[Part]:
        options_by_name = _by_name(options, {name, "--to", *_RANDOM})
        destination = options_by_name.get(name) or options_by_name["--to"]
        addr, port = _destination(destination.arg)
        yield kind(addr=addr, port=port, flags=_random(options_by_name))

    return read


def _random(options_by_name: dict[str, Option]) -> tuple[str, ...]:
    return tuple(flag for name, flag in _RANDOM.items() if name in options_by_name)


def _destination(text: str) -> tuple[Expr | None, Expr | None]:
    if text.startswith("["):
        address, _, rest = text[1:].partition("]")
        port = rest.removeprefix(":")
    elif text.count(":") > 1:
        address, port = text, ""
    else:
        address, _, port = text.partition(":")
    if "/" in port:
        raise Unknown("a port range with a base port")
    return _span(address.replace("[", "").replace("]", ""), _address), _span(port, int)


def _address(text: str) -> str:
    """An address as it stands. Raises ValueError for any other text."""
    parse_address(text)
    return text


def _span(text: str, kind: Callable[[str], str | int]) -> Expr | None:
    low, dash, high = text.partition("-")
    if not low:
        return None
    if not dash:
        return Const(value=kind(low))
    return Range(low=kind(low), high=kind(high))


def _ports(name: str, kind: Callable[..., Part]) -> Reader:
    def read(options: Sequence[Option], context: Context) -> Iterable[Part]:
        options_by_name = _by_name(options, {name, *_RANDOM})
        port = _span(options_by_name[name].arg, int) if name in options_by_name else None
        yield kind(port=port, flags=_random(options_by_name))

    return read


def _reject(options: Sequence[Option], context: Context) -> Iterable[Part]:
    options_by_name = _by_name(options, {"--reject-with"})
    if not options_by_name:  # reject_init, REJECT_init
        yield Reject(reply=f"{'icmpv6' if context.family == 'ip6' else 'icmp'} port-unreachable")
        return
    name = options_by_name["--reject-with"].arg
    if name == "tcp-reset":
        yield Reject(reply="tcp reset")
        return
    start, protocol = ("icmp6-", "icmpv6") if context.family == "ip6" else ("icmp-", "icmp")
    if not name.startswith(start):
        raise Unknown(name)
    code = name.removeprefix(start)
    yield Reject(reply=f"{protocol} {_CODES.get(code, code)}")


_CODES = {"proto-unreachable": "prot-unreachable", "adm-prohibited": "admin-prohibited"}


def _bits(op: str, left: Expr, value: int) -> Expr:
    return BitwiseExpr(op=op, left=left, right=Const(value=value))  # type: ignore[arg-type]


def _xmark(old: Expr, text: str) -> Expr:
    """(old & ~mask) ^ value, less what does nothing."""
    value_text, _, mask_text = text.partition("/")
    value, mask = number(value_text), number(mask_text) if mask_text else _ALL
    if mask == _ALL:
        return Const(value=value)
    cleared = old if mask == 0 else _bits("and", old, ~mask & _ALL)
    return _bits("xor", cleared, value)


def _mark(options: Sequence[Option], context: Context) -> Iterable[Part]:
    (option,) = _by_name(options, set(_MARK_OPTIONS)).values()
    old = field("meta mark")
    yield SetField(field=old, value=_xmark(old, _MARK_OPTIONS[option.name](option.arg)))


def _set_mark(text: str) -> str:
    """``--set-mark VALUE/MASK`` changes the bits of both (mark_tg_parse, MARK_parse)."""
    value, _, mask = text.partition("/")
    return f"{number(value):#x}/{number(value) | (number(mask) if mask else _ALL):#x}"


# libxt_MARK and libxt_CONNMARK: each is short for a --set-xmark
_MARK_OPTIONS: dict[str, Callable[[str], str]] = {
    "--set-xmark": lambda text: text,
    "--set-mark": _set_mark,
    "--or-mark": lambda text: f"{number(text):#x}/{number(text):#x}",
    "--and-mark": lambda text: f"0x0/{~number(text) & _ALL:#x}",
    "--xor-mark": lambda text: f"{number(text):#x}/0x0",
}


def _connmark(options: Sequence[Option], context: Context) -> Iterable[Part]:
    known_names = {"--save-mark", "--restore-mark", "--nfmask", "--ctmask", "--mask"}
    known_names |= set(_MARK_OPTIONS)
    options_by_name = _by_name(options, known_names)
    mark, ct = field("meta mark"), field("ct mark")
    both = options_by_name.get("--mask")
    nfmask, ctmask = (
        number(option.arg) if (option := options_by_name.get(name) or both) else _ALL
        for name in ("--nfmask", "--ctmask")
    )
    setting = next((name for name in _MARK_OPTIONS if name in options_by_name), "")
    if setting:
        text = _MARK_OPTIONS[setting](options_by_name[setting].arg)
        change = SetField(field=ct, value=_xmark(ct, text), tolerant=True)
    elif "--save-mark" in options_by_name:
        change = SetField(field=ct, value=_merge(ct, ctmask, mark, nfmask), tolerant=True)
    elif "--restore-mark" in options_by_name:
        change = SetField(field=mark, value=_merge(mark, nfmask, ct, ctmask), tolerant=True)
    else:
        raise Unknown("CONNMARK")
    yield change


def _merge(old: Expr, cleared: int, new: Expr, taken: int) -> Expr:
    right = new if taken == _ALL else _bits("and", new, taken)
    if cleared == _ALL:
        return right
    return BitwiseExpr(op="xor", left=_bits("and", old, ~cleared & _ALL), right=right)


def _ct(options: Sequence[Option], context: Context) -> Iterable[Part]:
    for option in options:
        if option.name == "--notrack":
            yield NoTrack()
        elif option.name == "--zone" and option.arg.isdigit():
            yield SetField(
                field=field("ct zone"), value=Const(value=int(option.arg)), tolerant=True
            )
        elif option.name in ("--helper", "--ctevents", "--expevents", "--timeout"):
            yield NoEffect(text=f"CT {option.text}")
        else:
            raise Unknown(option.text)


def _tproxy(options: Sequence[Option], context: Context) -> Iterable[Part]:
    options_by_name = _by_name(options, {"--on-port", "--on-ip", "--tproxy-mark"})
    address = options_by_name["--on-ip"].arg if "--on-ip" in options_by_name else ""
    old = field("meta mark")
    yield Tproxy(
        addr=None if address in ("", "0.0.0.0", "::") else Const(value=address),
        port=Const(value=int(options_by_name["--on-port"].arg))
        if "--on-port" in options_by_name
        else None,
        mark=_xmark(old, options_by_name["--tproxy-mark"].arg)
        if "--tproxy-mark" in options_by_name
        else None,
        accepts=True,
    )


def _log(options: Sequence[Option], context: Context) -> Iterable[Part]:
    options_by_name = {option.name: option for option in options}
    prefix = options_by_name.get("--log-prefix") or options_by_name.get("--nflog-prefix")
    group = options_by_name.get("--nflog-group")
    yield Log(prefix=prefix.arg if prefix else "", group=int(group.arg) if group else None)


def _nflog(options: Sequence[Option], context: Context) -> Iterable[Part]:
    grouped = any(option.name == "--nflog-group" for option in options)
    yield from _log(
        options if grouped else [*options, Option(name="--nflog-group", args=("0",))], context
    )


def _trace(options: Sequence[Option], context: Context) -> Iterable[Part]:
    yield SetField(field=field("meta nftrace"), value=Const(value=1))


def _nfqueue(options: Sequence[Option], context: Context) -> Iterable[Part]:
    yield Verdict(kind="queue")


def _set(options: Sequence[Option], context: Context) -> Iterable[Part]:
    options_by_name = {option.name: option for option in options}
    for name, op in (("--add-set", "add"), ("--del-set", "delete")):
        if name in options_by_name:
            target, directions = options_by_name[name].args
            timeout = options_by_name.get("--timeout")
            yield SetUpdate(
                op=op,
                set=SetRef(name=target, ipset=True),
                key=ipset_key(context, target, directions.split(",")),
                timeout=int(timeout.arg) if timeout else None,
            )
            return
    raise Unknown("SET")


def _assign(key: Callable[[Context], str], name: str) -> Reader:
    def read(options: Sequence[Option], context: Context) -> Iterable[Part]:
        options_by_name = _by_name(options, {name})
        yield SetField(
            field=field(key(context)), value=Const(value=number(options_by_name[name].arg))
        )

    return read


def _tos(options: Sequence[Option], context: Context) -> Iterable[Part]:
    """(tos & ~mask) ^ value. Only the upper six bits, the DSCP, are modelled."""
    options_by_name = _by_name(options, {"--set-tos"})
    value, _, mask = options_by_name["--set-tos"].arg.partition("/")
    dscp = field(f"{context.family} dscp")
    cleared = _bits("and", dscp, ~(number(mask or "0xff") >> 2) & 0x3F)
    yield SetField(field=dscp, value=_bits("xor", cleared, number(value) >> 2))


def _harmless(name: str) -> Reader:
    def read(options: Sequence[Option], context: Context) -> Iterable[Part]:
        yield NoEffect(text=" ".join([name, *(option.text for option in options)]))

    return read


_MARKINGS = ("TCPMSS", "CHECKSUM", "CLASSIFY", "TEE", "AUDIT", "SECMARK", "LED")
_NOTES = ("CONNSECMARK", "IDLETIMER", "RATEEST", "ECN", "TCPOPTSTRIP", "ULOG")

TARGETS: dict[str, Reader] = {
    "DNAT": _nat("--to-destination", Dnat),
    "SNAT": _nat("--to-source", Snat),
    "MASQUERADE": _ports("--to-ports", Masquerade),
    "REDIRECT": _ports("--to-ports", Redirect),
    "REJECT": _reject,
    "MARK": _mark,
    "CONNMARK": _connmark,
    "NOTRACK": lambda options, context: [NoTrack()],
    "CT": _ct,
    "TPROXY": _tproxy,
    "LOG": _log,
    "NFLOG": _nflog,
    "TRACE": _trace,
    "NFQUEUE": _nfqueue,
    "SET": _set,
    "DSCP": _assign(lambda context: f"{context.family} dscp", "--set-dscp"),
    "TOS": _tos,
    "TTL": _assign(lambda context: "ip ttl", "--ttl-set"),
    "HL": _assign(lambda context: "ip6 hoplimit", "--hl-set"),
    **{name: _harmless(name) for name in _MARKINGS + _NOTES},
}
