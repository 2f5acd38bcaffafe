"""Write the locked requirements anew, and try that they can be installed where they must.

    python tests/tools/lock.py [--check] [--upgrade | --upgrade-package NAME ...]

In: the ranges of ``pyproject.toml`` and of ``tests/requirements/*.in``. Out: the ``*.txt`` that pip
installs from. A version that is locked already stays while the ranges allow it; ``--upgrade`` takes
the newest. uv chooses one release of each package for all versions of Python and all platforms at
once, and writes the hashes of all files of that release.

Then pip chooses the files for each platform and each Python that a lock is for, as it would there:
a release without a wheel for one of them is found now and not on a user's machine. ``--check`` does
this alone.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "plugins" / "kubectl" / "build"))

import archive  # noqa: E402 # from the folder above
import locks  # noqa: E402

TESTS = ROOT / "tests" / "requirements"
LINUX = ("linux/amd64", "linux/arm64")


class Lock(NamedTuple):
    output: Path
    ranges: tuple[Path, ...]  # files with ranges; pyproject.toml stands for its dependencies
    build_system: bool = False  # also the build backend of pyproject.toml
    platforms: tuple[str, ...] = LINUX
    pythons: tuple[str, ...] = archive.PYTHONS

    @property
    def name(self) -> str:
        return str(self.output.relative_to(ROOT))


PROJECT = ROOT / "pyproject.toml"
LOCKS = (
    Lock(locks.RUNTIME, (PROJECT,), platforms=tuple(archive.PLATFORMS)),
    Lock(locks.BACKEND, (), build_system=True, platforms=tuple(archive.PLATFORMS)),
    Lock(TESTS / "dev.txt", (PROJECT, TESTS / "dev.in"), build_system=True),
    Lock(
        TESTS / "fuzz.txt",
        (TESTS / "fuzz.in",),
        platforms=LINUX[:1],
        pythons=("3.11", "3.12", "3.13"),
    ),
    Lock(TESTS / "go.txt", (TESTS / "go.in",)),
    Lock(TESTS / "lock.txt", (TESTS / "lock.in",)),
)


def ranges(lock: Lock) -> Iterator[str]:
    """The requirements that a lock must satisfy, as they were written."""
    project = tomllib.loads(PROJECT.read_text(encoding="utf-8"))
    for path in lock.ranges:
        if path == PROJECT:
            yield from project["project"]["dependencies"]
        else:
            lines = (line.partition(" #")[0].strip() for line in path.read_text().splitlines())
            yield from (line for line in lines if line and not line.startswith("#"))
    if lock.build_system:
        yield from project["build-system"]["requires"]


def write(lock: Lock, options: list[str]) -> None:
    earlier = LOCKS[: LOCKS.index(lock)]
    agree = [word for other in earlier for word in ("--constraint", other.output)]
    command = [
        *("uv", "pip", "compile", "--quiet", "--no-config", "--universal", "--generate-hashes"),
        *("--python-version", archive.PYTHONS[0], "--annotation-style", "line"),
        *("--custom-compile-command", "make lock", *options, *agree),
        *("--output-file", lock.output, "-"),
    ]
    subprocess.run(
        [sys.executable, "-m", *command],
        input="\n".join(ranges(lock)),
        text=True,
        cwd=ROOT,
        check=True,
    )


def problems(lock: Lock, platform: str, python: str) -> str:
    """What pip says where it cannot install; empty: it can."""
    tags = [word for tag in archive.PLATFORMS[platform] for word in ("--platform", tag)]
    with tempfile.TemporaryDirectory(prefix="kptrace-lock-") as folder:
        done = subprocess.run(
            [
                *(sys.executable, "-m", "pip", "install", "--dry-run", "--quiet"),
                *("--disable-pip-version-check", "--target", folder, "--only-binary=:all:"),
                *("--python-version", python, *tags),
                *("--require-hashes", "--requirement", lock.output),
            ],
            capture_output=True,
            text=True,
            check=False,
        )
    return f"{lock.name}, {platform}, Python {python}:\n{done.stderr}" if done.returncode else ""


def check() -> list[str]:
    """The problems of all locks, on each platform and with each Python that they are for."""
    jobs = [
        (lock, platform, python)
        for lock in LOCKS
        for platform in lock.platforms
        for python in lock.pythons
    ]
    print(f"trying {len(jobs)} installations, which takes minutes", file=sys.stderr)
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return [said for said in pool.map(lambda job: problems(*job), jobs) if said]


def main() -> None:
    parse = argparse.ArgumentParser(prog="lock.py", description="Write the locked requirements.")
    parse.add_argument("--check", action="store_true", help="write nothing")
    parse.add_argument("--upgrade", action="store_true", help="take the newest versions")
    parse.add_argument("--upgrade-package", action="append", default=[], metavar="NAME")
    args = parse.parse_args()
    options = ["--upgrade"] if args.upgrade else []
    options += [word for name in args.upgrade_package for word in ("--upgrade-package", name)]
    if not args.check:
        for lock in LOCKS:
            write(lock, options)
            print(f"{lock.name}: {len(locks.entries(lock.output))} packages", file=sys.stderr)
    if said := check():
        raise SystemExit("\n".join(said))


if __name__ == "__main__":
    main()
