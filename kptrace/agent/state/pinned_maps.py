"""What is pinned in a bpffs: names, and the bytes of maps that plugins ask for.

In: the bpffs of a place. Out: text: paths, one a line; or JSON of some maps, keys and values in
hexadecimal, with the byte order that the node's kernel wrote them in. What it means is for others.
Maps are opened for reading only.
"""

from __future__ import annotations

import json
import os
import sys
from itertools import islice
from pathlib import Path

from kptrace.agent import bpf_syscall

PINS = "bpf-pins.txt"
MOST_PINS = 20_000
# a file of a dump: the maps in it, as Cilium pins them
_GLOBALS = "tc/globals"
MAPS = {
    "cilium-lb.json": tuple(
        f"cilium_lb{family}_{what}" for family in (4, 6) for what in ("services_v2", "backends_v3")
    )
}


def listing(bpffs: str) -> str:
    """Raises FileNotFoundError where there is no bpffs."""
    top = Path(bpffs)
    if not top.is_dir():
        raise FileNotFoundError(f"no {bpffs}")
    paths = (path for path in top.rglob("*") if path.is_file())
    return "".join(f"{path}\n" for path in sorted(islice(paths, MOST_PINS)))


def maps(bpffs: str, file: str) -> str:
    """Raises FileNotFoundError where none of them is pinned."""
    directory = Path(bpffs) / _GLOBALS
    paths = [directory / name for name in MAPS[file] if (directory / name).exists()]
    if not paths:
        raise FileNotFoundError(f"none of {', '.join(MAPS[file])} is pinned in {directory}")
    listing = {path.name: _read(path) for path in paths}
    return json.dumps({"byteorder": sys.byteorder, "maps": listing}, separators=(",", ":")) + "\n"


def _read(path: Path) -> dict[str, list[tuple[str, str]]]:
    fd = bpf_syscall.pinned(path)
    try:
        entries = bpf_syscall.entries(fd, bpf_syscall.shape(fd))
        return {"entries": sorted((key.hex(), value.hex()) for key, value in entries)}
    finally:
        os.close(fd)
