"""Turn the statements of nf_tables into the JSON of ``nft -j``.

Each function takes the Delinearizer and the expression's tree, and adds a statement to its ``out``.
An expression for which it raises an error is kept as its tree.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from kptrace.rules.nftables.data_types import NAMES, UnformattableValueError
from kptrace.rules.nftables.delinearize import Delinearizer
from kptrace.rules.nftables.header_fields import NETWORK, TRANSPORT
from kptrace.rules.nftables.registers import Json, SetInfo

Tree = Mapping[str, Any]

# --- address translation ------------------------------------------------------------------------

_NAT_FLAGS = ((4, "random"), (16, "fully-random"), (8, "persistent"))
_NETMAP = 64
_FAMILIES = {2: ("ip", "ipv4_addr"), 10: ("ip6", "ipv6_addr")}


def _flags(bits: int) -> Json:
    names = [name for bit, name in _NAT_FLAGS if bits & bit]
    return names[0] if len(names) == 1 else names


def _ends(machine: Delinearizer, expr: Tree, low: str, high: str, kind: str) -> Json:
    first = machine.operand(expr[low], kind)
    if expr.get(high, expr[low]) == expr[low]:
        return first
    return {"range": [first, machine.operand(expr[high], kind)]}


def _nat(machine: Delinearizer, expr: Tree) -> None:
    family, kind = _FAMILIES[expr["family"]]
    bits = expr.get("flags", 0)
    options: Json = {"family": family} if machine.family == "inet" else {}
    mapped = "reg_addr_min" in expr and "map" in (machine.get(expr["reg_addr_min"]).json or {})
    both = mapped and " . " in machine.get(expr["reg_addr_min"]).kind
    if bits & _NETMAP and mapped:
        options |= {"family": family, "addr": machine.operand(expr["reg_addr_min"], kind)}
        options |= {"flags": "netmap", "type_flags": "prefix"}
    elif both:
        options |= {"family": family, "addr": machine.operand(expr["reg_addr_min"], kind)}
    else:
        if "reg_addr_min" in expr:
            options["addr"] = _ends(machine, expr, "reg_addr_min", "reg_addr_max", kind)
        options |= _port(machine, expr)
    if _flags(bits):
        options["flags"] = _flags(bits)
    machine.out.append({("snat", "dnat")[expr["type"]]: options or None})


def _port(machine: Delinearizer, expr: Tree) -> Json:
    if "reg_proto_min" not in expr:
        return {}
    ends = _ends(machine, expr, "reg_proto_min", "reg_proto_max", "inet_service")
    return {"port": ends}


def _port_nat(name: str) -> Callable[[Delinearizer, Tree], None]:
    def read(machine: Delinearizer, expr: Tree) -> None:
        options = _port(machine, expr)
        if _flags(expr.get("flags", 0)):
            options["flags"] = _flags(expr["flags"])
        machine.out.append({name: options or None})

    return read


def _tproxy(machine: Delinearizer, expr: Tree) -> None:
    options: Json = {}
    family = _FAMILIES.get(expr["family"])
    if family and machine.family == "inet":
        options["family"] = family[0]
    if "reg_addr" in expr:
        options["addr"] = machine.operand(expr["reg_addr"], family[1] if family else "integer")
    if "reg_port" in expr:
        options["port"] = machine.operand(expr["reg_port"], "inet_service")
    machine.out.append({"tproxy": options})


# --- verdicts with a reply, counters, rates -----------------------------------------------------

_REJECTS = {"ip": ("icmp", "icmp_code"), "ip6": ("icmpv6", "icmpv6_code")}


def _reject(machine: Delinearizer, expr: Tree) -> None:
    kind = expr["type"]
    if kind == 1:
        machine.forget(TRANSPORT)
        machine.out.append({"reject": {"type": "tcp reset"}})
        return
    if kind == 2:
        name, codes = "icmpx", "icmpx_code"
    else:
        name, codes = _REJECTS[machine.network]
        if machine.family not in _REJECTS:
            machine.forget(NETWORK)
    code = NAMES[codes][expr["icmp_code"]]
    machine.out.append({"reject": {"type": name, "expr": code}})


def _counter(machine: Delinearizer, expr: Tree) -> None:
    machine.out.append({"counter": _counts(expr)})


def _counts(expr: Tree) -> Json:
    return {"packets": expr.get("packets", 0), "bytes": expr.get("bytes", 0)}


_PER = {1: "second", 60: "minute", 3600: "hour", 86400: "day", 604800: "week"}
_SIZES = ((1 << 20, "mbytes"), (1 << 10, "kbytes"))


def _bytes(count: int) -> tuple[int, str]:
    for size, name in _SIZES:
        if count and not count % size:
            return count // size, name
    return count, "bytes"


def _limit(machine: Delinearizer, expr: Tree) -> None:
    machine.out.append(limit(expr))


def limit(expr: Tree) -> Json:
    """The JSON of a limit."""
    options: Json = {"rate": expr["rate"], "burst": expr.get("burst", 0)}
    options["per"] = _PER[expr["unit"]]
    if expr.get("flags", 0) & 1:
        options["inv"] = True
    if expr.get("type") == 1:
        options["rate"], options["rate_unit"] = _bytes(expr["rate"])
        options["burst"], options["burst_unit"] = _bytes(expr.get("burst", 0))
    return {"limit": options}


def _quota(machine: Delinearizer, expr: Tree) -> None:
    options: Json = {}
    options["val"], options["val_unit"] = _bytes(expr["bytes"])
    if expr.get("consumed"):
        options["used"], options["used_unit"] = _bytes(expr["consumed"])
    if expr.get("flags", 0) & 1:
        options["inv"] = True
    machine.out.append({"quota": options})


def _connlimit(machine: Delinearizer, expr: Tree) -> None:
    options: Json = {"val": expr["count"]}
    if expr.get("flags", 0) & 1:
        options["inv"] = True
    machine.out.append({"ct count": options})


_LEVELS = ("emerg", "alert", "crit", "err", "warn", "notice", "info", "debug", "audit")
_LOG_FLAGS = (
    (1, "tcp sequence"),
    (2, "tcp options"),
    (4, "ip options"),
    (8, "skuid"),
    (32, "ether"),
)
_LOG_ALL, _LOG_WARN = 47, 4


def _log(machine: Delinearizer, expr: Tree) -> None:
    options: Json = {key: expr[key] for key in ("prefix", "group", "snaplen") if key in expr}
    if "qthreshold" in expr:
        options["queue-threshold"] = expr["qthreshold"]
    if "group" not in expr and expr.get("level", _LOG_WARN) != _LOG_WARN:
        options["level"] = _LEVELS[expr["level"]]
    bits = expr.get("flags", 0)
    names = [name for bit, name in _LOG_FLAGS if bits & bit]
    if bits == _LOG_ALL:
        options["flags"] = "all"
    elif names:
        options["flags"] = names[0] if len(names) == 1 else names
    machine.out.append({"log": options or None})


def _queue(machine: Delinearizer, expr: Tree) -> None:
    options: Json = {}
    first, total = expr.get("num", 0), expr.get("total", 1)
    if "sreg_qnum" in expr:
        options["num"] = machine.operand(expr["sreg_qnum"], "inet_service")
    elif first or total > 1:
        options["num"] = {"range": [first, first + total - 1]} if total > 1 else first
    names = [name for bit, name in ((1, "bypass"), (2, "fanout")) if expr.get("flags", 0) & bit]
    if names:
        options["flags"] = names[0] if len(names) == 1 else names
    machine.out.append({"queue": options or None})


# --- objects, sets, copies ----------------------------------------------------------------------

_OBJECTS = {
    1: "counter",
    2: "quota",
    3: "ct helper",
    4: "limit",
    7: "ct timeout",
    8: "secmark",
    9: "ct expectation",
    10: "synproxy",
}


def _objref(machine: Delinearizer, expr: Tree) -> None:
    if "name" in expr:
        machine.out.append({_OBJECTS[expr["type"]]: expr["name"]})
        return
    set_info = machine.sets[expr["set"]]
    _, key = machine.key(expr["set_sreg"], set_info.size)
    options = {"map": {"key": key, "data": set_info.json}}
    machine.out.append({_object_of(set_info): options})


def _object_of(set_info: SetInfo) -> str:
    """The kind of objects in an object map, which its data type holds as ``object N``."""
    return _OBJECTS[int(set_info.data[0].removeprefix("object "))]


def _dynset(machine: Delinearizer, expr: Tree) -> None:
    set_info = machine.sets[expr["set"]]
    _, key = machine.key(expr["sreg_key"], set_info.size)
    options: Json = {"op": ("add", "update", "delete")[expr["op"]], "elem": key}
    if expr.get("timeout"):
        options["elem"] = {"elem": {"val": key, "timeout": expr["timeout"] // 1000}}
    name = "set"
    if "sreg_data" in expr:
        name, options["data"] = "map", machine.operand(expr["sreg_data"], " . ".join(set_info.data))
    options[name] = set_info.json
    inner = expr.get("expressions") or ([expr["expr"]] if "expr" in expr else [])
    if inner:
        options["stmt"] = [_inner(expression) for expression in inner]
    machine.out.append({name: options})


def _inner(expression: Tree) -> Json:
    ((name, expr),) = expression.items()
    if name == "counter":
        return {"counter": None}
    if name == "limit":
        return limit(expr)
    raise UnformattableValueError(name)


def _dup(machine: Delinearizer, expr: Tree) -> None:
    options: Json = {"addr": machine.operand(expr["sreg_addr"], machine.address_kind)}
    if "sreg_dev" in expr:
        options["dev"] = machine.operand(expr["sreg_dev"], "iface_index")
    machine.out.append({"dup": options})


def _fwd(machine: Delinearizer, expr: Tree) -> None:
    if "sreg_addr" in expr:
        raise UnformattableValueError("fwd")
    machine.out.append({"fwd": {"dev": machine.operand(expr["sreg_dev"], "iface_index")}})


def _flow(machine: Delinearizer, expr: Tree) -> None:
    machine.out.append({"flow": {"op": "add", "flowtable": f"@{expr['table']}"}})


def _synproxy(machine: Delinearizer, expr: Tree) -> None:
    bits = expr.get("flags", 0)
    options: Json = {}
    if bits & 1:
        options["mss"] = expr["mss"]
    if bits & 2:
        options["wscale"] = expr["wscale"]
    names = [name for bit, name in ((8, "timestamp"), (4, "sack-perm")) if bits & bit]
    if names:
        options["flags"] = names[0] if len(names) == 1 else names
    machine.out.append({"synproxy": options or None})


def _notrack(machine: Delinearizer, expr: Tree) -> None:
    machine.out.append({"notrack": None})


STATEMENTS: dict[str, Callable[[Delinearizer, Tree], None]] = {
    "connlimit": _connlimit,
    "counter": _counter,
    "dup": _dup,
    "dynset": _dynset,
    "flow_offload": _flow,
    "fwd": _fwd,
    "limit": _limit,
    "log": _log,
    "masq": _port_nat("masquerade"),
    "nat": _nat,
    "notrack": _notrack,
    "objref": _objref,
    "queue": _queue,
    "quota": _quota,
    "redir": _port_nat("redirect"),
    "reject": _reject,
    "synproxy": _synproxy,
    "tproxy": _tproxy,
}
