"""Folders as the layers of one image, in one archive that every container tool reads.

In: a folder a layer. Out: a tar that is an OCI image layout (what ``ctr images import``,
``podman load`` and ``skopeo`` read) and has Docker's ``manifest.json`` over the same blobs
(``docker load``). Names, owners, modes and contents decide its bytes, times do not.

The layout: github.com/opencontainers/image-spec, image-layout.md; that containerd takes the
image's name from the annotation ``io.containerd.image.name``: its images/archive/importer.go.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import tarfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

_OCI = "application/vnd.oci.image"
_WORLD_WRITABLE = frozenset(("tmp",))


class Layer(NamedTuple):
    """A gzipped tar in a file; ``content`` is the digest of what it holds, ungzipped."""

    file: Path
    content: str


def layer(tree: Path, file: Path) -> Layer:
    """The folder's files as a layer, all root's."""
    fresh = file.with_suffix(f".{os.getpid()}.part")  # another build may make the same one
    with (
        fresh.open("wb") as raw,
        gzip.GzipFile(filename="", fileobj=raw, mode="wb", compresslevel=6, mtime=0) as zipped,
        tarfile.open(fileobj=zipped, mode="w") as tar,
    ):
        for path in sorted(tree.rglob("*")):
            tar.add(path, str(path.relative_to(tree)), recursive=False, filter=_plain)
    with gzip.open(fresh) as content:
        digest = hashlib.file_digest(content, "sha256").hexdigest()
    new_layer = Layer(file, f"sha256:{digest}")
    _content_file(file).write_text(new_layer.content)
    fresh.rename(file)
    return new_layer


def kept(file: Path) -> Layer | None:
    """The layer that was made earlier, if it was."""
    return Layer(file, _content_file(file).read_text()) if file.exists() else None


def archive(layers: Sequence[Layer], config: Mapping[str, Any], name: str, output: Path) -> str:
    """``config``: an OCI image configuration without its ``rootfs``. Returns the image's digest."""
    config_json = {
        **config,
        "rootfs": {"type": "layers", "diff_ids": [layer.content for layer in layers]},
    }
    about = _json(config_json)
    blobs = [_blob(f"{_OCI}.layer.v1.tar+gzip", layer.file) for layer in layers]
    described = _described(f"{_OCI}.config.v1+json", about)
    manifest = _json(
        {
            "schemaVersion": 2,
            "mediaType": f"{_OCI}.manifest.v1+json",
            "config": described,
            "layers": blobs,
        }
    )
    listed = _described(f"{_OCI}.manifest.v1+json", manifest)
    named = {"io.containerd.image.name": name, "org.opencontainers.image.ref.name": name}
    platform = {"architecture": config["architecture"], "os": config["os"]}
    index = {"schemaVersion": 2, "mediaType": f"{_OCI}.index.v1+json"}
    index["manifests"] = [{**listed, "annotations": named, "platform": platform}]
    docker = {
        "Config": _path(described),
        "RepoTags": [name],
        "Layers": [_path(blob) for blob in blobs],
    }
    output.parent.mkdir(parents=True, exist_ok=True)
    fresh = output.with_name(f".{output.name}.part")
    with tarfile.open(fresh, "w") as tar:
        _add(tar, "oci-layout", _json({"imageLayoutVersion": "1.0.0"}))
        _add(tar, "index.json", _json(index))
        _add(tar, "manifest.json", _json([docker]))
        _add(tar, _path(described), about)
        _add(tar, _path(listed), manifest)
        for item, blob in zip(layers, blobs, strict=True):
            entry = tarfile.TarInfo(_path(blob))
            entry.size = blob["size"]
            with item.file.open("rb") as content:
                tar.addfile(entry, content)
    fresh.rename(output)
    return str(listed["digest"])


def extract(layers: Iterable[Layer], root: Path) -> None:
    """What a runtime makes of the layers: the image's root file system."""
    for layer in layers:
        with tarfile.open(layer.file) as tar:
            tar.extractall(root)


def _plain(entry: tarfile.TarInfo) -> tarfile.TarInfo:
    entry.uid = entry.gid = 0
    entry.uname = entry.gname = "root"
    entry.mtime = 0
    if entry.name in _WORLD_WRITABLE:
        entry.mode = 0o1777
    return entry


def _content_file(file: Path) -> Path:
    return file.with_suffix(".digest")


def _json(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":"), sort_keys=True).encode()


def _blob(kind: str, file: Path) -> dict[str, Any]:
    with file.open("rb") as content:
        digest = hashlib.file_digest(content, "sha256").hexdigest()
    return {"mediaType": kind, "digest": f"sha256:{digest}", "size": file.stat().st_size}


def _described(kind: str, content: bytes) -> dict[str, Any]:
    digest = hashlib.sha256(content).hexdigest()
    return {"mediaType": kind, "digest": f"sha256:{digest}", "size": len(content)}


def _path(blob: Mapping[str, Any]) -> str:
    return f"blobs/sha256/{blob['digest'].removeprefix('sha256:')}"


def _add(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    entry = tarfile.TarInfo(name)
    entry.size = len(content)
    tar.addfile(entry, io.BytesIO(content))
