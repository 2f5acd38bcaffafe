"""One entry of the catalogue of causes (causes.py), and how the tables of it are written. Pure."""

from __future__ import annotations

from kptrace.model import Value


class Cause(Value):
    """title:   what is wrong, as a heading
    meaning: what that is and what proves it, apart from what it could be mistaken for
    impact:  what users notice
    fix:     what usually fixes it; the remedy of a finding names the node and the object
    """

    id: str
    title: str
    meaning: str
    impact: str
    fix: str


def catalogue(*rows: tuple[str, str, str, str, str]) -> dict[str, Cause]:
    return {
        id: Cause(id=id, title=title, meaning=meaning, impact=impact, fix=fix)
        for id, title, meaning, impact, fix in rows
    }
