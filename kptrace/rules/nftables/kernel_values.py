"""Lookups and generators of nf_tables -> the JSON of ``nft -j``: what ``Delinearizer`` runs.

Each takes the machine and the expression's tree, and puts a value into a register, or a match out.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from kptrace.rules.byte_reader import unhex
from kptrace.rules.nftables.delinearize import Delinearizer
from kptrace.rules.nftables.header_fields import NETWORK
from kptrace.rules.nftables.registers import Json, RegisterValue

Tree = Mapping[str, Any]


def _lookup(machine: Delinearizer, given: Tree) -> None:
    found = machine.sets[given["set"]]
    _, key = machine.key(given["sreg"], found.size)
    if "dreg" not in given:
        sign = "!=" if given.get("flags", 0) & 1 else "=="
        machine.match(key, sign, found.shown)
    elif given["dreg"] == 0:
        machine.out.append({"vmap": {"key": key, "data": found.shown}})
    else:
        told = {"map": {"key": key, "data": found.shown}}
        machine.put(given["dreg"], RegisterValue(json=told, kind=" . ".join(found.data)))


def _range(machine: Delinearizer, given: Tree) -> None:
    loaded = machine.get(given["sreg"])
    ends = [machine.right(unhex(given[end]), loaded) for end in ("from", "to")]
    sign = "!=" if given["op"] == 1 else "=="
    machine.match(machine.expression(loaded), sign, {"range": ends})


def _numgen(machine: Delinearizer, given: Tree) -> None:
    mode = ("inc", "random")[given["type"]]
    told = {"mode": mode, "mod": given["modulus"], "offset": given.get("offset", 0)}
    machine.put(given["dreg"], RegisterValue(json={"numgen": told}, kind="host"))


def _hash(machine: Delinearizer, given: Tree) -> None:
    told: Json = {"mod": given["modulus"]}
    if "seed" in given:
        told["seed"] = given["seed"]
    if given.get("offset"):
        told["offset"] = given["offset"]
    name = "symhash" if given.get("type") == 1 else "jhash"
    if name == "jhash":
        told["expr"] = machine.key(given["sreg"], given["len"])[1]
    machine.put(given["dreg"], RegisterValue(json={name: told}, kind="host"))


_FIB_FLAGS = ((1, "saddr"), (2, "daddr"), (4, "mark"), (8, "iif"), (16, "oif"))
_FIB_RESULTS = {1: ("oif", "iface_index"), 2: ("oifname", "ifname"), 3: ("type", "fib_addrtype")}
_FIB_PRESENT = 32


def _fib(machine: Delinearizer, given: Tree) -> None:
    result, kind = _FIB_RESULTS[given["result"]]
    flags = [name for bit, name in _FIB_FLAGS if given["flags"] & bit]
    if given["flags"] & _FIB_PRESENT:
        kind = "boolean"
    told = {"fib": {"result": result, "flags": flags}}
    machine.put(given["dreg"], RegisterValue(json=told, kind=kind))


_SOCKET = {0: ("transparent", "host"), 1: ("mark", "mark"), 2: ("wildcard", "host")}


def _socket(machine: Delinearizer, given: Tree) -> None:
    name, kind = _SOCKET[given["key"]]
    machine.put(given["dreg"], RegisterValue(json={"socket": {"key": name}}, kind=kind))


_RT: dict[int, tuple[Json, str]] = {
    0: ({"key": "classid"}, "realm"),
    1: ({"key": "nexthop", "family": "ip"}, "ipv4_addr"),
    2: ({"key": "nexthop", "family": "ip6"}, "ipv6_addr"),
    3: ({"key": "mtu"}, "host"),
    4: ({"key": "ipsec"}, "boolean"),
}


def _rt(machine: Delinearizer, given: Tree) -> None:
    told, kind = _RT[given["key"]]
    machine.put(given["dreg"], RegisterValue(json={"rt": dict(told)}, kind=kind))


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


def _exthdr(machine: Delinearizer, given: Tree) -> None:
    names = {_IPV6: _HEADERS, _TCP: _TCP_OPTIONS}[given["op"]]
    name = names[given["type"]]
    key = "exthdr" if given["op"] == _IPV6 else "tcp option"
    if given["op"] == _IPV6:
        machine.imply(NETWORK, "ip6")
    if given.get("flags", 0) & 1:
        machine.put(given["dreg"], RegisterValue(json={key: {"name": name}}, kind="boolean"))
        return
    told = {key: {"name": name, "field": _OPTION_FIELDS[name, given["offset"]]}}
    if "sreg" in given:
        machine.assign(told, "integer", given["sreg"])
    else:
        machine.put(given["dreg"], RegisterValue(json=told))


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
