"""Build the agent's image without a container tool and without a registry, on Debian.

    python plugins/kubectl/build/image.py [--name NAME] [--output FILE] [--root FOLDER]

Out: an archive for ``ctr -n k8s.io images import``, ``docker load`` or ``podman load``. Three
layers: Debian's packages, Python's packages, kptrace. Each is kept by what it is made of, so only
what changed is made again; ``plugins/kubectl/Containerfile`` says the same to container tools.
No root is needed, and nothing outside of the cache and the output is written.
"""

from __future__ import annotations

import argparse
import hashlib
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path

import cache
import debian
import locks
import oci
import wheels
from kptrace import __version__
from kptrace.kube.agents.manifest import IMAGE

ROOT = Path(__file__).resolve().parents[3]
HERE = Path(__file__).parent
# what a layer depends on beside what is in it
OURS = ("image", "debian", "wheels", "oci")

CONFIG = {
    "Entrypoint": ["kptrace"],
    "Env": [
        "PATH=/usr/sbin:/usr/bin",
        "LANG=C.UTF-8",
        "XDG_CACHE_HOME=/tmp",  # scapy makes a folder there
    ],
    "WorkingDir": "/",
}


def layers(kept: Path) -> list[oci.Layer]:
    debs = debian.archives(kept / "debian")
    with tempfile.TemporaryDirectory(prefix="kptrace-image-") as work:
        base = Path(work, "base")

        def unpacked() -> Path:
            if not base.exists():
                debian.unpack(debs, base)
            return base

        def debian_files(tree: Path) -> None:
            wheels.compile_all(unpacked(), unpacked())
            base.rename(tree)
            base.symlink_to(tree)

        def dependencies(tree: Path) -> None:
            wheels.dependencies(unpacked(), tree)

        def ours(tree: Path) -> None:
            wheels.kptrace(ROOT, unpacked(), tree)

        parts: list[tuple[str, Callable[[Path], None], Iterable[bytes]]] = [
            ("debian", debian_files, [deb.name.encode() for deb in debs]),
            ("dependencies", dependencies, [locks.RUNTIME.read_bytes()]),
            ("kptrace", ours, _sources()),
        ]
        image_layers, digest = [], _digest((HERE / f"{module}.py").read_bytes() for module in OURS)
        for name, fill, of in parts:
            digest = _digest([digest.encode(), *of])
            file = kept / f"{name}-{digest}.tar.gz"
            image_layers.append(oci.kept(file) or _layer(Path(work, name), fill, file))
            _forget(kept, name, file)
        return image_layers


def _layer(tree: Path, fill: Callable[[Path], None], file: Path) -> oci.Layer:
    print(f"making the layer {tree.name}", file=sys.stderr)
    fill(tree)
    return oci.layer(tree, file)


def _sources() -> Iterable[bytes]:
    for folder in ("kptrace", "plugins/kptrace_plugins"):
        for path in sorted((ROOT / folder).rglob("*")):
            if path.is_file() and "__pycache__" not in path.parts:
                yield str(path.relative_to(ROOT)).encode()
                yield path.read_bytes()


def _digest(parts: Iterable[bytes]) -> str:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(len(part).to_bytes(8, "big") + part)
    return digest.hexdigest()[:16]


def _forget(kept: Path, name: str, but: Path) -> None:
    """Of each layer the newest two are kept: another tree of sources may be at work too."""
    old = sorted(kept.glob(f"{name}-*.tar.gz"), key=lambda path: path.stat().st_mtime)
    for path in [path for path in old if path != but][:-1]:
        path.unlink(missing_ok=True)
        path.with_suffix(".digest").unlink(missing_ok=True)


def main() -> None:
    parse = argparse.ArgumentParser(prog="image.py", description="Build the image of the agent.")
    parse.add_argument("--name", default=IMAGE)
    parse.add_argument("--output", type=Path, default=ROOT / "dist" / "kptrace-image.tar")
    parse.add_argument("--root", type=Path, help="also unpack its root file system here")
    args = parse.parse_args()
    kept = cache.folder("image")
    with cache.locked(kept):
        _write(args.name, args.output, args.root, kept)


def _write(name: str, output: Path, root: Path | None, kept: Path) -> None:
    command_line = layers(kept)
    machine = subprocess.check_output(["dpkg", "--print-architecture"], text=True).strip()
    label = "org.opencontainers.image"
    labels = {
        f"{label}.title": "kptrace",
        f"{label}.version": __version__,
        f"{label}.licenses": "Apache-2.0",
    }
    config = {"architecture": machine, "os": "linux", "config": {**CONFIG, "Labels": labels}}
    digest = oci.archive(command_line, config, name, output)
    if root is not None:
        oci.extract(command_line, root)
    size = output.stat().st_size / 1e6
    print(f"{output}  {name}  {digest}  {size:.0f} MB")


if __name__ == "__main__":
    main()
