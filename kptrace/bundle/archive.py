"""The files of a bundle, from a tar, a tar.gz or a folder, and back into one.

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
import stat
import tarfile
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath

from kptrace.model.errors import ObservationError, ParseError

# The largest state seen (10,000 Services with 50,000 endpoints) is 60 MB a node.
MOST_BYTES = 1 << 30
GZIP = b"\x1f\x8b"
BLOCK = tarfile.BLOCKSIZE


def read(path: Path) -> dict[str, bytes]:
    """The files by path; a gzipped file stands under its name without ``.gz``."""
    try:
        budget = _Budget(path)
        files = dict(_folder(path, budget) if path.is_dir() else _tar(path, budget))
    except FileNotFoundError:
        raise ObservationError(f"there is no {path}") from None
    except (tarfile.TarError, EOFError) as error:
        raise ParseError(str(path), 0, f"not a tar archive, or a damaged one: {error}") from None
    except OSError as error:
        raise ObservationError(f"{path} cannot be read: {error.strerror or error}") from None
    return dict(_plain(files, budget))


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
            target = fresh.joinpath(*parts)
            target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            _put(target, content)
        fresh.rename(path)
    except OSError as error:
        raise ObservationError(f"{path} cannot be written: {error.strerror or error}") from None
    finally:
        shutil.rmtree(fresh, ignore_errors=True)


def _put(path: Path, content: bytes) -> None:
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(content)


class _Budget:
    """How many bytes may still be read or unpacked, over all files of one bundle."""

    def __init__(self, path: Path) -> None:
        self._path, self.left = path, MOST_BYTES

    def spend(self, size: int) -> None:
        """Raises ParseError where the bundle holds more than a node's state can be."""
        if size > self.left:
            raise ParseError(str(self._path), 0, f"holds more than {MOST_BYTES >> 20} MiB")
        self.left -= size


def _tar(path: Path, budget: _Budget) -> Iterator[tuple[str, bytes]]:
    size = regular_size(path)
    budget.spend(size)
    content = path.read_bytes()
    if content.startswith(GZIP):
        # as a whole, because its sum stands at the end, and a tar's end comes before that
        content = _unzipped(str(path), content, budget)
    end = 0
    with tarfile.open(fileobj=io.BytesIO(content), mode="r:") as tar:
        for entry in tar:
            end = entry.offset_data + (-(-entry.size // BLOCK) * BLOCK if entry.isreg() else 0)
            file = tar.extractfile(entry) if entry.isreg() else None
            if file is not None:
                budget.spend(entry.size)
                yield entry.name.removeprefix("./"), file.read()
            elif not entry.isdir():
                raise ParseError(
                    str(path), 0, f"{entry.name!r} is a {_kind(entry)}; a bundle holds files only"
                )
    if content[end : end + BLOCK] != bytes(BLOCK):
        raise ParseError(str(path), 0, "is cut off: the end of the archive is missing")


def _kind(entry: tarfile.TarInfo) -> str:
    if entry.islnk() or entry.issym():
        return "link"
    return "pipe" if entry.isfifo() else "device" if entry.isdev() else "special file"


def regular_size(path: Path) -> int:
    """The size of a regular file, without opening it. Raises ParseError for a pipe or a device,
    which reading could block on or never end; OSError where there is none.
    """
    status = path.stat()
    if not stat.S_ISREG(status.st_mode):
        raise ParseError(str(path), 0, "is not a regular file")
    return status.st_size


def _folder(path: Path, budget: _Budget) -> Iterator[tuple[str, bytes]]:
    for file in sorted(path.rglob("*")):
        if file.is_dir() or not file.exists():  # a dangling link is a missing file
            continue
        budget.spend(regular_size(file))
        yield file.relative_to(path).as_posix(), file.read_bytes()


def _plain(files: Mapping[str, bytes], budget: _Budget) -> Iterator[tuple[str, bytes]]:
    for name, content in files.items():
        if name.endswith(".gz"):
            yield name.removesuffix(".gz"), _unzipped(name, content, budget)
        else:
            yield name, content


def _unzipped(name: str, content: bytes, budget: _Budget) -> bytes:
    """Every member of a gzip file, one after the other, as gzip(1) reads them."""
    parts = []
    while content:
        unzip = zlib.decompressobj(zlib.MAX_WBITS | 16)
        try:
            part = unzip.decompress(content, budget.left + 1)
        except zlib.error as error:
            raise ParseError(name, 0, f"damaged gzip: {error}") from None
        budget.spend(len(part))
        if not unzip.eof:
            raise ParseError(name, 0, "damaged gzip: its end is missing")
        parts.append(part)
        content = unzip.unused_data.lstrip(b"\0")  # some writers pad the end
    return b"".join(parts)
