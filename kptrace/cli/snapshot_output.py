"""EDGE: where a snapshot is put, and the paper that goes with it (``snapshot.json``).

Nothing is written over unless ``--force`` says so, and then only what is a snapshot or a file.
"""

from __future__ import annotations

import os
import shutil
import time
from pathlib import Path

import msgspec

from kptrace import __version__
from kptrace.bundle import archive
from kptrace.bundle.collect import CollectedState
from kptrace.model import API_VERSION, EvidenceSource, Value
from kptrace.model.errors import ObservationError, UsageError

PAPER = "snapshot.json"
ARCHIVES = (".tar.gz", ".tgz")


class SnapshotMetadata(Value):
    """missing: what could not be had, of which node, and why."""

    kptrace: str
    taken: str
    nodes: tuple[str, ...]
    missing: tuple[EvidenceSource, ...] = ()
    api_version: str = API_VERSION
    kind: str = "Snapshot"


def place_for(requested: Path | None, force: bool) -> Path:
    """Where it will be put; said before any node is asked."""
    path = requested or Path(time.strftime("kptrace-snapshot-%Y%m%d-%H%M%S.tar.gz"))
    if not path.parent.is_dir():
        raise ObservationError(f"{path} cannot be written: there is no folder {path.parent}")
    if not (path.exists() or path.is_symlink()):
        return path
    if not force:
        raise UsageError(f"{path} is already there", "give another name, or --force to replace it")
    if path.is_dir() and not is_archive(path) and not (path / PAPER).is_file():
        raise UsageError(
            f"{path} is a folder and no snapshot: it is not replaced", "give another name"
        )
    if path.is_dir() == is_archive(path):
        kind = "a folder" if path.is_dir() else "a file"
        raise UsageError(f"{path} is {kind}: it is not replaced", "give another name")
    return path


def is_archive(path: Path) -> bool:
    return path.name.endswith(ARCHIVES)


def keep(path: Path, collected_state: CollectedState, nodes: tuple[str, ...]) -> None:
    paper = SnapshotMetadata(
        kptrace=__version__,
        taken=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        nodes=nodes,
        missing=collected_state.missing,
    )
    written = msgspec.json.format(msgspec.json.encode(paper), indent=1) + b"\n"
    files = {**collected_state.files, PAPER: written}
    if is_archive(path):
        archive.write(path, files)
        return
    aside = path.with_name(f".{path.name}.{os.getpid()}.old")
    if path.is_dir():
        path.rename(aside)
    try:
        archive.write_folder(path, files)
    except BaseException:
        if aside.is_dir():
            aside.rename(path)
        raise
    shutil.rmtree(aside, ignore_errors=True)
