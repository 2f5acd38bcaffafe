"""The agent as a program that travels: for images that hold Python, and not this kptrace.

In: what the remote Python says of itself. Out: an archive for its stdin.

``BOOT`` runs there (``python3 -c``) and first prints one line about what it found. If the agent's
sources are the same as here (``source_checksum``), the agent starts at once. Else it reads
``SIZE\\n`` and so many bytes of a zip, unpacks them into the container's /tmp (nothing can be
executed in /dev/shm) and starts the agent from there. What is sent is the agent's own closure
(``agent/sources.py``). Only the standard library and msgspec are needed on a node. msgspec is
compiled: ours is packed in if it is for that Python, machine and C library; else an image brings
its own.
"""

from __future__ import annotations

import io
import platform
import sys
import zipfile
from collections.abc import Iterator, Sequence
from inspect import getsource
from pathlib import Path

import msgspec

import kptrace
from kptrace.agent.sources import FILES
from kptrace.model.errors import UnsupportedError

PACKAGE = Path(kptrace.__file__).parent
_LEFT_OUT = ("__pycache__", ".pyi")


def source_checksum(root: str, files: Sequence[str]) -> str:
    """A checksum of the agent's sources: two that have one version need not be the same.

    root: the folder of the package kptrace; files: paths below it
    """
    import os
    import zlib

    checksum = 0
    for name in files:
        with open(os.path.join(root, name), "rb") as file:
            checksum = zlib.crc32(file.read(), checksum)
    return f"{checksum:08x}"


BOOT = f"""
from __future__ import annotations
{getsource(source_checksum)}
import io, json, os, shutil, subprocess, sys, sysconfig, tempfile, zipfile
from importlib.util import find_spec
spec = find_spec("kptrace")
try:
    root = os.path.dirname(spec.origin) if spec and spec.origin else ""
    found = source_checksum(root, sys.argv[2:]) if root else ""
except OSError:
    found = "?"
same = found == sys.argv[1] and find_spec("msgspec") is not None
word = {{"same": same, "python": "%d.%d" % sys.version_info[:2],
        "abi": str(sysconfig.get_config_var("SOABI")), "msgspec": find_spec("msgspec") is not None}}
os.write(1, json.dumps(word).encode() + b"\\n")
if same:
    from kptrace.agent.server import main
    main()
size = b""
while not size.endswith(b"\\n"):
    size += os.read(0, 1) or sys.exit(0)
data = b""
while len(data) < int(size):
    data += os.read(0, int(size) - len(data)) or sys.exit(0)
home = tempfile.mkdtemp(prefix="kptrace-")
try:
    zipfile.ZipFile(io.BytesIO(data)).extractall(home)
    code = subprocess.call([sys.executable, "-m", "kptrace.agent.server"],
                           env=dict(os.environ, PYTHONPATH=home, PYTHONDONTWRITEBYTECODE="1"))
finally:
    shutil.rmtree(home, ignore_errors=True)
sys.exit(code)
"""


class RemotePythonInfo(msgspec.Struct, frozen=True):
    """What a Python says of itself."""

    same: bool
    python: str
    abi: str
    msgspec: bool


def command() -> tuple[str, ...]:
    """The command of the exec stream: Python with ``BOOT``, the checksum and the files it is of."""
    return ("python3", "-c", BOOT, source_checksum(str(PACKAGE), FILES), *FILES)


def payload(word: RemotePythonInfo, image: str) -> bytes:
    """What that Python lacks, as it is to be written to it. Raises Unsupported."""
    if tuple(map(int, word.python.split("."))) < (3, 11):
        raise UnsupportedError(
            f"the image {image} has Python {word.python}, and the agent needs 3.11",
            f"give --image python:{_own_version()}, or an image of kptrace",
        )
    if not word.msgspec and not (_msgspec() / f"_core.{word.abi}.so").exists():
        raise UnsupportedError(
            f"the image {image} has Python {word.python} ({word.abi}) without msgspec, "
            "and this kptrace has none for it to carry",
            f"give --image python:{_own_version()}, or an image of kptrace"
            + ("" if platform.machine() in word.abi else " made for the node's processor"),
        )
    bytes_io = io.BytesIO()
    with zipfile.ZipFile(bytes_io, "w", zipfile.ZIP_DEFLATED, compresslevel=6) as archive:
        for path, name in _files(with_msgspec=not word.msgspec):
            archive.write(path, name)
    data = bytes_io.getvalue()
    return b"%d\n" % len(data) + data


def _files(with_msgspec: bool) -> Iterator[tuple[Path, str]]:
    """Path and name in the archive of each file that is sent."""
    for name in FILES:
        yield PACKAGE / name, f"{PACKAGE.name}/{name}"
    if not with_msgspec:
        return
    package = _msgspec()
    for path in sorted(package.rglob("*")):
        name = str(path.relative_to(package.parent))
        if path.is_file() and not any(part in name for part in _LEFT_OUT):
            yield path, name


def _msgspec() -> Path:
    """A single-file kptrace has it compiled for several Pythons, side by side."""
    return Path(msgspec.__file__).parent


def _own_version() -> str:
    return f"{sys.version_info.major}.{sys.version_info.minor}"
