"""Format a rule of ``nft -j`` JSON as ``nft list ruleset`` prints it.

A person finds the rule on the node by this text. A statement without an entry in the table stays
JSON. The forms are those of nft (``*_stmt_print``, ``*_expr_print``); like nft they leave out
``addr . port`` if a map gives both.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence

from kptrace.rules.nftables.json_expressions import VERDICTS, Json, only_item


def line(statements: Sequence[Json], family: str, comment: str = "") -> str:
    """The text of a rule. A reject with the default reason of its family is printed without it."""
    usual = {"type": _REASONS.get(family, "icmpx"), "expr": "port-unreachable"}
    parts = ["reject" if item == {"reject": usual} else statement(item) for item in statements]
    if comment:
        parts.append(f'comment "{comment}"')
    return " ".join(parts)


_REASONS = {"ip": "icmp", "ip6": "icmpv6"}


def statement(tree: Json) -> str:
    """The text of one statement."""
    name, value = only_item(tree)
    printer = _STATEMENTS.get(name)
    try:
        if printer is not None:
            return printer(value)
    except (LookupError, TypeError, ValueError, AttributeError):
        pass
    return json.dumps(tree, sort_keys=True)


def expression(tree: Json, kind: str = "") -> str:
    """The text of an expression.

    ``kind``: the field that it is compared with; marks are in hexadecimal, names in quotes.
    """
    if isinstance(tree, bool):
        return "exists" if tree else "missing"
    if isinstance(tree, int):
        return f"0x{tree:08x}" if kind.endswith(" mark") else str(tree)
    if isinstance(tree, str):
        return f'"{tree}"' if kind in _QUOTED and not tree.startswith("@") else tree
    if isinstance(tree, list):
        return ",".join(expression(item, kind) for item in tree)
    name, value = only_item(tree)
    printer = _EXPRESSIONS.get(name)
    return printer(value, kind) if printer else json.dumps(tree, sort_keys=True)


_NAMES = ("iifname", "oifname", "iif", "oif", "meta ibrname", "meta obrname")
_QUOTED = frozenset({*_NAMES, "ct helper", "meta day"})
_BARE_META = ("iif", "oif", "iifname", "oifname", "iifgroup", "oifgroup")
_BINARY = {"<<": 1, ">>": 1, "&": 2, "^": 3, "|": 4}  # the lower binds the tighter
_BITMASKS = ("ct state", "ct status", "tcp flags")

# --- expressions ------------------------------------------------------------------------------


def _kind(tree: Json) -> str:
    """The text of the field whose values an expression has."""
    name, value = only_item(tree)
    if name in _BINARY:
        return _kind(value[0])
    return expression(tree) if name in ("meta", "ct", "payload") else ""


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
        left_kind = _kind(value[0]) or kind
        return f" {sign} ".join(_operand(item, left_kind, _BINARY[sign]) for item in value)

    return show


def _operand(tree: Json, kind: str, binding: int) -> str:
    if isinstance(tree, list):
        return "(" + " | ".join(expression(item, kind) for item in tree) + ")"
    text = expression(tree, kind)
    return f"({text})" if _BINARY.get(only_item(tree)[0], 0) > binding else text


def _set(value: Json, kind: str) -> str:
    if not value:
        return "{ }"
    return "{ " + ", ".join(_element(item, kind) for item in value) + " }"


def _element(tree: Json, kind: str) -> str:
    return expression(tree, kind)


def _pair(tree: Json, key: str, data: str) -> str:
    return f"{expression(tree[0], key)} : {_datum(tree[1], data)}"


def _datum(tree: Json, kind: str = "") -> str:
    if isinstance(tree, dict) and only_item(tree)[0] in VERDICTS:
        return statement(tree)
    return expression(tree, kind)


def _elem(value: Json, kind: str) -> str:
    parts = [expression(value["val"], kind)]
    if "timeout" in value:
        parts.append(f"timeout {duration(value['timeout'])}")
    if "expires" in value:
        parts.append(f"expires {duration(value['expires'])}")
    if "comment" in value:
        parts.append(f'comment "{value["comment"]}"')
    return " ".join(parts)


def duration(seconds: int) -> str:
    """A number of seconds as nft prints times: ``3h``, ``1d2h``."""
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
        parts = [name, *([expression(value["expr"])] if "expr" in value else [])]
        parts.append(f"mod {value['mod']}")
        parts += [f"{key} {value[key]}" for key in ("seed", "offset") if value.get(key)]
        return " ".join(parts)

    return show


def _fib(value: Json, kind: str) -> str:
    flags = value["flags"]
    return f"fib {flags if isinstance(flags, str) else ' . '.join(flags)} {value['result']}"


def _mapping(word: str) -> Callable[[Json, str], str]:
    def show(value: Json, kind: str) -> str:
        key_kind = _kind(value["key"])
        name, tree = only_item(value["data"])
        pairs = ", ".join(_pair(item, key_kind, kind) for item in tree) if name == "set" else ""
        data = f"{{ {pairs} }}" if pairs else expression(value["data"], key_kind)
        return f"{expression(value['key'])} {word} {data}"

    return show


_EXPRESSIONS: dict[str, Callable[[Json, str], str]] = {
    "payload": _payload,
    "meta": _meta,
    "ct": _ct,
    "rt": lambda value, _: f"rt {value['key']}",
    "socket": lambda value, _: f"socket {value['key']}",
    "exthdr": lambda value, _: " ".join(["exthdr", value["name"], value.get("field", "")]).strip(),
    "concat": lambda value, kind: " . ".join(expression(item, kind) for item in value),
    "prefix": lambda value, _: f"{value['addr']}/{value['len']}",
    "range": lambda value, kind: "-".join(expression(item, kind) for item in value),
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
    name, operands = only_item(left)
    if name == "&" and kind in _BITMASKS and op in ("==", "!=") and not isinstance(right, int):
        sign = "!= " if op == "!=" else ""
        expected, mask = expression(right, kind), expression(operands[1], kind)
        return f"{expression(operands[0])} {sign}{expected} / {mask}"
    shown = op
    if op == "in" or (op == "==" and not _says_equal(left, right, kind)):
        shown = ""
    return " ".join(word for word in (expression(left), shown, expression(right, kind)) if word)


def _says_equal(left: Json, right: Json, kind: str) -> bool:
    """Whether nft prints ``==``: only if leaving it out would mean "has one of these bits"."""
    return only_item(left)[0] in _BINARY or (kind in _BITMASKS and not isinstance(right, dict))


def _target(name: str) -> Callable[[Json], str]:
    return lambda value: f"{name} {value['target']}"


def _flags(value: Json) -> list[str]:
    flags = value.get("flags") or []
    return [flags if isinstance(flags, str) else ",".join(flags)] if flags else []


def _nat(name: str) -> Callable[[Json], str]:
    def show(value: Json) -> str:
        options = value or {}
        parts = [name, *([options["family"]] if "family" in options else [])]
        netmap = "netmap" in (options.get("flags") or ())
        parts += ["prefix"] if netmap else []
        address = expression(options["addr"]) if "addr" in options else ""
        port = f":{expression(options['port'])}" if "port" in options else ""
        if ":" in address and port and " " not in address:
            address = f"[{address}]"
        if address or port:
            parts.append(f"to {address}{port}")
        return " ".join([*parts, *(flag for flag in _flags(options) if flag != "netmap")])

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
    extra = "".join(f" {statement(item)}" for item in value.get("stmt", ()))
    return f"{value['op']} {name} {{ {expression(value['elem'])}{extra}{data} }}"


def _log(value: Json) -> str:
    options = value or {}
    parts = ["log"]
    for key in ("prefix", "group", "snaplen", "queue-threshold", "level"):
        if key in options:
            parts.append(f'prefix "{options[key]}"' if key == "prefix" else f"{key} {options[key]}")
    return " ".join([*parts, *(f"flags {flag}" for flag in _flags(options))])


def _mangle(value: Json) -> str:
    return f"{expression(value['key'])} set {expression(value['value'], _kind(value['key']))}"


def _tproxy(value: Json) -> str:
    return _nat("tproxy")(value)


def _queue(value: Json) -> str:
    options = value or {}
    flags = " ".join(["flags", *_flags(options)]) if options.get("flags") else ""
    number = f"to {expression(options['num'])}" if "num" in options else ""
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
