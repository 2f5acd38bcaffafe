"""Build what krew installs: an archive for each platform, and the manifest with their sums.

    python plugins/kubectl/build/krew.py [--platform linux/amd64 ...] [--output dist/krew]

In: ``plugins/kubectl/kptrace.yaml``, whose sums are zeros, and kptrace's source. Out: a folder with
``kptrace-OS-ARCH.tar.gz`` for each platform that was asked for and ``kptrace.yaml`` with just
these. An archive holds the single file, the licence and the completions, as plain files: krew
unpacks nothing else.
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import io
import re
import sys
import tarfile
import tempfile
from pathlib import Path

import archive
from kptrace import __version__

ROOT = Path(__file__).resolve().parents[3]
MANIFEST = ROOT / "plugins" / "kubectl" / "kptrace.yaml"
COMPLETIONS = ("kubectl_complete-kptrace", "kptrace.bash", "_kptrace", "kptrace.fish")
ZEROS = "0" * 64
BLOCK = "  - selector:\n"  # begins what the manifest says of one platform


def build(platforms: list[str], output: Path) -> Path:
    """The manifest's path."""
    text = MANIFEST.read_text(encoding="utf-8")
    if f"version: v{__version__}\n" not in text:
        raise SystemExit(f"{MANIFEST} is not of version v{__version__}")
    output.mkdir(parents=True, exist_ok=True)
    head, *blocks = text.split(BLOCK)
    texts = [head]
    for platform in platforms:
        name = f"kptrace-{platform.replace('/', '-')}.tar.gz"
        print(f"building {name}", file=sys.stderr)
        digest = _packed(platform, output / name)
        (block,) = [block for block in blocks if f"/{name}\n" in block]
        texts.append(block.replace(ZEROS, digest))
    manifest = output / MANIFEST.name
    manifest.write_text(re.sub(r"^#.*\n", "", BLOCK.join(texts), flags=re.MULTILINE), "utf-8")
    return manifest


def _packed(platform: str, file: Path) -> str:
    """Writes the archive; its sum."""
    with tempfile.TemporaryDirectory(prefix="kptrace-krew-") as folder:
        program = Path(folder, "kptrace")
        archive.build(platform, program)
        content = io.BytesIO()
        with (
            gzip.GzipFile(filename="", fileobj=content, mode="wb", mtime=0) as zipped,
            tarfile.open(fileobj=zipped, mode="w", format=tarfile.USTAR_FORMAT) as tar,
        ):
            _add(tar, program, "kptrace", 0o755)
            _add(tar, ROOT / "LICENSE", "LICENSE", 0o644)
            for name in COMPLETIONS:
                path = ROOT / "completions" / name
                _add(tar, path, f"completions/{name}", path.stat().st_mode & 0o755)
    file.write_bytes(content.getvalue())
    return hashlib.sha256(content.getvalue()).hexdigest()


def _add(tar: tarfile.TarFile, path: Path, name: str, mode: int) -> None:
    entry = tarfile.TarInfo(name)
    entry.size = path.stat().st_size
    entry.mode = mode
    with path.open("rb") as content:
        tar.addfile(entry, content)


def main() -> None:
    parse = argparse.ArgumentParser(prog="krew.py", description="Build what krew installs.")
    parse.add_argument("--platform", action="append", choices=archive.PLATFORMS)
    parse.add_argument("--output", type=Path, default=ROOT / "dist" / "krew")
    args = parse.parse_args()
    print(build(args.platform or list(archive.PLATFORMS), args.output))


if __name__ == "__main__":
    main()
