"""One entry of the catalogue of causes (causes.py), and how the tables of it are written. Pure."""

from __future__ import annotations

from kptrace.model import Value


class Cause(Value):
    """title:   what is wrong, as a heading
    meaning: what that is and what proves it, apart from what it could be mistaken for
    effect:  what users notice
    mend:    what usually mends it; a finding's own remedy names the node and the object
    """

    id: str
    title: str
    meaning: str
    effect: str
    mend: str


def catalogue(*rows: tuple[str, str, str, str, str]) -> dict[str, Cause]:
    return {
        id: Cause(id=id, title=title, meaning=meaning, effect=effect, mend=mend)
        for id, title, meaning, effect, mend in rows
    }
