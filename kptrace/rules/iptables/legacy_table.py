"""Find the chains and rules in a legacy table as getsockopt(IPT_SO_GET_ENTRIES) gives it.

Rules are decoded into trees like those of ``agent/nftables/attributes.py``. Chains are found by one
search for their names, and a rule is decoded only when its chain is asked for: of 300,000 entries a
few hundred.

Theory (ip_tables.c): entries follow each other, each with the distance to its target and to the
next entry. A user-defined chain begins after an entry whose target is ERROR with the chain's name,
and ends with a RETURN of its own. A built-in chain begins at ``hook_entry`` and ends with its
policy, at ``underflow``. A jump holds the offset of the first rule.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from functools import cached_property
from struct import unpack_from
from typing import Any, NamedTuple

from kptrace.model import Value
from kptrace.rules.byte_reader import TruncatedData, encode_hex

Tree = dict[str, Any]
HOOKS = ("PREROUTING", "INPUT", "FORWARD", "OUTPUT", "POSTROUTING")


class Layout(NamedTuple):
    """Offsets of the fields of struct ipt_entry or ip6t_entry; ``address``: size of an address."""

    distances: int
    counters: int
    size: int
    destination: int
    destination_mask: int
    address: int
    flags: int
    inverted: int
    goto: int


LAYOUTS = {
    "ip": Layout(88, 96, 112, 4, 12, 4, 82, 83, 2),
    "ip6": Layout(140, 152, 168, 16, 48, 16, 131, 132, 4),
}
_ERROR = b"ERROR" + bytes(25)  # its name in 29 bytes, and revision 0
_ERROR_SIZE = 64
_NAMED = re.compile(re.escape(_ERROR) + rb"([^\0]+)\0")
_TARGET = 32  # size, name, revision
_INVERTED_DESTINATION = 0x10
_VERDICTS = {-1: 0, -2: 1, -4: 3, -5: -5}  # as ip_tables has them -> as nf_tables does
_JUMP, _GOTO = -3, -4


class Bounds(Value):
    """The built-in chains: (hook number, offset of the first rule, offset of the policy)."""

    hooks: tuple[tuple[int, int, int], ...]


class XtTable:
    """One table. ``data``: its entries. Its methods raise TruncatedData for a broken table."""

    def __init__(self, data: bytes | bytearray | memoryview, bounds: Bounds, family: str) -> None:
        self._data = data
        self._layout = LAYOUTS[family]
        self._kernel_chains = {HOOKS[hook]: (start, end) for hook, start, end in bounds.hooks}
        self._first_rules: dict[str, int] = {}  # chains that a rule jumped to
        self._offsets: dict[str, list[int]] = {}

    def kernel_chains(self) -> list[Tree]:
        """The built-in chains: name, policy (a verdict of nf_tables) and the policy's counters."""
        chains = []
        for name, (_, end) in self._kernel_chains.items():
            packets, octets = self._unpack("=QQ", end + self._layout.counters)
            verdict = self._target(end, 0).get("immediate", {}).get("data", {}).get("code", 1)
            chains.append({"name": name, "policy": verdict, "packets": packets, "bytes": octets})
        return chains

    def names(self) -> list[str]:
        """The names of the user-defined chains."""
        return list(self._starts)

    @cached_property
    def _starts(self) -> dict[str, int]:
        """The offset at which each user-defined chain may begin."""
        starts = {
            match.group(1).decode(errors="replace"): match.start() - 2 - self._layout.size
            for match in _NAMED.finditer(self._data)
        }
        starts.pop("ERROR", None)  # the last entry
        return starts

    def has(self, name: str) -> bool:
        return name in self._kernel_chains or self._find(name) is not None

    def count(self, name: str) -> int:
        return len(self._entries(name))

    def rules(
        self, name: str, destination: bytes = b"", text: bytes = b"", only_number: int = 0
    ) -> list[Tree]:
        """The rules of a chain in order.

        destination: leave out rules for another single destination address
        text: leave out rules that do not contain these bytes
        only_number: leave out all rules but this one, counted from 1
        """
        return [
            self._rule(number, offset)
            for number, offset in enumerate(self._entries(name), 1)
            if not (destination and self._is_for_other_destination(offset, destination))
            and (not text or text in bytes(self._data[offset : self._next(offset)]))
            and only_number in (0, number)
        ]

    # --- where things are ---------------------------------------------------------------------

    def _unpack(self, form: str, offset: int) -> Sequence[Any]:
        try:
            return unpack_from(form, self._data, offset)
        except Exception as error:
            raise TruncatedData(f"entry at {offset}: {error}") from None

    def _next(self, offset: int) -> int:
        size: int = self._unpack("=H", offset + self._layout.distances + 2)[0]
        if size < self._layout.size:
            raise TruncatedData(f"an entry of {size} bytes at {offset}")
        return offset + size

    def _find(self, name: str) -> int | None:
        """The offset of the first rule of a user-defined chain."""
        if name not in self._first_rules:
            start = self._binary_search(name)
            if start < 0:
                start = self._starts.get(name, -1)
            if start < 0 or self._header(start) != name:
                return None
            self._first_rules[name] = start + self._layout.size + _ERROR_SIZE
        return self._first_rules[name]

    def _binary_search(self, name: str) -> int:
        """The offset at which a chain begins if the chains are sorted, as libiptc writes them; else
        -1.
        """
        low, high = 0, len(self._data)
        while low < high:
            middle = (low + high) // 2
            match = _NAMED.search(self._data, middle, high)
            chain = match[1].decode(errors="replace") if match else ""
            if match is None or chain == "ERROR" or chain > name:  # the last entry is an ERROR too
                high = middle
            elif chain < name:
                low = match.end()
            else:
                return match.start() - 2 - self._layout.size
        return -1

    def _header(self, offset: int) -> str | None:
        """The name of the chain that begins with this entry; None for a rule."""
        target = offset + self._unpack("=H", offset + self._layout.distances)[0]
        if bytes(self._data[target + 2 : target + _TARGET]) != _ERROR:
            return None
        name = bytes(self._data[target + _TARGET : target + _ERROR_SIZE])
        return name.split(b"\0")[0].decode(errors="replace")

    def _entries(self, name: str) -> Sequence[int]:
        if name not in self._offsets:
            self._offsets[name] = list(self._walk(name))
        return self._offsets[name]

    def _walk(self, name: str) -> Iterator[int]:
        if name in self._kernel_chains:
            offset, end = self._kernel_chains[name]
            while offset < end:
                yield offset
                offset = self._next(offset)
            return
        first = self._find(name)
        if first is None:
            return
        offset, after = first, self._next(first)
        while self._header(after) is None:  # the last before the next chain is the RETURN
            yield offset
            offset, after = after, self._next(after)

    def _chain_at(self, offset: int) -> str:
        before = offset - self._layout.size - _ERROR_SIZE
        name = self._header(before) if before >= 0 else None
        if name is not None:
            self._first_rules[name] = offset
            return name
        return next(
            (name for name, (start, _) in self._kernel_chains.items() if start == offset), ""
        )

    # --- rules --------------------------------------------------------------------------------

    def _is_for_other_destination(self, offset: int, destination: bytes) -> bool:
        layout = self._layout
        size = layout.address
        mask = offset + layout.destination_mask
        if len(destination) != size or self._data[mask : mask + size] != b"\xff" * size:
            return False
        if self._data[offset + layout.inverted] & _INVERTED_DESTINATION:
            return False
        start = offset + layout.destination
        return bool(self._data[start : start + size] != destination)

    def _rule(self, number: int, offset: int) -> Tree:
        layout = self._layout
        target = offset + self._unpack("=H", offset + layout.distances)[0]
        packets, octets = self._unpack("=QQ", offset + layout.counters)
        expressions = list(self._matches(offset + layout.size, target))
        expressions += [part] if (part := self._target(offset, target)) else []
        head = bytes(self._data[offset : offset + layout.distances - 4])
        return {
            "number": number,
            "packets": packets,
            "bytes": octets,
            "ip": encode_hex(head),
            "expressions": expressions,
        }

    def _matches(self, offset: int, end: int) -> Iterator[Tree]:
        while offset < end:
            size, name, revision = self._unpack("=H29sB", offset)
            if size < _TARGET:
                raise TruncatedData(f"a match of {size} bytes at {offset}")
            yield {"match": self._named(name, revision, offset, size)}
            offset += size

    def _named(self, name: bytes, revision: int, offset: int, size: int) -> Tree:
        info = encode_hex(bytes(self._data[offset + _TARGET : offset + size]))
        text = name.split(b"\0")[0].decode(errors="replace")
        return {"name": text, "rev": revision, "info": info}

    def _target(self, offset: int, target: int) -> Tree:
        """A verdict in nf_tables' form or a target; empty if the next rule follows."""
        target = target or offset + self._unpack("=H", offset + self._layout.distances)[0]
        size, name, revision = self._unpack("=H29sB", target)
        if name[:1] != b"\0":
            return {"target": self._named(name, revision, target, size)}
        verdict: int = self._unpack("=i", target + _TARGET)[0]
        if verdict < 0:
            return _verdict(_VERDICTS.get(verdict, verdict))
        if verdict == self._next(offset):
            return {}
        goes = self._data[offset + self._layout.flags] & self._layout.goto
        return _verdict(_GOTO if goes else _JUMP, self._chain_at(verdict))


def _verdict(code: int, chain: str = "") -> Tree:
    data: Tree = {"code": code, "chain": chain} if chain else {"code": code}
    return {"immediate": {"dreg": 0, "data": data}}
