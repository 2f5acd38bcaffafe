"""Turn a rule of nf_tables into the JSON that ``nft -j`` prints.

``json_statements.py`` and ``text_format.py`` then read that JSON, so a rule has one reader however
it was obtained. An expression that is not understood stays as its own tree, ``{"xfrm": {...}}``,
which is opaque to those two.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from kptrace.rules.byte_reader import TruncatedData, decode_hex
from kptrace.rules.nftables.data_types import UnformattableValueError
from kptrace.rules.nftables.delinearize import LOADS, Delinearizer
from kptrace.rules.nftables.kernel_statements import STATEMENTS
from kptrace.rules.nftables.kernel_values import VALUES
from kptrace.rules.nftables.registers import Json, SetInfo

Tree = Mapping[str, Any]

_READERS = LOADS | VALUES | STATEMENTS
_STRANGE = (
    UnformattableValueError,
    LookupError,
    ValueError,
    TypeError,
    AttributeError,
    TruncatedData,
)
_COMMENT = 0  # NFTNL_UDATA_RULE_COMMENT, and the same of an element


def statements(
    expressions: Sequence[Tree],
    family: str,
    sets: Mapping[str, SetInfo],
    interfaces: Mapping[int, str],
) -> list[Json]:
    """The rule's statements.

    expressions: as trees (``agent/nftables/attributes.py``)
    family: of the table; sets: that the rule names; interfaces: names by index

    Raises ValueError for another kind of list.
    """
    machine = Delinearizer(family, sets, interfaces)
    for place, expression in enumerate(expressions):
        if not isinstance(expression, Mapping) or len(expression) != 1:
            raise ValueError("an expression without a name")
        ((name, expr),) = expression.items()
        before = len(machine.out)
        try:
            _run(machine, name, expr, expressions[place + 1 :])
        except _STRANGE:
            del machine.out[before:]
            machine.unknown(name, expr if isinstance(expr, Mapping) else {})
    return [expression for expression in machine.out if expression is not None]


def _run(machine: Delinearizer, name: str, expr: Tree, following: Sequence[Tree]) -> None:
    if name == "cmp":
        machine.cmp(expr, following)
    elif name in _READERS:
        _READERS[name](machine, expr)
    else:
        raise UnformattableValueError(name)
    if machine.out and isinstance(machine.out[-1], dict) and "match" not in machine.out[-1]:
        machine.settle()


def user_data(text: str) -> dict[int, bytes]:
    """The attributes in the user data of a rule, set or element (libnftnl/udata.h), by type."""
    data, fields = decode_hex(text), {}
    while len(data) >= 2:
        kind, size = data[0], data[1]
        fields[kind] = data[2 : 2 + size]
        data = data[2 + size :]
    return fields


def comment(text: str, kind: int = _COMMENT) -> str:
    """The comment in user data; empty if there is none."""
    return user_data(text).get(kind, b"").rstrip(b"\0").decode(errors="replace")
