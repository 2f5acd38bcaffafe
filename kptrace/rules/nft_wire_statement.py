"""Lookups, generators and statements of nf_tables -> the JSON of ``nft -j``: what ``Machine`` runs.

Each takes the machine and the expression's tree, and puts a value into a register or a statement
out. One that raises is kept as its tree by the machine.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from kptrace.rules.blob import unhex
from kptrace.rules.nft_fields import NETWORK, TRANSPORT
from kptrace.rules.nft_machine import Json, Loaded, Machine, SetTold
from kptrace.rules.nft_types import NAMES, Unprintable

Tree = Mapping[str, Any]

# --- values -------------------------------------------------------------------------------------


def _lookup(machine: Machine, given: Tree) -> None:
    found = machine.sets[given["set"]]
    _, key = machine.key(given["sreg"], found.size)
    if "dreg" not in given:
        sign = "!=" if given.get("flags", 0) & 1 else "=="
        machine.match(key, sign, found.shown)
    elif given["dreg"] == 0:
        machine.out.append({"vmap": {"key": key, "data": found.shown}})
    else:
        told = {"map": {"key": key, "data": found.shown}}
        machine.put(given["dreg"], Loaded(json=told, kind=" . ".join(found.data)))


def _range(machine: Machine, given: Tree) -> None:
    loaded = machine.get(given["sreg"])
    ends = [machine.right(unhex(given[end]), loaded) for end in ("from", "to")]
    sign = "!=" if given["op"] == 1 else "=="
    machine.match(machine.expression(loaded), sign, {"range": ends})


def _numgen(machine: Machine, given: Tree) -> None:
    mode = ("inc", "random")[given["type"]]
    told = {"mode": mode, "mod": given["modulus"], "offset": given.get("offset", 0)}
    machine.put(given["dreg"], Loaded(json={"numgen": told}, kind="host"))


def _hash(machine: Machine, given: Tree) -> None:
    told: Json = {"mod": given["modulus"]}
    if "seed" in given:
        told["seed"] = given["seed"]
    if given.get("offset"):
        told["offset"] = given["offset"]
    name = "symhash" if given.get("type") == 1 else "jhash"
    if name == "jhash":
        told["expr"] = machine.key(given["sreg"], given["len"])[1]
    machine.put(given["dreg"], Loaded(json={name: told}, kind="host"))


_FIB_FLAGS = ((1, "saddr"), (2, "daddr"), (4, "mark"), (8, "iif"), (16, "oif"))
_FIB_RESULTS = {1: ("oif", "iface_index"), 2: ("oifname", "ifname"), 3: ("type", "fib_addrtype")}
_FIB_PRESENT = 32


def _fib(machine: Machine, given: Tree) -> None:
    result, kind = _FIB_RESULTS[given["result"]]
    flags = [name for bit, name in _FIB_FLAGS if given["flags"] & bit]
    if given["flags"] & _FIB_PRESENT:
        kind = "boolean"
    told = {"fib": {"result": result, "flags": flags}}
    machine.put(given["dreg"], Loaded(json=told, kind=kind))


_SOCKET = {0: ("transparent", "host"), 1: ("mark", "mark"), 2: ("wildcard", "host")}


def _socket(machine: Machine, given: Tree) -> None:
    name, kind = _SOCKET[given["key"]]
    machine.put(given["dreg"], Loaded(json={"socket": {"key": name}}, kind=kind))


_RT: dict[int, tuple[Json, str]] = {
    0: ({"key": "classid"}, "realm"),
    1: ({"key": "nexthop", "family": "ip"}, "ipv4_addr"),
    2: ({"key": "nexthop", "family": "ip6"}, "ipv6_addr"),
    3: ({"key": "mtu"}, "host"),
    4: ({"key": "ipsec"}, "boolean"),
}


def _rt(machine: Machine, given: Tree) -> None:
    told, kind = _RT[given["key"]]
    machine.put(given["dreg"], Loaded(json={"rt": dict(told)}, kind=kind))


_TCP_OPTIONS = {2: "maxseg", 3: "window", 4: "sack-perm", 5: "sack", 8: "timestamp"}
_OPTION_FIELDS = {
    ("maxseg", 2): "size",
    ("window", 2): "count",
    **{(name, 0): "nexthdr" for name in ("hbh", "rt", "frag", "dst", "mh")},
    **{(name, 1): "hdrlength" for name in ("hbh", "rt", "dst", "mh")},
    ("rt", 2): "type",
    ("rt", 3): "seg-left",
    ("frag", 4): "id",
    ("mh", 2): "type",
}
_HEADERS = {0: "hbh", 43: "rt", 44: "frag", 60: "dst", 135: "mh"}
_IPV6, _TCP = 0, 1


def _exthdr(machine: Machine, given: Tree) -> None:
    names = {_IPV6: _HEADERS, _TCP: _TCP_OPTIONS}[given["op"]]
    name = names[given["type"]]
    key = "exthdr" if given["op"] == _IPV6 else "tcp option"
    if given["op"] == _IPV6:
        machine.imply(NETWORK, "ip6")
    if given.get("flags", 0) & 1:
        machine.put(given["dreg"], Loaded(json={key: {"name": name}}, kind="boolean"))
        return
    told = {key: {"name": name, "field": _OPTION_FIELDS[name, given["offset"]]}}
    if "sreg" in given:
        machine.assign(told, "integer", given["sreg"])
    else:
        machine.put(given["dreg"], Loaded(json=told))


# --- address translation ------------------------------------------------------------------------

_NAT_FLAGS = ((4, "random"), (16, "fully-random"), (8, "persistent"))
_NETMAP = 64
_FAMILIES = {2: ("ip", "ipv4_addr"), 10: ("ip6", "ipv6_addr")}


def _flags(bits: int) -> Json:
    names = [name for bit, name in _NAT_FLAGS if bits & bit]
    return names[0] if len(names) == 1 else names


def _ends(machine: Machine, given: Tree, low: str, high: str, kind: str) -> Json:
    first = machine.operand(given[low], kind)
    if given.get(high, given[low]) == given[low]:
        return first
    return {"range": [first, machine.operand(given[high], kind)]}


def _nat(machine: Machine, given: Tree) -> None:
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


def _port(machine: Machine, given: Tree) -> Json:
    if "reg_proto_min" not in given:
        return {}
    ends = _ends(machine, given, "reg_proto_min", "reg_proto_max", "inet_service")
    return {"port": ends}


def _port_nat(name: str) -> Callable[[Machine, Tree], None]:
    def read(machine: Machine, given: Tree) -> None:
        told = _port(machine, given)
        if _flags(given.get("flags", 0)):
            told["flags"] = _flags(given["flags"])
        machine.out.append({name: told or None})

    return read


def _tproxy(machine: Machine, given: Tree) -> None:
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


def _reject(machine: Machine, given: Tree) -> None:
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


def _counter(machine: Machine, given: Tree) -> None:
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


def _limit(machine: Machine, given: Tree) -> None:
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


def _quota(machine: Machine, given: Tree) -> None:
    told: Json = {}
    told["val"], told["val_unit"] = _bytes(given["bytes"])
    if given.get("consumed"):
        told["used"], told["used_unit"] = _bytes(given["consumed"])
    if given.get("flags", 0) & 1:
        told["inv"] = True
    machine.out.append({"quota": told})


def _connlimit(machine: Machine, given: Tree) -> None:
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


def _log(machine: Machine, given: Tree) -> None:
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


def _queue(machine: Machine, given: Tree) -> None:
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


def _objref(machine: Machine, given: Tree) -> None:
    if "name" in given:
        machine.out.append({_OBJECTS[given["type"]]: given["name"]})
        return
    found = machine.sets[given["set"]]
    _, key = machine.key(given["set_sreg"], found.size)
    told = {"map": {"key": key, "data": found.shown}}
    machine.out.append({_object_of(found): told})


def _object_of(found: SetTold) -> str:
    """What an object map holds stands in its data's type, as ``object N``."""
    return _OBJECTS[int(found.data[0].removeprefix("object "))]


