"""Write option arguments as iptables-save does: quotes, negation, ranges, names of bits, rates.

Sources: xtables_save_string and the ``_save`` functions of iptables' extensions.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from kptrace.rules.byte_reader import ByteReader
from kptrace.rules.iptables.options import Unknown

Args = list[str]
IpsetName = Callable[[int], str]
Reader = Callable[[ByteReader, IpsetName], Args]


def quote(text: str) -> str:
    """A text as xtables_save_string writes it."""
    if text and all(char in _PLAIN for char in text):
        return text
    return '"' + "".join("\\" + char if char in "\"\\'" else char for char in text) + '"'


_PLAIN = frozenset("_-0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ")


def option(negated: int | bool, *args: str) -> Args:
    return ["!", *args] if negated else [*args]


def range_text(low: int, high: int, sign: str = ":") -> str:
    return str(low) if low == high else f"{low}{sign}{high}"


def bit_names(bits: int, names: Iterable[tuple[int, str]]) -> str:
    """The names of the bits that are set, in the table's order. Raises Unknown for another bit."""
    names_set = [(bit, name) for bit, name in names if bits & bit]
    if sum(bit for bit, _ in names_set) != bits:
        raise Unknown(f"bits {bits:#x}")
    return ",".join(name for _, name in names_set)


def numbered_bits(names: str, first: int = 0) -> tuple[tuple[int, str], ...]:
    """(bit, name) for names of consecutive bits, from bit number ``first``."""
    return tuple((1 << index, name) for index, name in enumerate(names.split(), start=first))


def value_and_mask(value: int, mask: int) -> str:
    return f"{value:#x}" if mask == 0xFFFFFFFF else f"{value:#x}/{mask:#x}"


def port_args(name: str, low: int, high: int, negated: int) -> Args:
    is_default = (low, high) == (0, 0xFFFF)
    return [] if is_default and not negated else option(negated, name, range_text(low, high))


def tcp_flag_args(mask: int, expected: int, negated: int) -> Args:
    if not mask and not negated:
        return []
    return option(negated, "--tcp-flags", _tcp_flags(mask), _tcp_flags(expected))


def _tcp_flags(flags: int) -> str:
    return bit_names(flags, _TCP_FLAGS) or "NONE"


_TCP_FLAGS = numbered_bits("FIN SYN RST PSH ACK URG")


_UNITS = ((86400, "day"), (3600, "hour"), (60, "min"), (1, "sec"))


def rate_text(period: int, scale: int) -> tuple[str, int]:
    """A rate as ``5/min``, and the unit in seconds. ``period``: 1/scale seconds between packets."""
    if not period:
        raise Unknown("a rate without end")
    best = 0
    for index, (seconds, _) in enumerate(_UNITS):
        unit_period = seconds * scale
        if index and (period > unit_period or unit_period // period < unit_period % period):
            break
        best = index
    seconds, name = _UNITS[best]
    return f"{seconds * scale // period}/{name}", seconds


_LIMIT_SCALE = 10_000


def limit_args(period: int, burst: int) -> Args:
    """The options of ``-m limit``. ``period``: 1/10000 seconds between packets (XT_LIMIT_SCALE)."""
    args = ["--limit", rate_text(period, _LIMIT_SCALE)[0]]
    return args if burst == 5 else [*args, "--limit-burst", str(burst)]
