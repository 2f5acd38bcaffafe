"""Container images without a registry or a builder: files of this machine in, a tar out.

The tar is what ``docker save`` writes (one layer, a configuration, ``manifest.json``), which
containerd imports. It is made anew only when a file of it has changed. Every file belongs to root
and can be read by all; times are zero, so that equal files make equal images.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import stat
import tarfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from fnmatch import fnmatch
from pathlib import Path

from cluster.ground import home
from cluster.ground.shell import attempt

# Debian's own libraries link /lib to /usr/lib; so does an image made of them
MERGED = {"bin": "usr/bin", "sbin": "usr/sbin", "lib": "usr/lib", "lib64": "usr/lib64"}
LIBRARY = re.compile(r"^\s*(?:\S+ => )?(/\S+) \(0x", re.MULTILINE)
EXECUTABLE = b"\x7fELF"
# another cluster may be about to load an image that is older than this one
KEPT_SECONDS = 24 * 3600


@dataclass(frozen=True)
class Link:
    to: str


Content = Path | bytes | Link
Files = Mapping[str, Content]  # the path in the image, without the first slash


@dataclass(frozen=True)
class Image:
    """``name``: with its tag, as a pod names it."""

    name: str
    files: Files
    entrypoint: tuple[str, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    user: str = ""


def build_image(image: Image) -> Path:
    """The image's tar, from the cache when nothing of it has changed."""
    stem = re.sub(r"[^a-z0-9]+", "-", image.name)
    made = home.images() / f"{stem}-{_hash(image)}.tar"
    if not made.exists():
        with written(made) as new:
            new.write_bytes(_archive(image))
        for old in home.images().glob(f"{stem}-*.tar"):
            if time.time() - old.stat().st_mtime > KEPT_SECONDS:
                old.unlink(missing_ok=True)
    return made


@contextmanager
def written(path: Path) -> Iterator[Path]:
    """Write to this one, and ``path`` is whole at every moment; others may write it, too."""
    new = path.with_name(f"{path.name}.{os.getpid()}")
    try:
        yield new
        new.replace(path)
    finally:
        new.unlink(missing_ok=True)


def tree(folder: Path, into: str, without: Sequence[str] = ()) -> dict[str, Content]:
    """Every file below a folder; ``without``: names (also as ``*.x``) that are left out."""
    found: dict[str, Content] = {}
    for path in sorted(folder.iterdir()):
        if any(fnmatch(path.name, name) for name in without):
            continue
        inside = f"{into}/{path.name}"
        if path.is_symlink() and not path.readlink().is_absolute():
            found[inside] = Link(str(path.readlink()))
        elif path.is_dir():
            found.update(tree(path, inside, without))
        elif path.is_file():
            found[inside] = path
    return found


def with_libraries(files: Files) -> dict[str, Content]:
    """The files, and every shared library that their programs load, where they look for it."""
    found = dict(files)
    programs = {path.resolve() for path in files.values() if isinstance(path, Path)}
    seen: set[Path] = set()
    for program in programs:
        for library in libraries(program):
            if library not in seen:
                seen.add(library)
                found.setdefault(_merged(str(library).lstrip("/")), library)
    if seen:
        found.update({short: Link(long) for short, long in MERGED.items()})
    return found


def libraries(program: Path) -> list[Path]:
    with program.open("rb") as opened:
        if opened.read(4) != EXECUTABLE:
            return []
    return [Path(found) for found in LIBRARY.findall(attempt("ldd", program).stdout)]


def _merged(path: str) -> str:
    top, slash, rest = path.partition("/")
    return f"{MERGED.get(top, top)}{slash}{rest}"


def _archive(image: Image) -> bytes:
    layer = _layer(image.files)
    layer_id = hashlib.sha256(layer).hexdigest()
    settings: dict[str, object] = {"Env": [f"{key}={value}" for key, value in _env(image).items()]}
    if image.entrypoint:
        settings["Entrypoint"] = list(image.entrypoint)
    if image.user:
        settings["User"] = image.user
    config = {
        "architecture": _architecture(),
        "os": "linux",
        "config": settings,
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{layer_id}"]},
        "history": [{"created_by": "kptrace's tests"}],
    }
    told = json.dumps(config).encode()
    config_name = f"{hashlib.sha256(told).hexdigest()}.json"
    manifest = [
        {"Config": config_name, "RepoTags": [image.name], "Layers": [f"{layer_id}/layer.tar"]}
    ]
    return _layer(
        {
            config_name: told,
            f"{layer_id}/layer.tar": layer,
            "manifest.json": json.dumps(manifest).encode(),
        }
    )


def _env(image: Image) -> dict[str, str]:
    path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
    return {"PATH": path, **image.environment}


def _architecture() -> str:
    machine = attempt("uname", "-m").stdout.strip()
    return {"x86_64": "amd64", "aarch64": "arm64"}.get(machine, machine)


def _layer(files: Files) -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w", format=tarfile.GNU_FORMAT) as archive:
        for path in sorted(_parents(files)):
            archive.addfile(_entry(path, tarfile.DIRTYPE, 0o1777 if path == "tmp" else 0o755))
        for path, content in sorted(files.items()):
            _add(archive, path, content)
    return packed.getvalue()


def _parents(files: Files) -> set[str]:
    links = {path for path, content in files.items() if isinstance(content, Link)}
    found = {str(above) for path in files for above in Path(path).parents} - {"."}
    return found - links


def _add(archive: tarfile.TarFile, path: str, content: Content) -> None:
    if isinstance(content, Link):
        entry = _entry(path, tarfile.SYMTYPE, 0o777)
        entry.linkname = content.to
        archive.addfile(entry)
        return
    told = content.read_bytes() if isinstance(content, Path) else content
    runs = isinstance(content, Path) and content.stat().st_mode & stat.S_IXUSR
    entry = _entry(path, tarfile.REGTYPE, 0o755 if runs else 0o644)
    entry.size = len(told)
    archive.addfile(entry, io.BytesIO(told))


def _entry(path: str, kind: bytes, mode: int) -> tarfile.TarInfo:
    entry = tarfile.TarInfo(path)
    entry.type, entry.mode = kind, mode
    return entry


def _hash(image: Image) -> str:
    taken = hashlib.sha256(repr((image.name, image.entrypoint, image.user)).encode())
    taken.update(repr(sorted(image.environment.items())).encode())
    for path, content in sorted(image.files.items()):
        if isinstance(content, Path):
            now = content.stat()
            taken.update(repr((path, now.st_size, now.st_mtime_ns, now.st_mode)).encode())
        else:
            taken.update(repr((path, content)).encode())
    return taken.hexdigest()[:12]
