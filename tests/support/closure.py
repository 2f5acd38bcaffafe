"""Which modules of kptrace a module needs, by the imports in its source."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import kptrace

PACKAGE = Path(kptrace.__file__).parent


def closure(*modules: str) -> set[str]:
    """The files below ``kptrace/`` that these modules import, directly or not, with the packages
    that hold them. What only a type checker imports does not count.

    modules: names as ``kptrace.agent.server``
    """
    pending, files = list(modules), set[str]()
    while pending:
        module = pending.pop()
        path = _file(module)
        if path is None or (name := path.relative_to(PACKAGE).as_posix()) in files:
            continue
        files.add(name)
        pending += _imports(path)
        pending += [module.rpartition(".")[0]] if "." in module else []
    return files


def _file(module: str) -> Path | None:
    path = PACKAGE.parent.joinpath(*module.split("."))
    candidates = (path.with_suffix(".py"), path / "__init__.py")
    return next((candidate for candidate in candidates if candidate.is_file()), None)


def _imports(path: Path) -> Iterator[str]:
    for node in _run_time_nodes(ast.parse(path.read_bytes())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "kptrace":
            yield str(node.module)
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Import):
            yield from (a.name for a in node.names if a.name.split(".")[0] == "kptrace")


def _run_time_nodes(tree: ast.AST) -> Iterator[ast.AST]:
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            continue
        yield node
        yield from _run_time_nodes(node)
