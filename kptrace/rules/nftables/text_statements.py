"""Parse the statements of ``nft list ruleset`` text into the JSON of ``nft -j``.

A statement that is not understood becomes an object of its own, with the text up to the rule's
verdict: whether the rule goes on behind it is then open.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from kptrace.rules.nftables.text_expressions import (
    VERDICTS,
    concatenation,
    counter_value,
    datum,
    duration,
    elements,
    expression,
    literal,
    mapping,
    seconds,
    verdict,
)
from kptrace.rules.nftables.text_tokens import TextSyntaxError, Tokens

Json = Any

_OPERATORS = frozenset({"==", "!=", "<", ">", "<=", ">=", "!"})
# fields of flags: without an operator any of the flags is meant
_FLAG_FIELDS = (
    {"ct": {"key": "state"}},
    {"ct": {"key": "status"}},
    {"ct": {"key": "event"}},
    {"ct": {"key": "label"}},
    {"payload": {"protocol": "tcp", "field": "flags"}},
)
_REALMS = ({"meta": {"key": "rtclassid"}}, {"rt": {"key": "classid"}})
_DEFAULT_REJECT = {"ip": "icmp", "ip6": "icmpv6"}
_NAT_FLAGS = frozenset({"random", "fully-random", "persistent"})
_DEFAULT_BURST = 5  # packets
_LAST_VERDICT = re.compile(r"(?:^|\s)(?:(accept|drop|return|continue)|(jump|goto) (\S+))\s*$")


def rule_statements(tokens: Tokens, family: str, of_iptables: bool) -> tuple[list[Json], str]:
    """The statements of a rule, and its comment.

    of_iptables: iptables-nft wrote the table: nft prints nothing for a match that is only a
        comment, so two blanks follow each other there
    """
    statements: list[Json] = []
    comment = ""
    before = tokens.token.start - 1
    while not tokens.at_line_end and not tokens.at_end:
        if of_iptables and tokens.token.start - before > 1:
            statements.append({"xt": {"type": "match", "name": "comment"}})
        if tokens.word == "comment" and tokens.accept("comment"):
            comment = tokens.next().text
            continue
        place, line = tokens.place, tokens.token.line
        try:
            statements.append(_statement(tokens, family))
            before = tokens.previous.end
        except TextSyntaxError as error:
            if error.line != line and tokens.at_end:
                raise
            tokens.go_back(place)
            statements += _unknown(tokens)
    return statements, comment


def _unknown(tokens: Tokens) -> list[Json]:
    """The rest of a rule as it stands; a verdict at its end is understood."""
    text = tokens.text_until_line_end()
    last = _LAST_VERDICT.search(text)
    if last is None:
        return [{"text": text}]
    name = last[1] or last[2]
    return [{"text": text[: last.start()]}, {name: {"target": last[3]} if last[3] else None}]


def _statement(tokens: Tokens, family: str) -> Json:
    word = tokens.word
    if word == "reject":
        return _reject(tokens, family)
    parser = _STATEMENTS.get(word)
    if parser is not None:
        return parser(tokens)
    if word == "ct" and tokens.following in _CT_STATEMENTS:
        return _ct_statement(tokens)
    if word in ("add", "update", "delete") and tokens.following.startswith("@"):
        return _set_update(tokens)
    return _match(tokens)


# --- matches, and the assignments that begin like them -----------------------------------------


def _match(tokens: Tokens) -> Json:
    first = tokens.token
    left = expression(tokens)
    if not isinstance(left, dict) or "prefix" in left or "range" in left:
        raise TextSyntaxError(first.line, f"{first.text!r} is no field")
    if tokens.accept("vmap"):
        return {"vmap": {"key": left, "data": mapping(tokens)}}
    if tokens.accept("set"):
        return {"mangle": {"key": left, "value": _right(tokens)}}
    sign = tokens.next().text if tokens.word in _OPERATORS else ""
    right = _right(tokens)
    if tokens.accept("/"):  # ``tcp flags syn / fin,syn``: the flags under a mask
        left = {"&": [left, _right(tokens)]}
        sign = sign or "=="
    plain = not isinstance(right, dict) and not _is_reference(right)
    usual = "in" if left in _FLAG_FIELDS and plain else "=="
    if left == {"ct": {"key": "expiration"}} and isinstance(right, str):
        right = _time(right, tokens)
    elif isinstance(right, int) and not isinstance(right, bool) and _has_names(left):
        right = str(right)
    return {"match": {"op": sign or usual, "left": left, "right": right}}


def _has_names(left: Json) -> bool:
    """Whether nft's JSON has the numbers of this field, which can have names, as texts."""
    return left in _REALMS or left.get("fib", {}).get("result") == "oif"


