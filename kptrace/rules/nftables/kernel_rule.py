"""A rule of nf_tables as the kernel holds it -> the JSON that ``nft -j`` prints for it.

In: the expressions as trees (``agent/nftables/attributes.py``), the sets that they name, the
table's family. Out: the statements that ``json_statements.py`` and ``text_format.py`` read, so that
native and text reading end in the same hands. An expression that is not known here stays as its own
tree, ``{"xfrm": {...}}``, which is opaque to those two.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from kptrace.rules.byte_reader import TruncatedData, unhex
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
    """The rule's statements. ValueError for what is no list of expressions."""
    machine = Delinearizer(family, sets, interfaces)
    for place, each in enumerate(expressions):
        if not isinstance(each, Mapping) or len(each) != 1:
            raise ValueError("an expression without a name")
        ((name, given),) = each.items()
        before = len(machine.out)
        try:
            _run(machine, name, given, expressions[place + 1 :])
        except _STRANGE:
            del machine.out[before:]
            machine.unknown(name, given if isinstance(given, Mapping) else {})
    return [each for each in machine.out if each is not None]


def _run(machine: Delinearizer, name: str, given: Tree, following: Sequence[Tree]) -> None:
    if name == "cmp":
        machine.cmp(given, following)
    elif name in _READERS:
        _READERS[name](machine, given)
    else:
        raise UnformattableValueError(name)
    if machine.out and isinstance(machine.out[-1], dict) and "match" not in machine.out[-1]:
        machine.settle()


def user_data(text: str) -> dict[int, bytes]:
    """What nft keeps for itself beside a rule, a set or an element (libnftnl/udata.h)."""
    data, found = unhex(text), {}
    while len(data) >= 2:
        kind, size = data[0], data[1]
        found[kind] = data[2 : 2 + size]
        data = data[2 + size :]
    return found


def comment(text: str, kind: int = _COMMENT) -> str:
    return user_data(text).get(kind, b"").rstrip(b"\0").decode(errors="replace")
