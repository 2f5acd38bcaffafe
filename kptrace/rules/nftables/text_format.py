"""One rule of ``nft -j`` JSON -> the line that ``nft list ruleset`` prints for it.

A person finds the rule on the node by these words. What is not in the tables stays JSON.
The forms are nft's own (``*_stmt_print``, ``*_expr_print``), among them its habit of leaving out
``addr . port`` where a map gives both.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence

from kptrace.rules.nftables.json_expressions import VERDICTS, Json, single


def line(statements: Sequence[Json], family: str, comment: str = "") -> str:
    """A reject that gives the family's default reason is printed without it."""
    usual = {"type": _REASONS.get(family, "icmpx"), "expr": "port-unreachable"}
    words = ["reject" if each == {"reject": usual} else statement(each) for each in statements]
    if comment:
        words.append(f'comment "{comment}"')
    return " ".join(words)


_REASONS = {"ip": "icmp", "ip6": "icmpv6"}


def statement(given: Json) -> str:
    name, value = single(given)
    printer = _STATEMENTS.get(name)
    try:
        if printer is not None:
            return printer(value)
    except (LookupError, TypeError, ValueError, AttributeError):
        pass
    return json.dumps(given, sort_keys=True)


def expression(given: Json, kind: str = "") -> str:
    """``kind``: what it is compared with; marks are printed in hexadecimal, names in quotes."""
    if isinstance(given, bool):
        return "exists" if given else "missing"
    if isinstance(given, int):
        return f"0x{given:08x}" if kind.endswith(" mark") else str(given)
    if isinstance(given, str):
        return f'"{given}"' if kind in _QUOTED and not given.startswith("@") else given
    if isinstance(given, list):
        return ",".join(expression(each, kind) for each in given)
    name, value = single(given)
    printer = _EXPRESSIONS.get(name)
    return printer(value, kind) if printer else json.dumps(given, sort_keys=True)


_NAMES = ("iifname", "oifname", "iif", "oif", "meta ibrname", "meta obrname")
_QUOTED = frozenset({*_NAMES, "ct helper", "meta day"})
_BARE_META = ("iif", "oif", "iifname", "oifname", "iifgroup", "oifgroup")
_BINARY = {"<<": 1, ">>": 1, "&": 2, "^": 3, "|": 4}  # the lower binds the tighter
_BITMASKS = ("ct state", "ct status", "tcp flags")

# --- expressions ------------------------------------------------------------------------------


def _kind(given: Json) -> str:
    """The field whose values an expression has, as printed."""
    name, value = single(given)
    if name in _BINARY:
        return _kind(value[0])
    return expression(given) if name in ("meta", "ct", "payload") else ""


def _meta(value: Json, kind: str) -> str:
    return value["key"] if value["key"] in _BARE_META else f"meta {value['key']}"


def _payload(value: Json, kind: str) -> str:
    if "base" in value:
        return f"@{value['base']},{value['offset']},{value['len']}"
    return f"{value['protocol']} {value['field']}"


def _ct(value: Json, kind: str) -> str:
    return " ".join(["ct", *([value["dir"]] if "dir" in value else []), value["key"]])


def _binary(sign: str) -> Callable[[Json, str], str]:
    def show(value: Json, kind: str) -> str:
        own = _kind(value[0]) or kind
        return f" {sign} ".join(_operand(each, own, _BINARY[sign]) for each in value)

    return show


def _operand(given: Json, kind: str, binding: int) -> str:
    if isinstance(given, list):
        return "(" + " | ".join(expression(each, kind) for each in given) + ")"
    text = expression(given, kind)
    return f"({text})" if _BINARY.get(single(given)[0], 0) > binding else text


def _set(value: Json, kind: str) -> str:
    if not value:
        return "{ }"
    return "{ " + ", ".join(_element(each, kind) for each in value) + " }"


def _element(given: Json, kind: str) -> str:
    return expression(given, kind)


def _pair(given: Json, key: str, data: str) -> str:
    return f"{expression(given[0], key)} : {_datum(given[1], data)}"


