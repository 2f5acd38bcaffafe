"""BTF: where the running kernel keeps the fields of its structures, and the names of its enums.

In: the bytes of /sys/kernel/btf/vmlinux and the names that are wanted. Out: offsets and names.

Format (kernel Documentation/bpf/btf.rst): a header, then types one behind the other without an
index, each 12 bytes and what its kind adds, then strings. So all 130,000 types must be walked
once to number them; only those with a wanted name are looked into.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from struct import unpack_from
from typing import NamedTuple

_MAGIC = 0xEB9F
_STRUCT, _UNION, _ENUM = 4, 5, 6
# Words (of 4 bytes) that each kind adds to its 3: (once, per member).
_EXTRA = (
    *((0, 0), (1, 0), (0, 0), (3, 0), (0, 3), (0, 3), (0, 2), (0, 0), (0, 0), (0, 0)),
    *((0, 0), (0, 0), (0, 0), (0, 2), (1, 0), (0, 3), (0, 0), (1, 0), (0, 0), (0, 3)),
)


class BadBtf(ValueError):
    pass


class _Member(NamedTuple):
    name: str
    type_id: int
    bits: int


class Btf:
    def __init__(self, data: bytes, names: Iterable[str]) -> None:
        """names: of the structs and enums that will be asked for."""
        try:
            self._read(data, tuple(names))
        except (IndexError, ValueError, TypeError) as error:
            raise BadBtf(f"not BTF as the kernel writes it: {error}") from None

    def _read(self, data: bytes, names: tuple[str, ...]) -> None:
        magic, _, _, header, at, size, strings, length = unpack_from("=HBBIIIII", data.ljust(24))
        if magic != _MAGIC:
            raise BadBtf("wrong magic")
        self._strings = data[header + strings : header + strings + length]
        self._words = memoryview(data[header + at : header + at + size]).cast("I")
        self._starts = [0]  # of each type by its number; 0 is void
        texts_by_number = {
            self._strings.find(b"\0%s\0" % name.encode()) + 1: name for name in names
        }
        self._found: dict[str, int] = {}
        self._walk(texts_by_number)

    def _walk(self, texts_by_number: dict[int, str]) -> None:
        fields, starts, at, end = self._words, self._starts, 0, len(self._words)
        while at < end:
            info = fields[at + 1]
            kind = info >> 24 & 0x1F
            if fields[at] in texts_by_number and kind in (_STRUCT, _ENUM):
                self._found.setdefault(texts_by_number[fields[at]], at)
            starts.append(at)
            once, number = _EXTRA[kind]
            at += 3 + once + number * (info & 0xFFFF)

    def offset(self, struct: str, member: str) -> int:
        """Bytes from the start of the struct, also of a member of a nameless struct in it."""
        try:
            number = self._find(self._found.get(struct, -1), member)
        except (IndexError, ValueError, RecursionError) as error:
            raise BadBtf(f"not BTF as the kernel writes it: {error}") from None
        if number is None:
            raise BadBtf(f"this kernel has no {struct}.{member}")
        return number // 8

    def enum(self, name: str) -> dict[int, str]:
        at = self._found.get(name, -1)
        if at < 0:
            return {}
        count = self._words[at + 1] & 0xFFFF
        namespaces = range(at + 3, at + 3 + 2 * count, 2)
        return {self._words[p + 1]: self._string(self._words[p]) for p in namespaces}

    def _find(self, at: int, member: str) -> int | None:
        if at < 0:
            return None
        for candidate in self._members(at):
            if candidate.name == member:
                return candidate.bits
            inside = None if candidate.name else self._find(self._start(candidate.type_id), member)
            if inside is not None:
                return candidate.bits + inside
        return None

    def _members(self, at: int) -> Iterator[_Member]:
        info = self._words[at + 1]
        if info >> 24 & 0x1F not in (_STRUCT, _UNION):
            return
        mask = 0xFFFFFF if info >> 31 else 0xFFFFFFFF  # with kind_flag the top byte is a width
        for p in range(at + 3, at + 3 + 3 * (info & 0xFFFF), 3):
            name, type_id, bits = self._words[p : p + 3]
            yield _Member(self._string(name), type_id, bits & mask)

    def _start(self, type_id: int) -> int:
        return self._starts[type_id] if 0 < type_id < len(self._starts) else -1

    def _string(self, offset: int) -> str:
        end = self._strings.find(b"\0", offset)
        return self._strings[offset:end].decode(errors="replace")
