"""Hold what kptrace imports, what it declares and what is locked against each other.

    python tests/tools/dependencies.py

Prints what does not fit, and exits with 1 then. It needs no network. Three things hold: each
package that a module below ``kptrace/`` or ``plugins/kptrace_plugins/`` imports is declared in
``pyproject.toml``, not merely brought along by another; each that is declared is imported; and
each lock has a version within the ranges for all that was asked for, with hashes, on every
platform.
"""

from __future__ import annotations

import ast
import sys
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from importlib.metadata import packages_distributions
from pathlib import Path

from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "plugins" / "kubectl" / "build"))
sys.path.insert(0, str(Path(__file__).parent))

import lock  # noqa: E402 # from the folders above

import locks  # noqa: E402

SOURCES = ("kptrace", "plugins/kptrace_plugins")
OWN = {"kptrace", "kptrace_plugins"}

# Temporary: these were declared before anything imports them. Whoever imports one, or gives it up,
# removes it here; the list must be empty then, and a name that is imported by now is a problem too.
NOT_IMPORTED_YET = {"scapy", "rich"}

# A marker that pip evaluates for the machine it runs on, not for the one that an archive is for, so
# a lock may only leave out what no supported machine has.
MARKERS = {'sys_platform == "win32"', 'platform_python_implementation != "PyPy"'}


def imports(root: Path) -> dict[str, str]:
    """``file:line`` of the first import of each package that is neither ours nor Python's."""
    found: dict[str, str] = {}
    for folder in SOURCES:
        for path in sorted((root / folder).rglob("*.py")):
            for line, module in _imported(ast.parse(path.read_bytes(), path)):
                package = module.partition(".")[0]
                if package not in OWN and package not in sys.stdlib_module_names:
                    found.setdefault(package, f"{path.relative_to(root)}:{line}")
    return found


def _imported(tree: ast.Module) -> Iterator[tuple[int, str]]:
    for node in ast.walk(tree):
        match node:
            case ast.Import():
                yield from ((node.lineno, alias.name) for alias in node.names)
            case ast.ImportFrom(module=str(module), level=0):
                yield node.lineno, module
            case ast.Call(
                func=ast.Name(id="import_module" | "__import__")
                | ast.Attribute(attr="import_module"),
                args=[ast.Constant(value=str(module)), *_],
            ):
                yield node.lineno, module


def declared(root: Path) -> set[str]:
    project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return {locks.name(Requirement(text).name) for text in project["dependencies"]}


def import_problems(
    imported: Mapping[str, str],
    required: set[str],
    providers: Mapping[str, Sequence[str]],
    not_yet: set[str],
) -> Iterator[str]:
    """imported: as of ``imports``; required: names as of ``declared``; providers: the distributions
    that give a package, by its name; not_yet: names that need no import."""
    used: set[str] = set()
    for package, where in sorted(imported.items()):
        names = {locks.name(provider) for provider in providers.get(package, ())}
        used |= names
        if not names:
            yield f"{where}: {package} is imported and not installed"
        elif not names & required:
            which = " or ".join(sorted(names))
            yield f"{where}: {package} is imported; declare {which} in pyproject.toml"
    for name in sorted(required - used - not_yet):
        yield f"pyproject.toml: {name} is declared and nowhere imported"
    for name in sorted(not_yet & used):
        yield f"{Path(__file__).name}: {name} is imported by now; remove it from NOT_IMPORTED_YET"
    for name in sorted(not_yet - required):
        yield f"{Path(__file__).name}: {name} is not declared; remove it from NOT_IMPORTED_YET"


def lock_problems(where: str, entries: Mapping[str, str], ranges: Sequence[str]) -> Iterator[str]:
    """where: the lock's name, for messages; entries: as of ``locks.entries``; ranges: all that the
    lock must satisfy."""
    for text in ranges:
        requirement = Requirement(text)
        entry = entries.get(locks.name(requirement.name))
        if entry is None:
            yield f"{where}: {requirement.name} is missing; run `make lock`"
        elif locks.version(entry) not in requirement.specifier:
            yield f"{where}: {entry.split()[0]} is not in {text!r}; run `make lock`"
    for name, entry in entries.items():
        requirement, _, hashes = entry.partition("--hash=")
        if not hashes.startswith("sha256:"):
            yield f"{where}: {name} has no hash"
        marker = Requirement(requirement).marker
        if marker is not None and str(marker) not in MARKERS:
            yield f"{where}: {name} is only locked where {marker}"


def disagreements(entries: Mapping[str, Mapping[str, str]]) -> Iterator[str]:
    """entries: of each lock, by its name."""
    first: dict[str, tuple[str, str]] = {}
    for where, packages in entries.items():
        for name, entry in packages.items():
            version = locks.version(entry)
            other, chosen = first.setdefault(name, (where, version))
            if version != chosen:
                yield f"{where}: {name} {version}, but {chosen} in {other}; run `make lock`"


def problems() -> Iterator[str]:
    yield from import_problems(
        imports(ROOT), declared(ROOT), packages_distributions(), NOT_IMPORTED_YET
    )
    entries = {each: locks.entries(each.output) for each in lock.LOCKS}
    for each, packages in entries.items():
        yield from lock_problems(each.name, packages, list(lock.ranges(each)))
    yield from disagreements({each.name: packages for each, packages in entries.items()})


def main() -> None:
    found = list(problems())
    print("\n".join(found) or "dependencies: declared, imported and locked")
    raise SystemExit(bool(found))


if __name__ == "__main__":
    main()