def _dynset(machine: Machine, given: Tree) -> None:
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
    raise Unprintable(name)


def _dup(machine: Machine, given: Tree) -> None:
    told: Json = {"addr": machine.operand(given["sreg_addr"], machine.address_kind)}
    if "sreg_dev" in given:
        told["dev"] = machine.operand(given["sreg_dev"], "iface_index")
    machine.out.append({"dup": told})


def _fwd(machine: Machine, given: Tree) -> None:
    if "sreg_addr" in given:
        raise Unprintable("fwd")
    machine.out.append({"fwd": {"dev": machine.operand(given["sreg_dev"], "iface_index")}})


def _flow(machine: Machine, given: Tree) -> None:
    machine.out.append({"flow": {"op": "add", "flowtable": f"@{given['table']}"}})


def _synproxy(machine: Machine, given: Tree) -> None:
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


def _notrack(machine: Machine, given: Tree) -> None:
    machine.out.append({"notrack": None})


STATEMENTS: dict[str, Callable[[Machine, Tree], None]] = {
    "connlimit": _connlimit,
    "counter": _counter,
    "dup": _dup,
    "dynset": _dynset,
    "exthdr": _exthdr,
    "fib": _fib,
    "flow_offload": _flow,
    "fwd": _fwd,
    "hash": _hash,
    "limit": _limit,
    "log": _log,
    "lookup": _lookup,
    "masq": _port_nat("masquerade"),
    "nat": _nat,
    "notrack": _notrack,
    "numgen": _numgen,
    "objref": _objref,
    "queue": _queue,
    "quota": _quota,
    "range": _range,
    "redir": _port_nat("redirect"),
    "reject": _reject,
    "rt": _rt,
    "socket": _socket,
    "synproxy": _synproxy,
    "tproxy": _tproxy,
}
