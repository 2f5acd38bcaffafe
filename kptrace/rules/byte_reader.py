"""Read numbers, texts and addresses from the bytes of a kernel structure, by offset.

Numbers have the byte order of the machine that the bytes come from; a method whose name begins with
``be`` reads a big-endian one (ports of NAT). An agent sends bytes as hexadecimal text, in which a
long run of zeros at the end is counted: ``68656c6c6f+251``.
"""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address
from struct import error, unpack_from


class TruncatedData(Exception):
    """Bytes were asked for beyond the end of the structure."""


def decode_hex(text: str) -> bytes:
    """The bytes that ``encode_hex`` wrote. Raises ValueError for any other text."""
    digits, _, zeros = text.partition("+")
    count = int(zeros) if zeros else 0
    if not 0 <= count <= _MAX_ZEROS:
        raise ValueError("too many zeros")
    return bytes.fromhex(digits) + bytes(count)


def encode_hex(data: bytes) -> str:
    """Bytes as hexadecimal digits, a long run of zeros at the end as ``+COUNT``."""
    digits = data.rstrip(b"\0")
    zeros = len(data) - len(digits)
    return data.hex() if zeros < _MIN_COUNTED_ZEROS else f"{digits.hex()}+{zeros}"


_MAX_ZEROS = 1 << 16
_MIN_COUNTED_ZEROS = 8


class ByteReader:
    """Reads one structure; each method takes an offset in bytes and raises TruncatedData.

    family: ip or ip6, the length of the addresses in it
    """

    def __init__(self, data: bytes, family: str = "ip") -> None:
        self.data, self.family = data, family

    def _read(self, form: str, offset: int) -> int:
        try:
            value: int = unpack_from(form, self.data, offset)[0]
        except error as error_:
            raise TruncatedData(str(error_)) from None
        return value

    def u8(self, offset: int) -> int:
        return self._read("B", offset)

    def u16(self, offset: int) -> int:
        return self._read("=H", offset)

    def u32(self, offset: int) -> int:
        return self._read("=I", offset)

    def u64(self, offset: int) -> int:
        return self._read("=Q", offset)

    def be16(self, offset: int) -> int:
        return self._read("!H", offset)

    def bytes(self, offset: int, size: int) -> bytes:
        chunk = self.data[offset : offset + size]
        if len(chunk) != size:
            raise TruncatedData(f"{size} bytes at {offset}")
        return chunk

    def text(self, offset: int, size: int) -> str:
        """The text in ``size`` bytes, up to the first zero."""
        return self.bytes(offset, size).split(b"\0")[0].decode(errors="replace")

    def address(self, offset: int, family: str = "") -> str:
        """An address: 4 bytes in family ip, 16 in ip6."""
        return address_text(self.bytes(offset, 16 if (family or self.family) == "ip6" else 4))

    def mask(self, offset: int) -> str:
        """A mask as ``/LENGTH``, as ``/MASK`` if it has holes; empty for a whole address."""
        raw = self.bytes(offset, 16 if self.family == "ip6" else 4)
        length = prefix_length(raw)
        if length is None:
            return f"/{address_text(raw)}"
        return "" if length == len(raw) * 8 else f"/{length}"


def address_text(raw: bytes) -> str:
    """4 or 16 bytes as inet_ntop(3) writes them: some IPv6 addresses end in an IPv4 one."""
    if len(raw) == 4:
        return str(IPv4Address(raw))
    inner = str(IPv4Address(raw[12:]))
    if raw[:12] == bytes(10) + b"\xff\xff":
        return f"::ffff:{inner}"
    if raw[:12] == bytes(12) and raw[12:14] != bytes(2):
        return f"::{inner}"
    return str(IPv6Address(raw))


def prefix_length(mask: bytes) -> int | None:
    """The number of ones that a mask begins with; None if a one follows a zero."""
    bits = len(mask) * 8
    value = int.from_bytes(mask, "big")
    ones = value.bit_count()
    return ones if value == ((1 << ones) - 1) << (bits - ones) else None
