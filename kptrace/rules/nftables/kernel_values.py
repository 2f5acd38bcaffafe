"""Turn the lookups and generators of nf_tables into the JSON of ``nft -j``.

Each function takes the Delinearizer and the expression's tree, and puts a value into a register or
adds a match to ``out``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from kptrace.rules.byte_reader import decode_hex
from kptrace.rules.nftables.delinearize import Delinearizer
from kptrace.rules.nftables.header_fields import NETWORK
from kptrace.rules.nftables.registers import Json, RegisterValue

Tree = Mapping[str, Any]


def _lookup(machine: Delinearizer, expr: Tree) -> None:
    set_info = machine.sets[expr["set"]]
    _, key = machine.key(expr["sreg"], set_info.size)
    if "dreg" not in expr:
        sign = "!=" if expr.get("flags", 0) & 1 else "=="
        machine.match(key, sign, set_info.json)
    elif expr["dreg"] == 0:
        machine.out.append({"vmap": {"key": key, "data": set_info.json}})
    else:
        options = {"map": {"key": key, "data": set_info.json}}
        machine.put(expr["dreg"], RegisterValue(json=options, kind=" . ".join(set_info.data)))


def _range(machine: Delinearizer, expr: Tree) -> None:
    loaded = machine.get(expr["sreg"])
    ends = [machine.right(decode_hex(expr[end]), loaded) for end in ("from", "to")]
    sign = "!=" if expr["op"] == 1 else "=="
    machine.match(machine.expression(loaded), sign, {"range": ends})


def _numgen(machine: Delinearizer, expr: Tree) -> None:
    mode = ("inc", "random")[expr["type"]]
    options = {"mode": mode, "mod": expr["modulus"], "offset": expr.get("offset", 0)}
    machine.put(expr["dreg"], RegisterValue(json={"numgen": options}, kind="host"))


def _hash(machine: Delinearizer, expr: Tree) -> None:
    options: Json = {"mod": expr["modulus"]}
    if "seed" in expr:
        options["seed"] = expr["seed"]
    if expr.get("offset"):
        options["offset"] = expr["offset"]
    name = "symhash" if expr.get("type") == 1 else "jhash"
    if name == "jhash":
        options["expr"] = machine.key(expr["sreg"], expr["len"])[1]
    machine.put(expr["dreg"], RegisterValue(json={name: options}, kind="host"))


_FIB_FLAGS = ((1, "saddr"), (2, "daddr"), (4, "mark"), (8, "iif"), (16, "oif"))
_FIB_RESULTS = {1: ("oif", "iface_index"), 2: ("oifname", "ifname"), 3: ("type", "fib_addrtype")}
_FIB_PRESENT = 32


def _fib(machine: Delinearizer, expr: Tree) -> None:
    result, kind = _FIB_RESULTS[expr["result"]]
    flags = [name for bit, name in _FIB_FLAGS if expr["flags"] & bit]
    if expr["flags"] & _FIB_PRESENT:
        kind = "boolean"
    options = {"fib": {"result": result, "flags": flags}}
    machine.put(expr["dreg"], RegisterValue(json=options, kind=kind))


_SOCKET = {0: ("transparent", "host"), 1: ("mark", "mark"), 2: ("wildcard", "host")}


def _socket(machine: Delinearizer, expr: Tree) -> None:
    name, kind = _SOCKET[expr["key"]]
    machine.put(expr["dreg"], RegisterValue(json={"socket": {"key": name}}, kind=kind))


_RT: dict[int, tuple[Json, str]] = {
    0: ({"key": "classid"}, "realm"),
    1: ({"key": "nexthop", "family": "ip"}, "ipv4_addr"),
    2: ({"key": "nexthop", "family": "ip6"}, "ipv6_addr"),
    3: ({"key": "mtu"}, "host"),
    4: ({"key": "ipsec"}, "boolean"),
}


def _rt(machine: Delinearizer, expr: Tree) -> None:
    options, kind = _RT[expr["key"]]
    machine.put(expr["dreg"], RegisterValue(json={"rt": dict(options)}, kind=kind))


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


def _exthdr(machine: Delinearizer, expr: Tree) -> None:
    names = {_IPV6: _HEADERS, _TCP: _TCP_OPTIONS}[expr["op"]]
    name = names[expr["type"]]
    key = "exthdr" if expr["op"] == _IPV6 else "tcp option"
    if expr["op"] == _IPV6:
        machine.imply(NETWORK, "ip6")
    if expr.get("flags", 0) & 1:
        machine.put(expr["dreg"], RegisterValue(json={key: {"name": name}}, kind="boolean"))
        return
    options = {key: {"name": name, "field": _OPTION_FIELDS[name, expr["offset"]]}}
    if "sreg" in expr:
        machine.assign(options, "integer", expr["sreg"])
    else:
        machine.put(expr["dreg"], RegisterValue(json=options))


VALUES: dict[str, Callable[[Delinearizer, Tree], None]] = {
    "exthdr": _exthdr,
    "fib": _fib,
    "hash": _hash,
    "lookup": _lookup,
    "numgen": _numgen,
    "range": _range,
    "rt": _rt,
    "socket": _socket,
}
