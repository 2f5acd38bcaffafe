"""Read ``ipset list`` (ipset(8)): what it prints becomes the text of ``ipset save``."""

from __future__ import annotations

import re

from kptrace.model.errors import ParseError

_LOOKS = re.compile(r"^[^\S\n]*Name: \S+[^\S\n]*\n\s*Type: (?:hash|bitmap|list):", re.MULTILINE)
_HINT = "take it with: ipset save (or ipset list), whole and unedited"


def looks_like(text: str) -> bool:
    """Whether a text has the head of a set as ``ipset list`` prints it."""
    return _LOOKS.search(text) is not None


def listing_to_save(text: str, name: str) -> str:
    """The sets of a text as ``ipset save`` prints them.

    ``name``: what to call the text in errors. Raises ParseError for a line of another form.
    """
    lines: list[str] = []
    set_name, method, members = "", "", False
    for number, line in enumerate(text.splitlines(), start=1):
        key, colon, value = line.strip().partition(":")
        if key == "Name" and colon:
            set_name, method, members = value.strip(), "", False
        elif members and line.strip():
            lines.append(f"add {set_name} {line.strip()}")
        elif key == "Type" and colon:
            method = value.strip()
        elif key == "Header" and colon and set_name and method:
            lines.append(f"create {set_name} {method} {value.strip()}".rstrip())
        elif key == "Members" and colon:
            members = True
        elif line.strip() and not line.startswith("#") and key not in _IGNORED:
            raise ParseError(name, number, f"{line[:60]!r} is no line of ipset list", _HINT)
    return "".join(f"{line}\n" for line in lines)


_IGNORED = ("Revision", "Size in memory", "References", "Number of entries")