def _datum(given: Json, kind: str = "") -> str:
    if isinstance(given, dict) and single(given)[0] in VERDICTS:
        return statement(given)
    return expression(given, kind)


def _elem(value: Json, kind: str) -> str:
    words = [expression(value["val"], kind)]
    if "timeout" in value:
        words.append(f"timeout {duration(value['timeout'])}")
    if "expires" in value:
        words.append(f"expires {duration(value['expires'])}")
    if "comment" in value:
        words.append(f'comment "{value["comment"]}"')
    return " ".join(words)


def duration(seconds: int) -> str:
    """``3h``, ``1d2h``: as nft prints times."""
    units = (("d", 86400), ("h", 3600), ("m", 60), ("s", 1))
    text = ""
    for unit, size in units:
        count, seconds = divmod(seconds, size)
        text += f"{count}{unit}" if count else ""
    return text or "0s"


def _numgen(value: Json, kind: str) -> str:
    offset = f" offset {value['offset']}" if value.get("offset") else ""
    return f"numgen {value['mode']} mod {value['mod']}{offset}"


def _hash(name: str) -> Callable[[Json, str], str]:
    def show(value: Json, kind: str) -> str:
        words = [name, *([expression(value["expr"])] if "expr" in value else [])]
        words.append(f"mod {value['mod']}")
        words += [f"{key} {value[key]}" for key in ("seed", "offset") if value.get(key)]
        return " ".join(words)

    return show


def _fib(value: Json, kind: str) -> str:
    flags = value["flags"]
    return f"fib {flags if isinstance(flags, str) else ' . '.join(flags)} {value['result']}"


def _mapping(word: str) -> Callable[[Json, str], str]:
    def show(value: Json, kind: str) -> str:
        own = _kind(value["key"])
        name, given = single(value["data"])
        pairs = ", ".join(_pair(each, own, kind) for each in given) if name == "set" else ""
        data = f"{{ {pairs} }}" if pairs else expression(value["data"], own)
        return f"{expression(value['key'])} {word} {data}"

    return show


_EXPRESSIONS: dict[str, Callable[[Json, str], str]] = {
    "payload": _payload,
    "meta": _meta,
    "ct": _ct,
    "rt": lambda value, _: f"rt {value['key']}",
    "socket": lambda value, _: f"socket {value['key']}",
    "exthdr": lambda value, _: " ".join(["exthdr", value["name"], value.get("field", "")]).strip(),
    "concat": lambda value, kind: " . ".join(expression(each, kind) for each in value),
    "prefix": lambda value, _: f"{value['addr']}/{value['len']}",
    "range": lambda value, kind: "-".join(expression(each, kind) for each in value),
    "set": _set,
    "elem": _elem,
    "map": _mapping("map"),
    "numgen": _numgen,
    "jhash": _hash("jhash"),
    "symhash": _hash("symhash"),
    "fib": _fib,
    **{sign: _binary(sign) for sign in _BINARY},
}

# --- statements -------------------------------------------------------------------------------


def _match(value: Json) -> str:
    left, right, op = value["left"], value["right"], value["op"]
    kind = _kind(left)
    name, operands = single(left)
    if name == "&" and kind in _BITMASKS and op in ("==", "!=") and not isinstance(right, int):
        sign = "!= " if op == "!=" else ""
        wanted, mask = expression(right, kind), expression(operands[1], kind)
        return f"{expression(operands[0])} {sign}{wanted} / {mask}"
    shown = op
    if op == "in" or (op == "==" and not _says_equal(left, right, kind)):
        shown = ""
    return " ".join(word for word in (expression(left), shown, expression(right, kind)) if word)


def _says_equal(left: Json, right: Json, kind: str) -> bool:
    """nft prints ``==`` only where leaving it out would mean "has one of these bits"."""
    return single(left)[0] in _BINARY or (kind in _BITMASKS and not isinstance(right, dict))


def _target(name: str) -> Callable[[Json], str]:
    return lambda value: f"{name} {value['target']}"


def _flags(value: Json) -> list[str]:
    flags = value.get("flags") or []
    return [flags if isinstance(flags, str) else ",".join(flags)] if flags else []