def _is_reference(value: Json) -> bool:
    return isinstance(value, str) and value.startswith("@")


def _time(text: str, tokens: Tokens) -> Json:
    try:
        return duration(text)
    except ValueError as error:
        raise TextSyntaxError(tokens.token.line, str(error)) from None


def _right(tokens: Tokens) -> Json:
    """What is compared with: a value, several flags, a set."""
    if tokens.word == "{":
        return {"set": elements(tokens)}
    if tokens.word in ("exists", "missing"):
        return tokens.next().text == "exists"
    value = expression(tokens)
    if tokens.word != ",":
        return value
    flags = [value]
    while tokens.accept(","):
        flags.append(concatenation(tokens))
    return flags


# --- statements -----------------------------------------------------------------------------------


def _counter(tokens: Tokens) -> Json:
    tokens.expect("counter")
    if not tokens.accept("name"):
        return {"counter": counter_value(tokens)}
    return {"counter": _named(tokens)}


def _named(tokens: Tokens) -> Json:
    """The name of an object, or a map that gives it."""
    return tokens.next().text if tokens.token.quoted else expression(tokens)


def _limit(tokens: Tokens) -> Json:
    tokens.expect("limit")
    if tokens.accept("name"):
        return {"limit": _named(tokens)}
    tokens.expect("rate")
    inverted = tokens.accept("over")
    rate = tokens.next()
    number, _, per = rate.text.partition("/")
    unit = ""
    if not per:
        unit, _, per = tokens.next().text.partition("/")
    try:
        value: Json = {"rate": int(number), "burst": 0 if unit else _DEFAULT_BURST, "per": per}
    except ValueError:
        raise TextSyntaxError(rate.line, f"{rate.text!r} is no rate") from None
    if inverted:
        value["inv"] = True
    if unit:
        value["rate_unit"] = unit
    if tokens.accept("burst"):
        value["burst"] = tokens.number()
        burst_unit = tokens.next().text
        if burst_unit != "packets":
            value["burst_unit"] = burst_unit
    elif unit:
        value["burst_unit"] = "bytes"
    return {"limit": value}


def _quota(tokens: Tokens) -> Json:
    tokens.expect("quota")
    if tokens.accept("name"):
        return {"quota": _named(tokens)}
    inverted = tokens.accept("over")
    tokens.accept("until")
    value: Json = {"val": tokens.number(), "val_unit": tokens.next().text}
    if tokens.accept("used"):
        value["used"], value["used_unit"] = tokens.number(), tokens.next().text
    if inverted:
        value["inv"] = True
    return {"quota": value}


_LOG_NUMBERS = ("group", "snaplen", "queue-threshold")


def _log(tokens: Tokens) -> Json:
    tokens.expect("log")
    value: Json = {}
    while True:
        if tokens.accept("prefix"):
            value["prefix"] = tokens.next().text
        elif tokens.word in _LOG_NUMBERS:
            name = tokens.next().text
            value[name] = tokens.number()
        elif tokens.accept("level"):
            value["level"] = tokens.next().text
        elif tokens.accept("flags"):
            value["flags"] = _log_flags(tokens)
        else:
            return {"log": value or None}


