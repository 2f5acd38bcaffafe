"""kptrace and what it needs, from wheels, for the Python of an image.

In: the root of kptrace's source and the tree of Debian's files. Out: folders to lay over that tree.
pip chooses wheels for the image's Python, whichever runs this, of the locked versions; the
image's own Python compiles the modules, because an agent's root file system is read-only and would
compile them at each start.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import locks

MODULES = Path("usr/lib/python3/dist-packages")

# What kptrace has no use for: the asynchronous half of the Kubernetes client with the HTTP client
# under it (a third of everything), commands made for the Python that runs pip, completions.
LEFT_OUT = (
    *("kubernetes/aio", "aiohttp", "aiohttp_retry", "aiohappyeyeballs", "aiosignal"),
    *("frozenlist", "multidict", "propcache", "yarl", "bin", "share"),
)

# 700 modules of the typed Kubernetes client, which kptrace never imports (it reads plain JSON).
NOT_COMPILED = "/kubernetes/client/(models|api)/"

# pip's words for what kptrace needs to run
LOCKED = ("--require-hashes", "--requirement", str(locks.RUNTIME))

_COMMAND = "#!/usr/bin/python3\nfrom kptrace.__main__ import main\n\nmain()\n"


def dependencies(base: Path, tree: Path) -> None:
    """All but kptrace itself."""
    _install(base, tree, *LOCKED)
    shed(tree / MODULES)
    compile_all(base, tree)


def shed(modules: Path) -> None:
    for name in LEFT_OUT:
        shutil.rmtree(modules / name, ignore_errors=True)


def kptrace(root: Path, base: Path, tree: Path) -> None:
    with tempfile.TemporaryDirectory(prefix="kptrace-wheel-") as folder:
        _install(base, tree, "--no-deps", str(wheel(root, Path(folder))))
    shed(tree / MODULES)
    command = tree / "usr/bin/kptrace"
    command.parent.mkdir(parents=True)
    command.write_text(_COMMAND)
    command.chmod(0o755)
    compile_all(base, tree)


def wheel(root: Path, folder: Path) -> Path:
    pip("wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", str(folder), str(root))
    (path,) = folder.glob("kptrace-*.whl")
    return path


def compile_all(base: Path, tree: Path) -> None:
    """By the image's Python, which the host's loader could not start: with the image's own."""
    libraries = next(base.glob("usr/lib/*/libc.so.6")).parent
    loader = next(libraries.glob("ld-linux*.so*"))
    python = (loader, "--library-path", libraries, base / "usr/bin" / f"python{_version(base)}")
    what = ("-q", "-j", "0", "--invalidation-mode", "unchecked-hash", "-x", NOT_COMPILED)
    subprocess.run(
        [*python, "-S", "-m", "compileall", *what, "-s", tree, "-p", "/", tree / "usr/lib"],
        cwd=tree,
        env={"PYTHONHOME": str(base / "usr")},
        check=True,
    )


def _install(base: Path, tree: Path, *what: str) -> None:
    version = ("--python-version", _version(base), "--only-binary=:all:")
    into = ("--target", str(tree / MODULES), "--no-compile", "--root-user-action=ignore")
    pip("install", *into, *version, *what)


def _version(base: Path) -> str:
    """``3.11``: Debian's python3 is a link to it."""
    return (base / "usr/bin/python3").readlink().name.removeprefix("python")


def pip(command: str, *texts: str) -> None:
    quiet = ("--quiet", "--disable-pip-version-check")
    subprocess.run([sys.executable, "-m", "pip", command, *quiet, *texts], check=True)
