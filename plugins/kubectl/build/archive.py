"""Build kptrace as one file, for machines without pip: ``dist/kptrace.pyz``.

    python plugins/kubectl/build/archive.py [--platform linux/arm64] [--output FILE]

In: kptrace's source. Out: a program that needs a Python on its machine and nothing else. shiv makes
it: run for the first time, it unpacks itself below ``~/.shiv`` (or ``$SHIV_ROOT``).

Compiled modules carry the version of Python and the machine in their names, so those for several
versions lie side by side, and one file serves every Python on the machine it is for.
"""

from __future__ import annotations

import argparse
import hashlib
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from importlib.metadata import Distribution, distributions
from pathlib import Path

import cache
import locks
import wheels

ROOT = Path(__file__).resolve().parents[3]
PYTHONS = ("3.11", "3.12", "3.13", "3.14")
ENTRY = "kptrace.__main__:main"
PREAMBLE = Path(__file__).with_name("preamble.py")

# pip's names; of each it also takes what is older
PLATFORMS = {
    "linux/amd64": ("manylinux_2_28_x86_64", "manylinux_2_17_x86_64", "manylinux2014_x86_64"),
    "linux/arm64": ("manylinux_2_28_aarch64", "manylinux_2_17_aarch64", "manylinux2014_aarch64"),
    "darwin/amd64": ("macosx_14_0_x86_64",),
    "darwin/arm64": ("macosx_14_0_arm64",),
}
_MACHINES = {"x86_64": "amd64", "aarch64": "arm64", "arm64": "arm64"}


def this_platform() -> str:
    machine = platform.machine()
    return f"{platform.system().lower()}/{_MACHINES.get(machine, machine)}"


def build(target: str, output: Path) -> None:
    """target: one of ``PLATFORMS``."""
    kept = cache.folder("archive")
    with (
        cache.locked(kept),
        tempfile.TemporaryDirectory(prefix="kptrace-archive-") as folder,
    ):
        needed = _needed(target, kept)
        ours = Path(folder, "ours")
        wheels.pip(
            "install",
            *("--target", str(ours), "--no-deps", "--no-compile", "--root-user-action=ignore"),
            str(wheels.wheel(ROOT, Path(folder))),
        )
        wheels.shed(ours)
        fresh = Path(folder, "kptrace.pyz")
        arguments = (
            "--entry-point",
            ENTRY,
            "--python",
            "/usr/bin/env python3",
            "--preamble",
            PREAMBLE,
        )
        subprocess.run(
            [
                *(sys.executable, "-m", "shiv.cli", "--compressed", "--reproducible", *arguments),
                *("--site-packages", needed, "--site-packages", ours, "--output-file", fresh),
            ],
            check=True,
        )
        output.parent.mkdir(parents=True, exist_ok=True)
        shutil.move(fresh, output)


def _needed(target: str, kept: Path) -> Path:
    """A folder with all that kptrace needs there, for every version of Python."""
    parts = [target, *PYTHONS, locks.RUNTIME.read_text(), Path(__file__).read_text()]
    key = hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]
    name = target.replace("/", "-")
    folder = kept / f"{name}-{key}"
    if folder.exists():
        return folder
    print(f"fetching what kptrace needs on {target}", file=sys.stderr)
    with tempfile.TemporaryDirectory(prefix=f".{name}-", dir=kept) as work:
        path = Path(work, "packages")
        _install(target, PYTHONS[0], path, *wheels.LOCKED)
        wheels.shed(path)
        compiled = Path(work, "compiled.txt")
        compiled.write_text("\n".join(sorted(_compiled(path))))
        for version in PYTHONS[1:]:
            other = Path(work, version)
            _install(target, version, other, "--no-deps", "--require-hashes", "-r", str(compiled))
            shutil.copytree(other, path, dirs_exist_ok=True)
        path.rename(folder)
    for old in kept.glob(f"{name}-*"):
        if old != folder:
            shutil.rmtree(old)
    return folder


def _install(target: str, version: str, folder: Path, *what: str) -> None:
    meant = (word for name in PLATFORMS[target] for word in ("--platform", name))
    wheels.pip(
        "install",
        *("--target", str(folder), "--no-compile", "--root-user-action=ignore"),
        *("--python-version", version, "--only-binary=:all:", *meant, *what),
    )


def _compiled(folder: Path) -> Iterator[str]:
    """The locked requirement of each package with compiled modules."""
    locked = locks.entries(locks.RUNTIME)
    for distribution in distributions(path=[str(folder)]):
        if _has_modules(distribution):
            yield locked[locks.name(distribution.metadata["Name"])]


def _has_modules(distribution: Distribution) -> bool:
    return any(
        package_path.suffix == ".so" and Path(package_path.locate()).exists()
        for package_path in distribution.files or ()
    )


def main() -> None:
    parse = argparse.ArgumentParser(prog="archive.py", description="Build kptrace as one file.")
    parse.add_argument("--platform", choices=PLATFORMS, default=this_platform())
    parse.add_argument("--output", type=Path, default=ROOT / "dist" / "kptrace.pyz")
    args = parse.parse_args()
    build(args.platform, args.output)
    size = args.output.stat().st_size / 1e6
    print(f"{args.output}  {args.platform}, Python {PYTHONS[0]} to {PYTHONS[-1]}  {size:.0f} MB")


if __name__ == "__main__":
    main()