def _log_flags(tokens: Tokens) -> Json:
    """``tcp sequence,options`` are two flags of tcp."""
    kind = tokens.next().text
    if kind not in ("tcp", "ip"):
        return kind
    names = [f"{kind} {tokens.next().text}"]
    while tokens.accept(","):
        names.append(f"{kind} {tokens.next().text}")
    return names[0] if len(names) == 1 else names


def _reject(tokens: Tokens, family: str) -> Json:
    tokens.expect("reject")
    if not tokens.accept("with"):
        kind = _DEFAULT_REJECT.get(family, "icmpx")
        return {"reject": {"type": kind, "expr": "port-unreachable"}}
    kind = tokens.next().text
    if kind == "tcp":
        tokens.expect("reset")
        return {"reject": {"type": "tcp reset"}}
    tokens.accept("type")
    return {"reject": {"type": kind, "expr": literal(tokens.next().text)}}


def _flags(tokens: Tokens) -> Json:
    """``random,persistent``; nft's JSON has one flag as a text and several as a list."""
    flags: list[str] = []
    while tokens.word in _NAT_FLAGS:
        flags.append(tokens.next().text)
        if not tokens.accept(","):
            break
    if not flags:
        return {}
    return {"flags": flags[0] if len(flags) == 1 else flags}


def _nat(tokens: Tokens) -> Json:
    name = tokens.next().text
    value: Json = {}
    if tokens.word in ("ip", "ip6") and tokens.following in ("to", "prefix", "addr"):
        value["family"] = tokens.next().text
    netmap = tokens.accept("prefix")
    if tokens.accept("addr"):  # ``addr . port to ... map``: the map gives both
        tokens.expect(".")
        tokens.expect("port")
    if tokens.accept("to"):
        value |= _address_and_port(tokens)
    value |= _flags(tokens)
    if netmap:
        value |= {"flags": "netmap", "type_flags": "prefix"}
    return {name: value or None}


_BRACKETED = re.compile(r"\[([^\]]+)\](?:-\[([^\]]+)\])?(?::(\S+))?")
_IPV4_AND_PORT = re.compile(r"([^:]+):(\d+(?:-\d+)?)")


def _address_and_port(tokens: Tokens) -> Json:
    """``10.0.0.1:80``, ``[fd00::1]:80``, ``:80``, ``ip saddr map { ... }:80``"""
    text = tokens.word
    if text.startswith(":"):
        return _port(tokens)
    if match := _BRACKETED.fullmatch(text) or _IPV4_AND_PORT.fullmatch(text):
        tokens.next()
        low, high, port = (
            (*match.groups(),) if match.re is _BRACKETED else (match[1], None, match[2])
        )
        address: Json = {"range": [low, high]} if high else literal(str(low))
        return {"addr": address, **({"port": literal(port)} if port else {})}
    value: Json = {"addr": expression(tokens)}
    return value | (_port(tokens) if tokens.word.startswith(":") else {})


def _port(tokens: Tokens) -> Json:
    """``:80``, ``:80-90``, ``: numgen ... map { ... }``"""
    token = tokens.next()
    if token.text == ":":
        return {"port": expression(tokens)}
    return {"port": literal(token.text.removeprefix(":"))}


def _port_nat(tokens: Tokens) -> Json:
    name = tokens.next().text
    value: Json = _port(tokens) if tokens.accept("to") else {}
    value |= _flags(tokens)
    return {name: value or None}


def _tproxy(tokens: Tokens) -> Json:
    tokens.expect("tproxy")
    family = {"family": tokens.next().text} if tokens.word in ("ip", "ip6") else {}
    tokens.expect("to")
    return {"tproxy": family | _address_and_port(tokens)}


def _queue(tokens: Tokens) -> Json:
    tokens.expect("queue")
    value: Json = {}
    if tokens.accept("flags"):
        value["flags"] = _names(tokens)
    if tokens.accept("num", "to"):
        value["num"] = expression(tokens)
    if tokens.word in ("bypass", "fanout"):
        value["flags"] = _names(tokens)
    return {"queue": value or None}


