"""What may have been meant by a name that is not there. Pure.

In: what was typed, and the names that there are. Out: a line for a hint.
"""

from __future__ import annotations

from collections.abc import Iterable

LIKE = 0.6  # difflib's measure: 1 is the same, below this two words have little in common
MOST = 8


def nearest(name: str, known: Iterable[str]) -> str:
    """Empty: none is like it."""
    from difflib import get_close_matches  # few need it

    return next(iter(get_close_matches(name, tuple(known), 1, LIKE)), "")


def suggestion(name: str, known: Iterable[str], prefix: str = "") -> str:
    """``did you mean pod/client?``; where none is like it, which there are; empty: none."""
    names = tuple(dict.fromkeys(known))
    near = nearest(name, names)
    if near:
        return f"did you mean {prefix}{near}?"
    if not names:
        return ""
    few = ", ".join(f"{prefix}{one}" for one in names[:MOST])
    return f"there {'is' if len(names) == 1 else 'are'}: {few}{', ...' * (len(names) > MOST)}"


def suggestion_for_key(key: str, keys: Iterable[str], prefix: str) -> str:
    """The same for ``namespace/name``: its namesakes elsewhere, then its own namespace's names."""
    namespace, _, name = key.partition("/")
    known: dict[str, list[str]] = {}
    for one in keys:
        space, _, bare = one.partition("/")
        known.setdefault(space, []).append(bare)
    own = known.pop(namespace, [])
    for space, names in known.items():
        if name in names:
            return f"there is one in namespace {space}: add -n {space}"
    if not nearest(name, own):
        for space, names in known.items():
            if near := nearest(name, names):
                return f"did you mean {prefix}{near} -n {space}?"
    return suggestion(name, own, prefix)
