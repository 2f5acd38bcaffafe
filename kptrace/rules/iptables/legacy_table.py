"""A legacy table as getsockopt(IPT_SO_GET_ENTRIES) gives it: one blob -> the rules of one chain.

In: the entries and where each hook begins and ends. Out: trees like those of
``agent/nftables/attributes.py``, so that both backends are told alike. Chains are found by one
search for their names; nothing is decoded before its chain is asked for: of 300,000 entries a few
hundred are looked at.

Theory (ip_tables.c): entries stand one behind the other, each with the distance to its target and
to the next. A chain of the user's begins behind an entry whose target is ERROR with the chain's
name, and ends with a RETURN of its own; a kernel's chain stands where ``hook_entry`` says and ends
with its policy, where ``underflow`` says. A jump is the offset of the first rule.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from functools import cached_property
from struct import unpack_from
from typing import Any, NamedTuple

from kptrace.model import Value
from kptrace.rules.byte_reader import TruncatedData, enhex

Tree = dict[str, Any]
HOOKS = ("PREROUTING", "INPUT", "FORWARD", "OUTPUT", "POSTROUTING")


class Layout(NamedTuple):
    """Offsets inside an entry: of ``target_offset``, the counters, the end of the fixed part, and
    where the destination, its mask and the flags stand.
    """

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
    """Where the kernel's own chains are: (hook number, first rule, policy)."""

    hooks: tuple[tuple[int, int, int], ...]


