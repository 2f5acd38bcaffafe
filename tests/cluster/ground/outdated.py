"""Binaries that nobody starts any more: of go.mods that were replaced. A set is half a gigabyte.

In: the folder that is about to be used. Out: those of other sets are gone, if no cluster runs on
them and for two weeks nobody asked for them.

Whoever uses a folder, or is about to build it, says so by its time of change first, and that and
the removal exclude each other (``home.alone``): what is in use or being built is never old. A
folder is renamed before it is emptied, so that one whose removal was killed is not taken for whole.
"""

from __future__ import annotations

import os
import re
import shutil
import time
from pathlib import Path

from cluster.ground import home

DAYS = 14
SET = re.compile(r"[0-9a-f]{16}")
DOOMED = ".outdated"


def use(folder: Path) -> None:
    """Keep this one, made if it is not there; remove what is outdated."""
    with home.alone():
        folder.mkdir(parents=True, exist_ok=True)
        os.utime(folder)
        kept = {folder, *home.in_use()}
        before = time.time() - DAYS * 24 * 3600
        for other in folder.parent.iterdir():
            if SET.fullmatch(other.name) and other not in kept and other.stat().st_mtime < before:
                other.rename(other.with_suffix(DOOMED))
        for doomed in folder.parent.glob(f"*{DOOMED}"):
            shutil.rmtree(doomed, ignore_errors=True)