def _nat(name: str) -> Callable[[Json], str]:
    def show(value: Json) -> str:
        given = value or {}
        words = [name, *([given["family"]] if "family" in given else [])]
        netmap = "netmap" in (given.get("flags") or ())
        words += ["prefix"] if netmap else []
        address = expression(given["addr"]) if "addr" in given else ""
        port = f":{expression(given['port'])}" if "port" in given else ""
        if ":" in address and port and " " not in address:
            address = f"[{address}]"
        if address or port:
            words.append(f"to {address}{port}")
        return " ".join([*words, *(flag for flag in _flags(given) if flag != "netmap")])

    return show


def _reject(value: Json) -> str:
    if value is None:
        return "reject"
    if value.get("type") == "tcp reset":
        return "reject with tcp reset"
    kind, code = value.get("type", "icmpx"), value.get("expr", "port-unreachable")
    return f"reject with {kind} {code}"


def _counter(value: Json) -> str:
    if isinstance(value, str):
        return f'counter name "{value}"'
    return f"counter packets {value['packets']} bytes {value['bytes']}" if value else "counter"


def _limit(value: Json) -> str:
    if isinstance(value, str):
        return f'limit name "{value}"'
    unit = f" {value['rate_unit']}" if value.get("rate_unit", "packets") != "packets" else ""
    over = "over " if value.get("inv") else ""
    burst = f" burst {value['burst']} packets" if value.get("burst") and not unit else ""
    return f"limit rate {over}{value['rate']}{unit}/{value['per']}{burst}"


def _update(value: Json) -> str:
    name = value.get("set") or value["map"]
    data = f" : {_datum(value['data'])}" if "data" in value else ""
    extra = "".join(f" {statement(each)}" for each in value.get("stmt", ()))
    return f"{value['op']} {name} {{ {expression(value['elem'])}{extra}{data} }}"


def _log(value: Json) -> str:
    given = value or {}
    words = ["log"]
    for key in ("prefix", "group", "snaplen", "queue-threshold", "level"):
        if key in given:
            words.append(f'prefix "{given[key]}"' if key == "prefix" else f"{key} {given[key]}")
    return " ".join([*words, *(f"flags {flag}" for flag in _flags(given))])


def _mangle(value: Json) -> str:
    return f"{expression(value['key'])} set {expression(value['value'], _kind(value['key']))}"


def _tproxy(value: Json) -> str:
    return _nat("tproxy")(value)


def _queue(value: Json) -> str:
    given = value or {}
    flags = " ".join(["flags", *_flags(given)]) if given.get("flags") else ""
    number = f"to {expression(given['num'])}" if "num" in given else ""
    return " ".join(word for word in ("queue", flags, number) if word)


def _quoted(name: str) -> Callable[[Json], str]:
    return lambda value: f'{name} set "{value}"'


def _quota(value: Json) -> str:
    return f"quota {'over ' if value.get('inv') else ''}{value['val']} {value['val_unit']}"


def _ct_count(value: Json) -> str:
    return f"ct count {'over ' if value.get('inv') else ''}{value['val']}"


def _bare(name: str) -> Callable[[Json], str]:
    return lambda value: name


_STATEMENTS: dict[str, Callable[[Json], str]] = {
    "match": _match,
    "vmap": lambda value: _mapping("vmap")(value, ""),
    **{name: _bare(name) for name in ("accept", "drop", "continue", "return", "notrack")},
    "jump": _target("jump"),
    "goto": _target("goto"),
    "queue": _queue,
    "dnat": _nat("dnat"),
    "snat": _nat("snat"),
    "masquerade": _nat("masquerade"),
    "redirect": _nat("redirect"),
    "reject": _reject,
    "mangle": _mangle,
    "counter": _counter,
    "limit": _limit,
    "set": _update,
    "map": _update,
    "tproxy": _tproxy,
    "log": _log,
    "quota": _quota,
    "ct count": _ct_count,
    "fwd": lambda value: f"fwd to {expression(value['dev'], 'oif')}",
    "ct helper": _quoted("ct helper"),
    "ct timeout": _quoted("ct timeout"),
    "flow": lambda value: f"flow {value['op']} {value['flowtable']}",
}