class XtTable:
    def __init__(self, data: bytes | bytearray | memoryview, bounds: Bounds, family: str) -> None:
        self._data = data
        self._layout = LAYOUTS[family]
        self._kernels = {HOOKS[hook]: (start, end) for hook, start, end in bounds.hooks}
        self._met: dict[str, int] = {}  # chains that a rule jumped to
        self._places: dict[str, list[int]] = {}

    def kernel_chains(self) -> list[Tree]:
        """Name, policy and the policy's counters."""
        found = []
        for name, (_, end) in self._kernels.items():
            packets, octets = self._unpack("=QQ", end + self._layout.counters)
            verdict = self._target(end, 0).get("immediate", {}).get("data", {}).get("code", 1)
            found.append({"name": name, "policy": verdict, "packets": packets, "bytes": octets})
        return found

    def names(self) -> list[str]:
        """The user's chains."""
        return list(self._starts)

    @cached_property
    def _starts(self) -> dict[str, int]:
        """Where each chain of the user's may begin: one search through all."""
        found = {
            match.group(1).decode(errors="replace"): match.start() - 2 - self._layout.size
            for match in _NAMED.finditer(self._data)
        }
        found.pop("ERROR", None)  # the last entry
        return found

    def has(self, name: str) -> bool:
        return name in self._kernels or self._find(name) is not None

    def count(self, name: str) -> int:
        return len(self._entries(name))

    def rules(
        self, name: str, toward: bytes = b"", saying: bytes = b"", only: int = 0
    ) -> list[Tree]:
        """``toward``: leave out rules for another single destination address; ``saying``: those
        that do not hold these bytes; ``only``: all but the one in this place.
        """
        return [
            self._rule(number, at)
            for number, at in enumerate(self._entries(name), 1)
            if not (toward and self._elsewhere(at, toward))
            and (not saying or saying in bytes(self._data[at : self._next(at)]))
            and only in (0, number)
        ]

    # --- where things are ---------------------------------------------------------------------

    def _unpack(self, form: str, at: int) -> Sequence[Any]:
        try:
            return unpack_from(form, self._data, at)
        except Exception as error:
            raise TruncatedData(f"entry at {at}: {error}") from None

    def _next(self, at: int) -> int:
        size: int = self._unpack("=H", at + self._layout.distances + 2)[0]
        if size < self._layout.size:
            raise TruncatedData(f"an entry of {size} bytes at {at}")
        return at + size

    def _find(self, name: str) -> int | None:
        """The first entry of a chain of the user's."""
        if name not in self._met:
            start = self._by_halves(name)
            if start < 0:
                start = self._starts.get(name, -1)
            if start < 0 or self._header(start) != name:
                return None
            self._met[name] = start + self._layout.size + _ERROR_SIZE
        return self._met[name]

    def _by_halves(self, name: str) -> int:
        """Where the chain begins, if the chains stand by name, as libiptc writes them; else -1."""
        low, high = 0, len(self._data)
        while low < high:
            middle = (low + high) // 2
            found = _NAMED.search(self._data, middle, high)
            chain = found[1].decode(errors="replace") if found else ""
            if found is None or chain == "ERROR" or chain > name:  # the last entry is an ERROR too
                high = middle
            elif chain < name:
                low = found.end()
            else:
                return found.start() - 2 - self._layout.size
        return -1

    def _header(self, at: int) -> str | None:
        """The name of the chain that an entry begins; None for a rule."""
        target = at + self._unpack("=H", at + self._layout.distances)[0]
        if bytes(self._data[target + 2 : target + _TARGET]) != _ERROR:
            return None
        name = bytes(self._data[target + _TARGET : target + _ERROR_SIZE])
        return name.split(b"\0")[0].decode(errors="replace")

    def _entries(self, name: str) -> Sequence[int]:
        if name not in self._places:
            self._places[name] = list(self._walk(name))
        return self._places[name]

    def _walk(self, name: str) -> Iterator[int]:
        if name in self._kernels:
            at, end = self._kernels[name]
            while at < end:
                yield at
                at = self._next(at)
            return
        found = self._find(name)
        if found is None:
            return
        at, after = found, self._next(found)
        while self._header(after) is None:  # the last before the next chain is the RETURN
            yield at
            at, after = after, self._next(after)

    def _chain_at(self, at: int) -> str:
        before = at - self._layout.size - _ERROR_SIZE
        name = self._header(before) if before >= 0 else None
        if name is not None:
            self._met[name] = at
            return name
        return next((name for name, (start, _) in self._kernels.items() if start == at), "")

    # --- rules --------------------------------------------------------------------------------

    def _elsewhere(self, at: int, toward: bytes) -> bool:
        layout = self._layout
        size = layout.address
        mask = at + layout.destination_mask
        if len(toward) != size or self._data[mask : mask + size] != b"\xff" * size:
            return False
        if self._data[at + layout.inverted] & _INVERTED_DESTINATION:
            return False
        destination = at + layout.destination
        return bool(self._data[destination : destination + size] != toward)

    def _rule(self, number: int, at: int) -> Tree:
        layout = self._layout
        target = at + self._unpack("=H", at + layout.distances)[0]
        packets, octets = self._unpack("=QQ", at + layout.counters)
        expressions = list(self._matches(at + layout.size, target))
        expressions += [part] if (part := self._target(at, target)) else []
        head = bytes(self._data[at : at + layout.distances - 4])
        return {
            "number": number,
            "packets": packets,
            "bytes": octets,
            "ip": enhex(head),
            "expressions": expressions,
        }

    def _matches(self, at: int, end: int) -> Iterator[Tree]:
        while at < end:
            size, name, revision = self._unpack("=H29sB", at)
            if size < _TARGET:
                raise TruncatedData(f"a match of {size} bytes at {at}")
            yield {"match": self._named(name, revision, at, size)}
            at += size

    def _named(self, name: bytes, revision: int, at: int, size: int) -> Tree:
        info = enhex(bytes(self._data[at + _TARGET : at + size]))
        text = name.split(b"\0")[0].decode(errors="replace")
        return {"name": text, "rev": revision, "info": info}

    def _target(self, at: int, target: int) -> Tree:
        """A verdict in nf_tables' form, or a target of its own; nothing where the rule goes on."""
        target = target or at + self._unpack("=H", at + self._layout.distances)[0]
        size, name, revision = self._unpack("=H29sB", target)
        if name[:1] != b"\0":
            return {"target": self._named(name, revision, target, size)}
        verdict: int = self._unpack("=i", target + _TARGET)[0]
        if verdict < 0:
            return _verdict(_VERDICTS.get(verdict, verdict))
        if verdict == self._next(at):
            return {}
        goes = self._data[at + self._layout.flags] & self._layout.goto
        return _verdict(_GOTO if goes else _JUMP, self._chain_at(verdict))


def _verdict(code: int, chain: str = "") -> Tree:
    data: Tree = {"code": code, "chain": chain} if chain else {"code": code}
    return {"immediate": {"dreg": 0, "data": data}}
