"""Bytes of a kernel structure, read by offset. A read beyond the end is a Short.

Numbers are in the order of the machine that the bytes come from; what is big-endian everywhere
(ports of NAT, addresses) says so. In facts bytes are hexadecimal, a long run of zeros at their end
being counted: ``68656c6c6f+251``.
"""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address
from struct import error, unpack_from


class TruncatedData(Exception):
    """The structure is shorter than its revision says."""


def unhex(text: str) -> bytes:
    """ValueError for what is no such text."""
    digits, _, zeros = text.partition("+")
    count = int(zeros) if zeros else 0
    if not 0 <= count <= _MOST:
        raise ValueError("too many zeros")
    return bytes.fromhex(digits) + bytes(count)


def enhex(data: bytes) -> str:
    digits = data.rstrip(b"\0")
    zeros = len(data) - len(digits)
    return data.hex() if zeros < _WORTH_COUNTING else f"{digits.hex()}+{zeros}"


_MOST = 1 << 16
_WORTH_COUNTING = 8


class ByteReader:
    def __init__(self, data: bytes, family: str = "ip") -> None:
        self.data, self.family = data, family

    def _read(self, form: str, at: int) -> int:
        try:
            value: int = unpack_from(form, self.data, at)[0]
        except error as why:
            raise TruncatedData(str(why)) from None
        return value

    def u8(self, at: int) -> int:
        return self._read("B", at)

    def u16(self, at: int) -> int:
        return self._read("=H", at)

    def u32(self, at: int) -> int:
        return self._read("=I", at)

    def u64(self, at: int) -> int:
        return self._read("=Q", at)

    def be16(self, at: int) -> int:
        return self._read("!H", at)

    def bytes(self, at: int, size: int) -> bytes:
        found = self.data[at : at + size]
        if len(found) != size:
            raise TruncatedData(f"{size} bytes at {at}")
        return found

    def text(self, at: int, size: int) -> str:
        """Up to the first zero."""
        return self.bytes(at, size).split(b"\0")[0].decode(errors="replace")

    def address(self, at: int, family: str = "") -> str:
        """4 bytes in family ip, 16 in ip6."""
        return address(self.bytes(at, 16 if (family or self.family) == "ip6" else 4))

    def mask(self, at: int) -> str:
        """``/LENGTH``, ``/MASK`` if it has holes, nothing for a whole address."""
        raw = self.bytes(at, 16 if self.family == "ip6" else 4)
        length = prefix_length(raw)
        if length is None:
            return f"/{address(raw)}"
        return "" if length == len(raw) * 8 else f"/{length}"


def address(raw: bytes) -> str:
    """As inet_ntop(3) has it, which writes the last 4 bytes of some IPv6 addresses as IPv4."""
    if len(raw) == 4:
        return str(IPv4Address(raw))
    inner = str(IPv4Address(raw[12:]))
    if raw[:12] == bytes(10) + b"\xff\xff":
        return f"::ffff:{inner}"
    if raw[:12] == bytes(12) and raw[12:14] != bytes(2):
        return f"::{inner}"
    return str(IPv6Address(raw))


def prefix_length(mask: bytes) -> int | None:
    """How many ones a mask begins with; None if there are others behind a zero."""
    bits = len(mask) * 8
    value = int.from_bytes(mask, "big")
    ones = value.bit_count()
    return ones if value == ((1 << ones) - 1) << (bits - ones) else None
