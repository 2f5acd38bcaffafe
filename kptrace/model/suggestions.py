"""What may have been meant by a name that does not exist."""

from __future__ import annotations

from collections.abc import Iterable

SIMILARITY = 0.6  # difflib's measure: 1 is the same, below this two words have little in common
MAX_SUGGESTIONS = 8


def nearest(name: str, known: Iterable[str]) -> str:
    """Return the known name that is most like ``name``; empty: none is like it."""
    from difflib import get_close_matches  # few need it

    return next(iter(get_close_matches(name, tuple(known), 1, SIMILARITY)), "")


def suggestion(name: str, known: Iterable[str], prefix: str = "") -> str:
    """Return ``did you mean pod/client?``, or which names there are; empty: there are none."""
    names = tuple(dict.fromkeys(known))
    near = nearest(name, names)
    if near:
        return f"did you mean {prefix}{near}?"
    if not names:
        return ""
    few = ", ".join(f"{prefix}{name}" for name in names[:MAX_SUGGESTIONS])
    more = ", ..." if len(names) > MAX_SUGGESTIONS else ""
    return f"there {'is' if len(names) == 1 else 'are'}: {few}{more}"


def suggestion_for_key(key: str, keys: Iterable[str], prefix: str) -> str:
    """Return a suggestion for ``namespace/name``: the same name elsewhere, then its own
    namespace's.
    """
    namespace, _, name = key.partition("/")
    known: dict[str, list[str]] = {}
    for known_key in keys:
        space, _, bare = known_key.partition("/")
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
