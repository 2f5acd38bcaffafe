"""A disagreement, made small: as few lines as still show it.

In: rules, the packet, and who tells whether rules still disagree. Out: fewer rules. Chunks of lines
are left out, halves first, single lines last, as long as that helps (delta debugging).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

Rules = Mapping[str, str]
Line = tuple[str, str]


def shrink(rules: Rules, disagrees: Callable[[dict[str, str]], bool]) -> dict[str, str]:
    lines = [(loader, line) for loader, text in rules.items() for line in text.split("\n") if line]
    size = max(1, len(lines) // 2)
    while True:
        fewer = _without_chunks(lines, size, disagrees)
        if size == 1 and len(fewer) == len(lines):
            return together(_without_empty_tables(lines, disagrees))
        size = max(1, min(size // 2, len(fewer) // 2))
        lines = fewer


def _without_chunks(
    lines: list[Line], size: int, disagrees: Callable[[dict[str, str]], bool]
) -> list[Line]:
    place = 0
    while place < len(lines):
        fewer = lines[:place] + lines[place + size :]
        if fewer and disagrees(together(fewer)):
            lines = fewer
        else:
            place += size
    return lines


def _without_empty_tables(
    lines: list[Line], disagrees: Callable[[dict[str, str]], bool]
) -> list[Line]:
    """iptables-restore wants both lines of a table or none."""
    place = 0
    while place + 1 < len(lines):
        (loader, first), (other, second) = lines[place : place + 2]
        fewer = lines[:place] + lines[place + 2 :]
        empty = loader == other and first.startswith("*") and second == "COMMIT"
        if empty and fewer and disagrees(together(fewer)):
            lines = fewer
        else:
            place += 1
    return lines


def together(lines: list[Line]) -> dict[str, str]:
    rules: dict[str, str] = {}
    for loader, line in lines:
        rules[loader] = rules.get(loader, "") + line + "\n"
    return rules
