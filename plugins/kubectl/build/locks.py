"""The locked requirements: which files there are, and what stands in them.

A lock is a requirements file as ``pip install --require-hashes`` reads it: one release of each
package, with the hashes of all of its files. ``pyproject.toml`` has the ranges; ``make lock``
chooses within them.
"""

from __future__ import annotations

import re
from pathlib import Path

FOLDER = Path(__file__).with_name("requirements")
RUNTIME = FOLDER / "runtime.txt"  # what kptrace needs to run
BACKEND = FOLDER / "backend.txt"  # what its wheel is built with

_PIN = re.compile(r"([A-Za-z0-9._-]+)==([^\s;\\]+)")


def name(text: str) -> str:
    """A project's name in its normal form (PEP 503): ``PyYAML`` is ``pyyaml``."""
    return re.sub(r"[-_.]+", "-", text).lower()


def entries(lock: Path) -> dict[str, str]:
    """The requirement of each package, with marker and hashes, by the package's normal name.

    Raises ValueError where something else than a pinned release is required, or one twice.
    """
    found: dict[str, str] = {}
    text = re.sub(r"^\s*#.*\n", "", lock.read_text(encoding="utf-8"), flags=re.MULTILINE)
    for line in re.sub(r"\\\n\s*", "", text).splitlines():
        if not line.strip():
            continue
        pin = _PIN.match(line)
        if not pin:
            raise ValueError(f"{lock}: {line[:60]!r} is not NAME==VERSION")
        if name(pin[1]) in found:
            raise ValueError(f"{lock}: {pin[1]} is there twice")
        found[name(pin[1])] = line
    return found


def version(entry: str) -> str:
    """The version that an entry pins."""
    pin = _PIN.match(entry)
    assert pin, entry
    return pin[2]
