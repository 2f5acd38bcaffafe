"""How iptables-save writes options: quotes, negation, ranges, names of bits, rates.

Sources: xtables_save_string and the ``_save`` functions of iptables' extensions.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from kptrace.rules.byte_reader import ByteReader
from kptrace.rules.iptables.options import Unknown

Words = list[str]
IpsetName = Callable[[int], str]
Reader = Callable[[ByteReader, IpsetName], Words]


def saved(text: str) -> str:
    """As xtables_save_string writes it."""
    if text and all(char in _PLAIN for char in text):
        return text
    return '"' + "".join("\\" + char if char in "\"\\'" else char for char in text) + '"'


_PLAIN = frozenset("_-0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ")


def option(negated: int | bool, *words: str) -> Words:
    return ["!", *words] if negated else [*words]


def span(low: int, high: int, sign: str = ":") -> str:
    return str(low) if low == high else f"{low}{sign}{high}"


def named(bits: int, names: Iterable[tuple[int, str]]) -> str:
    """The names of the bits that are set, in the table's order; a bit without a name is Unknown."""
    found = [(bit, name) for bit, name in names if bits & bit]
    if sum(bit for bit, _ in found) != bits:
        raise Unknown(f"bits {bits:#x}")
    return ",".join(name for _, name in found)


def bits(names: str, first: int = 0) -> tuple[tuple[int, str], ...]:
    """Names of consecutive bits."""
    return tuple((1 << index, name) for index, name in enumerate(names.split(), start=first))


def marked(value: int, mask: int) -> str:
    return f"{value:#x}" if mask == 0xFFFFFFFF else f"{value:#x}/{mask:#x}"


def port_words(name: str, low: int, high: int, negated: int) -> Words:
    whole = (low, high) == (0, 0xFFFF)
    return [] if whole and not negated else option(negated, name, span(low, high))


def tcp_flag_words(mask: int, wanted: int, negated: int) -> Words:
    if not mask and not negated:
        return []
    return option(negated, "--tcp-flags", _tcp_flags(mask), _tcp_flags(wanted))


def _tcp_flags(flags: int) -> str:
    return named(flags, _TCP_FLAGS) or "NONE"


_TCP_FLAGS = bits("FIN SYN RST PSH ACK URG")


_UNITS = ((86400, "day"), (3600, "hour"), (60, "min"), (1, "sec"))


def rate(period: int, scale: int) -> tuple[str, int]:
    """``5/min`` and the unit's seconds. ``period``: 1/scale seconds between packets."""
    if not period:
        raise Unknown("a rate without end")
    best = 0
    for index, (seconds, _) in enumerate(_UNITS):
        whole = seconds * scale
        if index and (period > whole or whole // period < whole % period):
            break
        best = index
    seconds, name = _UNITS[best]
    return f"{seconds * scale // period}/{name}", seconds


_LIMIT_SCALE = 10_000


def limit_words(period: int, burst: int) -> Words:
    """period: 1/10000 seconds between packets (XT_LIMIT_SCALE)."""
    words = ["--limit", rate(period, _LIMIT_SCALE)[0]]
    return words if burst == 5 else [*words, "--limit-burst", str(burst)]
