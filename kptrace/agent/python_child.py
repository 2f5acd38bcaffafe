"""EDGE: another Python of ours: it finds the same kptrace as this one does, and nothing else.

In: a module of ours. Out: what ``subprocess.Popen`` wants to run it.

A single-file archive puts its modules on the path of its own process only, so a child must be told
where they are; and ``-P``, because without it ``python -m`` imports first from the current folder,
which may be anybody's, while we are root.
"""

from __future__ import annotations

import os
import sys

import kptrace

_PATH = "PYTHONPATH"


def command(module: str, *texts: str) -> list[str]:
    return [sys.executable, "-P", "-m", module, *texts]


def environ() -> dict[str, str]:
    ours = os.path.dirname(os.path.dirname(kptrace.__file__))
    theirs = os.environ.get(_PATH)
    return {**os.environ, _PATH: f"{ours}{os.pathsep}{theirs}" if theirs else ours}
