"""Checks that the tests mirror the code: the test of ``kptrace/a/b.py`` is ``tests/a/test_b.py``.

Prints each module without one and exits with 1, but for those in ``EXCEPTIONS``, which names for
each the test that covers it or the reason why there is none. Also prints a test file whose module
is gone.
"""

from __future__ import annotations

import ast
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
PACKAGE, TESTS = ROOT / "kptrace", ROOT / "tests"
EXCEPTIONS: dict[str, str] = {}


def modules() -> dict[str, Path]:
    """Every module with code of its own, by its path below ``kptrace``."""
    paths = sorted(PACKAGE.rglob("*.py"))
    return {path.relative_to(PACKAGE).as_posix(): path for path in paths if _has_code(path)}


def _has_code(path: Path) -> bool:
    """Whether it defines a function or a class with a method: plain values need no test."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return any(isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) for node in ast.walk(tree))


def test_of(module: str) -> Path:
    folder, _, name = module.rpartition("/")
    return TESTS / folder / f"test_{name}"


def main() -> int:
    known = modules()
    missing = [name for name in known if not test_of(name).exists() and name not in EXCEPTIONS]
    stale = [name for name in EXCEPTIONS if name not in known or test_of(name).exists()]
    for name in missing:
        print(f"kptrace/{name} has no test: expected {test_of(name).relative_to(ROOT)}")
    for name in stale:
        print(f"{Path(__file__).name}: {name} is no exception any more")
    return 1 if missing or stale else 0


if __name__ == "__main__":
    sys.exit(main())