def _names(tokens: Tokens) -> Json:
    names = [tokens.next().text]
    while tokens.accept(","):
        names.append(tokens.next().text)
    return names[0] if len(names) == 1 else names


_CT_STATEMENTS = frozenset({"count", "helper", "timeout", "expectation"})


def _ct_statement(tokens: Tokens) -> Json:
    """``ct helper set "ftp"`` and ``ct count over 5``; ``ct helper "ftp"`` is a match."""
    place = tokens.place
    tokens.expect("ct")
    name = tokens.next().text
    if name == "count":
        inverted = {"inv": True} if tokens.accept("over") else {}
        return {"ct count": {"val": tokens.number(), **inverted}}
    if tokens.accept("set"):
        return {f"ct {name}": _named(tokens)}
    tokens.go_back(place)
    return _match(tokens)


def _set_update(tokens: Tokens) -> Json:
    operation, name = tokens.next().text, tokens.next().text
    tokens.expect("{")
    key = concatenation(tokens)
    attributes: Json = {}
    inner: list[Json] = []
    data = None
    while not tokens.accept("}"):
        if tokens.accept("timeout"):
            attributes["timeout"] = seconds(tokens)
        elif tokens.accept("expires"):
            attributes["expires"] = seconds(tokens)
        elif tokens.accept("comment"):
            attributes["comment"] = tokens.next().text
        elif tokens.accept(":"):
            data = datum(tokens)
        else:
            inner.append(_statement(tokens, ""))
    element = {"elem": {"val": key, **attributes}} if attributes else key
    kind = "set" if data is None else "map"
    value: Json = {"op": operation, "elem": element, kind: name}
    if data is not None:
        value["data"] = data
    if inner:
        value["stmt"] = inner
    return {kind: value}


def _dup(tokens: Tokens) -> Json:
    tokens.expect("dup")
    tokens.expect("to")
    value: Json = {"addr": expression(tokens)}
    if tokens.accept("device"):
        value["dev"] = expression(tokens)
    return {"dup": value}


def _fwd(tokens: Tokens) -> Json:
    tokens.expect("fwd")
    tokens.expect("to")
    return {"fwd": {"dev": expression(tokens)}}


def _flow(tokens: Tokens) -> Json:
    tokens.expect("flow")
    tokens.expect("add")
    return {"flow": {"op": "add", "flowtable": tokens.next().text}}


def _synproxy(tokens: Tokens) -> Json:
    tokens.expect("synproxy")
    value: Json = {}
    flags: list[str] = []
    while tokens.word in ("mss", "wscale", "timestamp", "sack-perm"):
        name = tokens.next().text
        if name in ("mss", "wscale"):
            value[name] = tokens.number()
        else:
            flags.append(name)
    if flags:
        value["flags"] = flags[0] if len(flags) == 1 else flags
    return {"synproxy": value or None}


def _xt(tokens: Tokens) -> Json:
    """A match or target of iptables-nft: ``xt match recent``."""
    tokens.expect("xt")
    return {"xt": {"type": tokens.next().text, "name": tokens.next().text}}


def _bare(tokens: Tokens) -> Json:
    return {tokens.next().text: None}


_STATEMENTS: Mapping[str, Callable[[Tokens], Json]] = {
    **dict.fromkeys((name for name in VERDICTS if name != "queue"), verdict),
    "counter": _counter,
    "limit": _limit,
    "quota": _quota,
    "log": _log,
    "dnat": _nat,
    "snat": _nat,
    "masquerade": _port_nat,
    "redirect": _port_nat,
    "tproxy": _tproxy,
    "queue": _queue,
    "notrack": _bare,
    "last": _bare,
    "dup": _dup,
    "fwd": _fwd,
    "flow": _flow,
    "synproxy": _synproxy,
    "xt": _xt,
}
