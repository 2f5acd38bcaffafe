"""The entry points of one group that installed packages declare.

They are read from the ``entry_points.txt`` of each package on Python's path, as
``importlib.metadata`` does (packaging.python.org, Entry points specification). That imports the
readers of mail and of archives and costs 20 to 40 ms, so it is asked only where a part of the path
is no plain folder.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator
from importlib import import_module

_METADATA = (".dist-info", ".egg-info")
_RUN = re.compile(r"[-_.]+")  # one and the same in a name
_VALUE = re.compile(r"([\w.]+)\s*(?::\s*([\w.]+))?\s*(?:\[.*\])?")


class _NoFolder(Exception):
    """A part of the path is an archive or an egg, which ``importlib.metadata`` has to read."""


def registered(group: str) -> list[tuple[str, str]]:
    """Return (name, value) of each entry point of the group, sorted by name.

    A value is ``package.module`` or ``package.module:object``.
    """
    try:
        texts = list(_texts())
    except _NoFolder:
        from importlib.metadata import entry_points

        return sorted((one.name, one.value) for one in entry_points(group=group))
    return sorted(pair for text in texts for pair in _listed(text, group))


def load_object(value: str) -> object:
    """Import the object of an entry point. Raises ValueError for a value that names none."""
    parts = _VALUE.fullmatch(value)
    if parts is None:
        raise ValueError(f"{value!r} names no object")
    meant: object = import_module(parts[1])
    for name in (parts[2] or "").split("."):
        meant = getattr(meant, name) if name else meant
    return meant


def _texts() -> Iterator[str]:
    """Yield each package's entry points once: the first on the path hides those further on."""
    seen = set[str]()
    for folder in sys.path:
        try:
            names = os.listdir(folder or ".")
        except FileNotFoundError:
            continue
        except OSError:
            raise _NoFolder from None
        if folder.endswith(".egg"):
            raise _NoFolder
        for name in names:
            stem, kind = os.path.splitext(name.lower())
            package = _RUN.sub("_", stem.partition("-")[0])
            if kind in _METADATA and package not in seen:
                seen.add(package)
                yield _text(os.path.join(folder, name, "entry_points.txt"))


def _text(path: str) -> str:
    try:
        with open(path, encoding="utf-8") as file:
            return file.read()
    except OSError:
        return ""  # most packages have none


def _listed(text: str, group: str) -> Iterator[tuple[str, str]]:
    inside = False
    for line in map(str.strip, text.split("\n")):
        if line.startswith("["):
            inside = line == f"[{group}]"
        elif inside and "=" in line and not line.startswith(("#", ";")):
            name, _, value = line.partition("=")
            yield name.strip(), value.strip()
