"""Parse the expressions of ``nft list ruleset`` text into the JSON of ``nft -j``.

The grammar is nft's parser_bison.y, as far as nft prints it; the JSON is that of
libnftables-json(5), which ``json_expressions.py`` reads. So a rule has one reader in whatever form
it came.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from kptrace.rules.nftables.header_fields import HEADERS
from kptrace.rules.nftables.text_tokens import END, TextSyntaxError, Tokens, integer

Json = Any

BARE_META = frozenset(
    {"iif", "oif", "iifname", "oifname", "iiftype", "oiftype", "iifgroup", "oifgroup", "skuid"}
    | {"skgid", "mark", "nftrace", "rtclassid", "ibrname", "obrname", "pkttype", "cpu", "cgroup"}
)
_EXTENSION_HEADERS = frozenset({"frag", "hbh", "dst", "mh", "srh"})
_ROUTE_KEYS = frozenset({"classid", "nexthop", "mtu", "ipsec"})
_FIELDS = {name: frozenset(field.name for field in fields) for name, fields in HEADERS.items()}
_FIELDS |= {"igmp": frozenset({"type", "mrt", "checksum", "group"})}
_FIELDS["icmpv6"] |= {"parameter-problem", "packet-too-big", "max-delay", "taddr", "daddr"}
# the precedence of binary operators: the higher binds the tighter
_BINARY = {"|": 1, "^": 2, "&": 3, "<<": 4, ">>": 4}
_INTEGER = re.compile(r"0x[0-9a-fA-F]{1,40}|\d{1,40}")
_ADDRESS = r"(?:\d+\.\d+\.\d+\.\d+|[0-9a-fA-F]*:[0-9a-fA-F:.]+)"
_PREFIX = re.compile(rf"({_ADDRESS}|0x[0-9a-fA-F]+)/(\d+)")
_RANGE = re.compile(rf"({_ADDRESS}|0x[0-9a-fA-F]+|\d+)-({_ADDRESS}|0x[0-9a-fA-F]+|\d+)")
_DURATION = re.compile(r"(?:(\d+)w)?(?:(\d+)d)?(?:(\d+)h)?(?:(\d+)m(?!s))?(?:(\d+)s)?(?:(\d+)ms)?")
_SECONDS = (604800, 86400, 3600, 60, 1)
VERDICTS = ("accept", "drop", "continue", "return", "jump", "goto", "queue")


def duration(text: str) -> int:
    """``1d2h`` or ``59m59s996ms`` in whole seconds. Raises ValueError for another text."""
    match = _DURATION.fullmatch(text)
    if match is None or not text:
        raise ValueError(f"{text!r} is no time")
    return sum(
        int(count or 0) * size for count, size in zip(match.groups(), _SECONDS, strict=False)
    )


def literal(text: str) -> Json:
    """A value that is written as one word: number, address, prefix, range, name."""
    if _INTEGER.fullmatch(text):
        return integer(text)
    if prefix := _PREFIX.fullmatch(text):
        return {"prefix": {"addr": _end(prefix[1]), "len": int(prefix[2])}}
    if edges := _RANGE.fullmatch(text):
        return {"range": [_end(edges[1]), _end(edges[2])]}
    return text


def _end(text: str) -> Json:
    return integer(text) if _INTEGER.fullmatch(text) else text


def expression(tokens: Tokens) -> Json:
    """An expression with its operators, concatenations and maps."""
    key = _binary(tokens, 1)
    if tokens.accept("map"):
        return {"map": {"key": key, "data": mapping(tokens)}}
    return key


def concatenation(tokens: Tokens) -> Json:
    """``ip saddr . tcp dport``, or a single part of such."""
    parts = [_primary(tokens)]
    while tokens.accept("."):
        parts.append(_primary(tokens))
    return parts[0] if len(parts) == 1 else {"concat": parts}


def _binary(tokens: Tokens, least: int) -> Json:
    left = concatenation(tokens)
    while _BINARY.get(tokens.word, 0) >= least:
        sign = tokens.next().text
        right = _binary(tokens, _BINARY[sign] + 1)
        left = {sign: [left, right]}
    return left


def _primary(tokens: Tokens) -> Json:
    token = tokens.token
    if tokens.accept("("):
        inner = _binary(tokens, 1)
        tokens.expect(")")
        return inner
    if token.quoted:
        return _string(tokens)
    if token.text in ("@ll", "@nh", "@th", "@ih") and tokens.following == ",":
        return _raw_payload(tokens)
    parser = _PARSERS.get(token.text)
    if parser is not None:
        return parser(tokens)
    if token.text in _FIELDS and tokens.following in (*_FIELDS[token.text], "option"):
        return _header(tokens)
    if token.text in BARE_META:
        return {"meta": {"key": tokens.next().text}}
    if token.text in ("{", "}", ",", ")", END) or token.text in _BINARY:
        raise TextSyntaxError(token.line, f"{token.text!r} instead of an expression")
    return literal(tokens.next().text)


def _string(tokens: Tokens) -> Json:
    """A string, or a range of two: ``"10:00"-"12:00"``."""
    first = tokens.next().text
    if tokens.word == "-" and tokens.accept("-"):
        return {"range": [first, tokens.next().text]}
    return first


def _raw_payload(tokens: Tokens) -> Json:
    base = tokens.next().text.removeprefix("@")
    tokens.expect(",")
    offset = tokens.number()
    tokens.expect(",")
    return {"payload": {"base": base, "offset": offset, "len": tokens.number()}}


def _header(tokens: Tokens) -> Json:
    """``ip saddr``, ``ip option lsrr type``, ``tcp option maxseg size``."""
    name = tokens.next().text
    if name in ("ip", "tcp") and tokens.accept("option"):
        option: Json = {"name": tokens.next().text}
        if tokens.word not in ("exists", "missing"):
            option["field"] = tokens.next().text
        return {f"{name} option": option}
    return {"payload": {"protocol": name, "field": tokens.next().text}}


def _meta(tokens: Tokens) -> Json:
    tokens.expect("meta")
    return {"meta": {"key": tokens.next().text}}


def _ct(tokens: Tokens) -> Json:
    tokens.expect("ct")
    value: Json = {}
    if tokens.word in ("original", "reply"):
        value["dir"] = tokens.next().text
    family = f"{tokens.next().text} " if tokens.word in ("ip", "ip6") else ""
    return {"ct": {"key": family + tokens.next().text, **value}}


def _extension_header(tokens: Tokens) -> Json:
    name = tokens.next().text
    if name == "exthdr":
        return {"exthdr": {"name": tokens.next().text}}
    return {"exthdr": {"name": name, "field": tokens.next().text}}


def _route(tokens: Tokens) -> Json:
    """``rt classid`` asks the route, ``rt type`` the routing header."""
    if tokens.following not in (*_ROUTE_KEYS, "ip", "ip6"):
        return _extension_header(tokens)
    tokens.expect("rt")
    family = {"family": tokens.next().text} if tokens.word in ("ip", "ip6") else {}
    return {"rt": {"key": tokens.next().text, **family}}


def _fib(tokens: Tokens) -> Json:
    tokens.expect("fib")
    flags = [tokens.next().text]
    while tokens.accept("."):
        flags.append(tokens.next().text)
    return {"fib": {"result": tokens.next().text, "flags": flags}}


def _socket(tokens: Tokens) -> Json:
    tokens.expect("socket")
    return {"socket": {"key": tokens.next().text}}


def _numgen(tokens: Tokens) -> Json:
    tokens.expect("numgen")
    mode = tokens.next().text
    tokens.expect("mod")
    modulus = tokens.number()
    offset = tokens.number() if tokens.accept("offset") else 0
    return {"numgen": {"mode": mode, "mod": modulus, "offset": offset}}


def _hash(tokens: Tokens) -> Json:
    name = tokens.next().text
    value: Json = {"expr": concatenation(tokens)} if name == "jhash" else {}
    tokens.expect("mod")
    value["mod"] = tokens.number()
    for option in ("seed", "offset"):
        if tokens.accept(option):
            value[option] = tokens.number()
    return {name: value}


def _osf(tokens: Tokens) -> Json:
    tokens.expect("osf")
    return {"osf": {"key": tokens.next().text}}


_PARSERS: dict[str, Callable[[Tokens], Json]] = {
    "meta": _meta,
    "ct": _ct,
    "exthdr": _extension_header,
    **dict.fromkeys(_EXTENSION_HEADERS, _extension_header),
    "rt": _route,
    "fib": _fib,
    "socket": _socket,
    "numgen": _numgen,
    "jhash": _hash,
    "symhash": _hash,
    "osf": _osf,
}

# --- sets and maps ----------------------------------------------------------------------------


def mapping(tokens: Tokens) -> Json:
    """``@map`` or ``{ key : data, ... }``."""
    if tokens.word.startswith("@"):
        return tokens.next().text
    return {"set": elements(tokens)}


def elements(tokens: Tokens) -> list[Json]:
    """``{ element, ... }``, of a map ``{ element : data, ... }``."""
    tokens.expect("{")
    listed: list[Json] = []
    tokens.skip_lines()
    while not tokens.accept("}"):
        listed.append(_element(tokens))
        tokens.skip_lines()
        if not tokens.accept(","):
            tokens.skip_lines()
            tokens.expect("}")
            break
        tokens.skip_lines()
    return listed


def _element(tokens: Tokens) -> Json:
    key: Json = "*" if tokens.accept("*") else _binary(tokens, 1)
    attributes = _attributes(tokens)
    shown = {"elem": {"val": key, **attributes}} if attributes else key
    if not tokens.accept(":"):
        return shown
    data = datum(tokens)
    if later := _attributes(tokens):
        shown = {"elem": {"val": key, **attributes, **later}}
    return [shown, data]


def _attributes(tokens: Tokens) -> Json:
    """What stands behind the key of an element."""
    attributes: Json = {}
    while True:
        if tokens.accept("timeout"):
            attributes["timeout"] = seconds(tokens)
        elif tokens.accept("expires"):
            attributes["expires"] = seconds(tokens)
        elif tokens.accept("comment"):
            attributes["comment"] = tokens.next().text
        elif tokens.accept("counter"):
            attributes["counter"] = counter_value(tokens)
        else:
            return attributes


def seconds(tokens: Tokens) -> int:
    """Read a time. Raises TextSyntaxError for another token."""
    token = tokens.next()
    try:
        return duration(token.text)
    except ValueError as error:
        raise TextSyntaxError(token.line, str(error)) from None


def counter_value(tokens: Tokens) -> Json:
    """``packets N bytes N``; None if a stateless listing (``nft -s``) leaves them out."""
    if not tokens.accept("packets"):
        return None
    packets = tokens.number()
    tokens.expect("bytes")
    return {"packets": packets, "bytes": tokens.number()}


def datum(tokens: Tokens) -> Json:
    """The data of a map element: a verdict or a value."""
    if tokens.word in VERDICTS:
        return verdict(tokens)
    return concatenation(tokens)


def verdict(tokens: Tokens) -> Json:
    """A verdict, with its chain."""
    name = tokens.next().text
    if name in ("jump", "goto"):
        return {name: {"target": tokens.next().text}}
    return {name: None}
