"""Statements of nf_tables -> the JSON of ``nft -j``: what ``Delinearizer`` runs.

Each takes the machine and the expression's tree, and puts a statement out. One that raises is kept
as its tree.
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


def _ends(machine: Delinearizer, given: Tree, low: str, high: str, kind: str) -> Json:
    first = machine.operand(given[low], kind)
    if given.get(high, given[low]) == given[low]:
        return first
    return {"range": [first, machine.operand(given[high], kind)]}


def _nat(machine: Delinearizer, given: Tree) -> None:
    family, kind = _FAMILIES[given["family"]]
    bits = given.get("flags", 0)
    told: Json = {"family": family} if machine.family == "inet" else {}
    mapped = "reg_addr_min" in given and "map" in (machine.get(given["reg_addr_min"]).json or {})
    both = mapped and " . " in machine.get(given["reg_addr_min"]).kind
    if bits & _NETMAP and mapped:
        told |= {"family": family, "addr": machine.operand(given["reg_addr_min"], kind)}
        told |= {"flags": "netmap", "type_flags": "prefix"}
    elif both:
        told |= {"family": family, "addr": machine.operand(given["reg_addr_min"], kind)}
    else:
        if "reg_addr_min" in given:
            told["addr"] = _ends(machine, given, "reg_addr_min", "reg_addr_max", kind)
        told |= _port(machine, given)
    if _flags(bits):
        told["flags"] = _flags(bits)
    machine.out.append({("snat", "dnat")[given["type"]]: told or None})


def _port(machine: Delinearizer, given: Tree) -> Json:
    if "reg_proto_min" not in given:
        return {}
    ends = _ends(machine, given, "reg_proto_min", "reg_proto_max", "inet_service")
    return {"port": ends}


def _port_nat(name: str) -> Callable[[Delinearizer, Tree], None]:
    def read(machine: Delinearizer, given: Tree) -> None:
        told = _port(machine, given)
        if _flags(given.get("flags", 0)):
            told["flags"] = _flags(given["flags"])
        machine.out.append({name: told or None})

    return read


def _tproxy(machine: Delinearizer, given: Tree) -> None:
    told: Json = {}
    known = _FAMILIES.get(given["family"])
    if known and machine.family == "inet":
        told["family"] = known[0]
    if "reg_addr" in given:
        told["addr"] = machine.operand(given["reg_addr"], known[1] if known else "integer")
    if "reg_port" in given:
        told["port"] = machine.operand(given["reg_port"], "inet_service")
    machine.out.append({"tproxy": told})


# --- verdicts with a reply, counters, rates -----------------------------------------------------

_REJECTS = {"ip": ("icmp", "icmp_code"), "ip6": ("icmpv6", "icmpv6_code")}


def _reject(machine: Delinearizer, given: Tree) -> None:
    kind = given["type"]
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
    code = NAMES[codes][given["icmp_code"]]
    machine.out.append({"reject": {"type": name, "expr": code}})


def _counter(machine: Delinearizer, given: Tree) -> None:
    machine.out.append({"counter": _counts(given)})


def _counts(given: Tree) -> Json:
    return {"packets": given.get("packets", 0), "bytes": given.get("bytes", 0)}


_PER = {1: "second", 60: "minute", 3600: "hour", 86400: "day", 604800: "week"}
_SIZES = ((1 << 20, "mbytes"), (1 << 10, "kbytes"))


def _bytes(count: int) -> tuple[int, str]:
    for size, name in _SIZES:
        if count and not count % size:
            return count // size, name
    return count, "bytes"


def _limit(machine: Delinearizer, given: Tree) -> None:
    machine.out.append(limit(given))


def limit(given: Tree) -> Json:
    told: Json = {"rate": given["rate"], "burst": given.get("burst", 0)}
    told["per"] = _PER[given["unit"]]
    if given.get("flags", 0) & 1:
        told["inv"] = True
    if given.get("type") == 1:
        told["rate"], told["rate_unit"] = _bytes(given["rate"])
        told["burst"], told["burst_unit"] = _bytes(given.get("burst", 0))
    return {"limit": told}


def _quota(machine: Delinearizer, given: Tree) -> None:
    told: Json = {}
    told["val"], told["val_unit"] = _bytes(given["bytes"])
    if given.get("consumed"):
        told["used"], told["used_unit"] = _bytes(given["consumed"])
    if given.get("flags", 0) & 1:
        told["inv"] = True
    machine.out.append({"quota": told})


def _connlimit(machine: Delinearizer, given: Tree) -> None:
    told: Json = {"val": given["count"]}
    if given.get("flags", 0) & 1:
        told["inv"] = True
    machine.out.append({"ct count": told})


_LEVELS = ("emerg", "alert", "crit", "err", "warn", "notice", "info", "debug", "audit")
_LOG_FLAGS = (
    (1, "tcp sequence"),
    (2, "tcp options"),
    (4, "ip options"),
    (8, "skuid"),
    (32, "ether"),
)
_LOG_ALL, _LOG_WARN = 47, 4


def _log(machine: Delinearizer, given: Tree) -> None:
    told: Json = {key: given[key] for key in ("prefix", "group", "snaplen") if key in given}
    if "qthreshold" in given:
        told["queue-threshold"] = given["qthreshold"]
    if "group" not in given and given.get("level", _LOG_WARN) != _LOG_WARN:
        told["level"] = _LEVELS[given["level"]]
    bits = given.get("flags", 0)
    names = [name for bit, name in _LOG_FLAGS if bits & bit]
    if bits == _LOG_ALL:
        told["flags"] = "all"
    elif names:
        told["flags"] = names[0] if len(names) == 1 else names
    machine.out.append({"log": told or None})


def _queue(machine: Delinearizer, given: Tree) -> None:
    told: Json = {}
    first, total = given.get("num", 0), given.get("total", 1)
    if "sreg_qnum" in given:
        told["num"] = machine.operand(given["sreg_qnum"], "inet_service")
    elif first or total > 1:
        told["num"] = {"range": [first, first + total - 1]} if total > 1 else first
    names = [name for bit, name in ((1, "bypass"), (2, "fanout")) if given.get("flags", 0) & bit]
    if names:
        told["flags"] = names[0] if len(names) == 1 else names
    machine.out.append({"queue": told or None})


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


def _objref(machine: Delinearizer, given: Tree) -> None:
    if "name" in given:
        machine.out.append({_OBJECTS[given["type"]]: given["name"]})
        return
    found = machine.sets[given["set"]]
    _, key = machine.key(given["set_sreg"], found.size)
    told = {"map": {"key": key, "data": found.shown}}
    machine.out.append({_object_of(found): told})


def _object_of(found: SetInfo) -> str:
    """What an object map holds stands in its data's type, as ``object N``."""
    return _OBJECTS[int(found.data[0].removeprefix("object "))]


