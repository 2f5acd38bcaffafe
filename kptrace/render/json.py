"""A report as a document for programs: JSON or YAML, the same content in the same order. Pure.

``apiVersion`` and ``kind`` come first, as kubectl has it; every key is always there. What a
terminal could take as a command (the C1 characters, DEL) or could turn around (bidirectional
overrides) is written as ``\\uXXXX``, which both formats read as the same text.
"""

from __future__ import annotations

import re
from typing import Any

import msgspec

from kptrace.model import Value

# JSON holds no control character as it is, and all else only inside of strings.
UNPRINTABLE = re.compile(r"[^\x20-\x7e\n]")


def json(report: Value) -> str:
    written = msgspec.json.format(msgspec.json.encode(_ordered(report)), indent=2).decode()
    return UNPRINTABLE.sub(_escaped, written) + "\n"


def yaml(report: Value) -> str:
    from yaml import safe_dump

    return str(safe_dump(_ordered(report), sort_keys=False, default_flow_style=False))


def _ordered(report: Value) -> dict[str, Any]:
    document: dict[str, Any] = msgspec.to_builtins(report)
    return {"apiVersion": document["apiVersion"], "kind": document["kind"], **document}


def _escaped(match: re.Match[str]) -> str:
    character = match.group()
    if character.isprintable():
        return character
    units = character.encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{units[i] << 8 | units[i + 1]:04x}" for i in range(0, len(units), 2))
