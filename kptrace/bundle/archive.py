"""EDGE: the files of a bundle, from a tar, a tar.gz or a folder, and back into one.

Nothing is ever unpacked to disk: an archive becomes a mapping of paths to bytes in memory, and
paths in it only name entries of that mapping. An archive that is larger than a node's state can be
is refused rather than read. What is written tells of a cluster's inside: only its owner may read
it.
"""

from __future__ import annotations

import gzip
import io
import os
import shutil
import tarfile
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath

from kptrace.model.errors import ObservationError, ParseError

# The largest state seen (10,000 Services with 50,000 endpoints) is 60 MB a node.
MOST_BYTES = 1 << 30
GZIP = b"\x1f\x8b"


def read(path: Path) -> dict[str, bytes]:
    """The files by path; a gzipped file stands under its name without ``.gz``."""
    try:
        files = dict(_folder(path) if path.is_dir() else _tar(path))
    except FileNotFoundError:
        raise ObservationError(f"there is no {path}") from None
    except (tarfile.TarError, EOFError) as error:
        raise ParseError(str(path), 0, f"no tar archive, or a damaged one: {error}") from None
    except OSError as error:
        raise ObservationError(f"{path} cannot be read: {error.strerror or error}") from None
    return dict(_plain(files))


def write(path: Path, files: Mapping[str, bytes]) -> None:
    """In one step: the file is whole or it is not there. The same files give the same bytes."""
    content = io.BytesIO()
    with (
        gzip.GzipFile(fileobj=content, mode="wb", mtime=0) as zipped,
        tarfile.open(fileobj=zipped, mode="w") as tar,
    ):
        for name in sorted(files):
            entry = tarfile.TarInfo(name)
            entry.size = len(files[name])
            entry.mode = 0o600
            tar.addfile(entry, io.BytesIO(files[name]))
    fresh = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        _put(fresh, content.getvalue())
        fresh.replace(path)
    except OSError as error:
        raise ObservationError(f"{path} cannot be written: {error.strerror or error}") from None
    finally:
        fresh.unlink(missing_ok=True)


def write_folder(path: Path, files: Mapping[str, bytes]) -> None:
    """A folder that is not there yet, in one step too."""
    fresh = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        fresh.mkdir(mode=0o700)
        for name, content in files.items():
            parts = PurePosixPath(name).parts
            if PurePosixPath(name).is_absolute() or ".." in parts:
                raise ObservationError(f"{name!r} cannot be the name of a file in {path}")
            netns = fresh.joinpath(*parts)
            netns.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            _put(netns, content)
        fresh.rename(path)
    except OSError as error:
        raise ObservationError(f"{path} cannot be written: {error.strerror or error}") from None
    finally:
        shutil.rmtree(fresh, ignore_errors=True)


def _put(path: Path, content: bytes) -> None:
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(content)


def _tar(path: Path) -> Iterator[tuple[str, bytes]]:
    room = MOST_BYTES
    content = path.read_bytes()
    if content.startswith(GZIP):
        # as a whole, because its sum stands at the end, and a tar's end comes before that
        content = _unzipped(str(path), content)
    with tarfile.open(fileobj=io.BytesIO(content), mode="r:") as tar:
        for entry in tar:
            file = tar.extractfile(entry) if entry.isreg() else None
            if file is None:
                continue
            room = _room(path, room, entry.size)
            yield entry.name.removeprefix("./"), file.read()


def _folder(path: Path) -> Iterator[tuple[str, bytes]]:
    room = MOST_BYTES
    for file in sorted(path.rglob("*")):
        if file.is_file():
            room = _room(path, room, file.stat().st_size)
            yield file.relative_to(path).as_posix(), file.read_bytes()


def _room(path: Path, room: int, size: int) -> int:
    if size > room:
        raise ParseError(str(path), 0, f"holds more than {MOST_BYTES >> 20} MiB")
    return room - size


def _plain(files: Mapping[str, bytes]) -> Iterator[tuple[str, bytes]]:
    for name, content in files.items():
        if name.endswith(".gz"):
            yield name.removesuffix(".gz"), _unzipped(name, content)
        else:
            yield name, content


def _unzipped(name: str, content: bytes) -> bytes:
    unzip = zlib.decompressobj(zlib.MAX_WBITS | 16)
    try:
        plain = unzip.decompress(content, MOST_BYTES)
    except zlib.error as error:
        raise ParseError(name, 0, f"damaged gzip: {error}") from None
    if unzip.unconsumed_tail:
        raise ParseError(name, 0, f"holds more than {MOST_BYTES >> 20} MiB")
    if not unzip.eof:
        raise ParseError(name, 0, "damaged gzip: its end is missing")
    return plain