def _dynset(machine: Delinearizer, given: Tree) -> None:
    found = machine.sets[given["set"]]
    _, key = machine.key(given["sreg_key"], found.size)
    told: Json = {"op": ("add", "update", "delete")[given["op"]], "elem": key}
    if given.get("timeout"):
        told["elem"] = {"elem": {"val": key, "timeout": given["timeout"] // 1000}}
    name = "set"
    if "sreg_data" in given:
        name, told["data"] = "map", machine.operand(given["sreg_data"], " . ".join(found.data))
    told[name] = found.shown
    inner = given.get("expressions") or ([given["expr"]] if "expr" in given else [])
    if inner:
        told["stmt"] = [_inner(each) for each in inner]
    machine.out.append({name: told})


def _inner(each: Tree) -> Json:
    ((name, given),) = each.items()
    if name == "counter":
        return {"counter": None}
    if name == "limit":
        return limit(given)
    raise UnformattableValueError(name)


def _dup(machine: Delinearizer, given: Tree) -> None:
    told: Json = {"addr": machine.operand(given["sreg_addr"], machine.address_kind)}
    if "sreg_dev" in given:
        told["dev"] = machine.operand(given["sreg_dev"], "iface_index")
    machine.out.append({"dup": told})


def _fwd(machine: Delinearizer, given: Tree) -> None:
    if "sreg_addr" in given:
        raise UnformattableValueError("fwd")
    machine.out.append({"fwd": {"dev": machine.operand(given["sreg_dev"], "iface_index")}})


def _flow(machine: Delinearizer, given: Tree) -> None:
    machine.out.append({"flow": {"op": "add", "flowtable": f"@{given['table']}"}})


def _synproxy(machine: Delinearizer, given: Tree) -> None:
    bits = given.get("flags", 0)
    told: Json = {}
    if bits & 1:
        told["mss"] = given["mss"]
    if bits & 2:
        told["wscale"] = given["wscale"]
    names = [name for bit, name in ((8, "timestamp"), (4, "sack-perm")) if bits & bit]
    if names:
        told["flags"] = names[0] if len(names) == 1 else names
    machine.out.append({"synproxy": told or None})


def _notrack(machine: Delinearizer, given: Tree) -> None:
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
