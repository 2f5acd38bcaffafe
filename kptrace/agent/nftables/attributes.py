"""nf_tables' netlink attributes -> trees of named values, as JSON can hold them. No meaning yet.

In: attributes of a rule, chain, set or element as the kernel sends them. Out: ``{name: value}``
with the kernel's own names (``NFTA_PAYLOAD_OFFSET`` is ``offset``): numbers as int, texts as str,
bytes in hexadecimal, an expression as ``{"payload": {...}}``. What they mean is the matter of
``rules/nftables/kernel_rule.py``, so a saved run can be read anew by a later version.

A schema names the attributes of one message in the order of their numbers, from 1
(linux/netfilter/nf_tables.h): ``name`` is a number, ``name:kind`` something else. Numbers are
big-endian whatever their width. An attribute that a schema lacks is kept as ``attribute N``.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

from kptrace.agent.netlink.socket import attribute_list, number, string
from kptrace.rules.byte_reader import encode_hex

Tree = dict[str, Any]
_Schema = tuple[tuple[str, str], ...]

TABLE = "name:text flags use handle - userdata:hex owner"
CHAIN = (
    "table:text handle name:text hook:hook policy use type:text counters:counters - flags id "
    "userdata:hex"
)
RULE = "table:text chain:text handle expressions:list compat:compat position userdata:hex"
SET = (
    "table:text name:text flags key_type key_len data_type data_len policy desc:desc id timeout "
    "gc_interval userdata:hex - obj_type handle expr:expression expressions:list"
)
ELEMENT = (
    "key:data data:data flags timeout expiration userdata:hex expr:expression - objref:text "
    "key_end:data expressions:list"
)
GENERATION = "id pid name:text"
EXPRESSIONS = {
    "bitwise": "sreg dreg len mask:data xor:data op data:data sreg2",
    "byteorder": "sreg dreg op len size",
    "cmp": "sreg op data:data",
    "connlimit": "count flags",
    "counter": "bytes packets",
    "ct": "dreg key direction sreg",
    "dup": "sreg_addr sreg_dev",
    "dynset": "set:text set_id op sreg_key sreg_data timeout expr:expression - flags "
    "expressions:list",
    "exthdr": "dreg type offset len flags op sreg",
    "fib": "dreg result flags",
    "flow_offload": "table:text",
    "fwd": "sreg_dev sreg_addr nfproto",
    "hash": "sreg dreg len modulus seed offset type",
    "immediate": "dreg data:data",
    "inner": "num type flags hdrsize expr:expression",
    "last": "set msecs",
    "limit": "rate unit burst type flags",
    "log": "group prefix:text snaplen qthreshold level flags",
    "lookup": "set:text sreg dreg set_id flags",
    "masq": "flags reg_proto_min reg_proto_max",
    "match": "name:text rev info:hex",
    "meta": "dreg key sreg",
    "nat": "type family reg_addr_min reg_addr_max reg_proto_min reg_proto_max flags",
    "notrack": "",
    "numgen": "dreg modulus type offset",
    "objref": "type name:text set_sreg set:text set_id",
    "osf": "dreg ttl flags",
    "payload": "dreg base offset len sreg csum_type csum_offset csum_flags",
    "queue": "num total flags sreg_qnum",
    "quota": "bytes flags - consumed",
    "range": "sreg op from:data to:data",
    "redir": "reg_proto_min reg_proto_max flags",
    "reject": "type icmp_code",
    "rt": "dreg key",
    "socket": "key dreg level",
    "synproxy": "mss wscale flags",
    "target": "name:text rev info:hex",
    "tproxy": "family reg_addr reg_port",
    "tunnel": "key dreg mode",
    "xfrm": "dreg key dir spnum",
}
_HOOK = "hooknum priority:signed dev:text devs:devices"
_COMPAT = "proto flags"
_COUNTERS = "bytes packets"
_DESC = "size concat:fields"
_VERDICT = "code:signed chain:text"


@cache
def _schema(text: str) -> _Schema:
    pairs = (word.partition(":") for word in text.split())
    return (("", ""), *((name, kind) for name, _, kind in pairs))


def tree(data: bytes, schema: str) -> Tree:
    """The attributes in ``data`` by their names."""
    names = _schema(schema)
    values: Tree = {}
    for kind, value in attribute_list(data):
        name, form = names[kind] if kind < len(names) else (f"attribute {kind}", "hex")
        if name != "-":
            values[name] = _FORMS[form](value)
    return values


def _expression(value: bytes) -> Tree:
    attrs = dict(attribute_list(value))
    name = string(attrs.get(1))
    data = attrs.get(2, b"")
    if name in EXPRESSIONS:
        return {name: tree(data, EXPRESSIONS[name])}
    return {name: {f"attribute {kind}": element.hex() for kind, element in attribute_list(data)}}


def _data(value: bytes) -> str | Tree:
    """A value in hexadecimal, or a verdict with its code and chain."""
    attrs = dict(attribute_list(value))
    return tree(attrs[2], _VERDICT) if 2 in attrs else attrs.get(1, b"").hex()


def _signed(value: bytes) -> int:
    return int.from_bytes(value, "big", signed=True)


_FORMS: dict[str, Callable[[bytes], Any]] = {
    "": number,
    "signed": _signed,
    "text": string,
    "hex": encode_hex,
    "data": _data,
    "expression": _expression,
    "list": lambda value: [_expression(data) for _, data in attribute_list(value)],
    "hook": lambda value: tree(value, _HOOK),
    "devices": lambda value: [string(data) for _, data in attribute_list(value)],
    "compat": lambda value: tree(value, _COMPAT),
    "counters": lambda value: tree(value, _COUNTERS),
    "desc": lambda value: tree(value, _DESC),
    "fields": lambda value: [
        number(dict(attribute_list(data)).get(1)) for _, data in attribute_list(value)
    ],
}
