"""Print what is installed here in another version than the lock has: ``make outdated``.

    .venv-newest/bin/python tests/tools/outdated.py

In: the packages of the Python that runs this, which were installed from the ranges, and
``tests/requirements/dev.txt``. Then what is newer still, and outside of the ranges, as pip tells.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator, Mapping
from importlib.metadata import distributions
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "plugins" / "kubectl" / "build"))

import locks  # noqa: E402 # from the folder above

LOCK = ROOT / "tests" / "requirements" / "dev.txt"
# what a virtual environment brings itself, and kptrace
NOT_LOCKED = {"pip", "setuptools", "kptrace"}


def differences(locked: Mapping[str, str], installed: Mapping[str, str]) -> Iterator[str]:
    """Both: versions by the package's normal name. A package that is locked and not installed is
    for another platform, or needed no more."""
    for name in sorted({*locked, *installed}):
        before, now = locked.get(name, "not locked"), installed.get(name, "not installed")
        if before != now:
            yield f"{name:25} {before:20} {now}"


def beyond() -> Iterator[str]:
    """The packages whose newest version the ranges do not allow: ``name installed newest``."""
    command = [sys.executable, "-m", "pip", "list", "--outdated", "--format=json"]
    done = subprocess.run(
        [*command, "--disable-pip-version-check"], capture_output=True, text=True, check=True
    )
    for each in json.loads(done.stdout):
        if (name := locks.name(each["name"])) not in NOT_LOCKED:
            yield f"{name:25} {each['version']:20} {each['latest_version']}"


def main() -> None:
    locked = {name: locks.version(entry) for name, entry in locks.entries(LOCK).items()}
    here = {locks.name(each.metadata["Name"]): each.version for each in distributions()}
    installed = {name: version for name, version in here.items() if name not in NOT_LOCKED}
    _table("package", "locked", "installed", differences(locked, installed))
    _table("outside of the ranges", "installed", "newest", beyond())


def _table(first: str, second: str, third: str, rows: Iterator[str]) -> None:
    print("\n".join([f"\n{first:25} {second:20} {third}", *(list(rows) or ["(none)"])]))


if __name__ == "__main__":
    main()
