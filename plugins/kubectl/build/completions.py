"""Write the list of words in ``completions/kubectl_complete-kptrace`` from the command line itself.

    python plugins/kubectl/build/completions.py [--check]

In: kptrace's typer app, its causes, the lab's faults. Out: the part between the two marks of that
file, as functions of sh; with ``--check`` nothing is written, and it exits with 1 when the file is
not what it should be.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import typer.main

from kptrace.cli import SHORT
from kptrace.cli.app import app
from kptrace.diagnose.catalogue.causes import CAUSES
from kptrace.lab import address_plan
from kptrace.lab.faults.catalogue import FAULTS

FILE = Path(__file__).resolve().parents[3] / "completions" / "kubectl_complete-kptrace"
BEGIN = "# --- made by `make completions` from the command line itself ---\n"
END = "# --- end ---\n"
WIDEST = 70

# What a value is, where its type does not say it: the kinds that the program knows how to complete.
KINDS = {
    "--from": "sources",
    "--namespace": "namespaces",
    "--agent-namespace": "namespaces",
    "--node": "nodes",
    "--context": "contexts",
    "--cluster": "clusters",
    "--user": "users",
    "--kubeconfig": "files",
    "--certificate-authority": "files",
    "target": "targets",
    "cause": "words " + " ".join(sorted(CAUSES)),
    "fault": "words " + " ".join(sorted(fault.name for fault in FAULTS)),
    "lab status --output": "words text json",
    "lab up --proxy": "words " + " ".join(get_args(address_plan.Proxy)),
    "lab up --network": "words " + " ".join(get_args(address_plan.Network)),
    "lab up --scheduler": "words " + " ".join(get_args(address_plan.Scheduler)),
}

# The connection flags of kubectl that it needs to see the same cluster.
FOR_KUBECTL = (
    *("-n", "--namespace", "--context", "--cluster", "--user", "--kubeconfig", "-s", "--server"),
    *("--token", "--as", "--as-group", "--as-uid", "--certificate-authority"),
    *("--insecure-skip-tls-verify", "--tls-server-name"),
)


def words() -> str:
    commands = dict(_commands(typer.main.get_command(app), ()))
    groups = [name for name, command in commands.items() if name and _inner(command)]
    parts = [
        _listing("commands", ((name, _children(name, commands)) for name in ["", *groups])),
        _listing("options", ((name, _options(parameter)) for name, parameter in commands.items())),
        _answer(
            "value",
            (line for name, parameter in commands.items() for line in _values(name, parameter)),
        ),
        _answer(
            "argument",
            (line for name, parameter in commands.items() for line in _takes(name, parameter)),
        ),
        _test("is_command", [name for name in commands if name] + ["help"]),
        _test("is_group", groups),
        _test("for_kubectl", FOR_KUBECTL),
    ]
    return "\n".join(parts)


def _commands(command: Any, texts: tuple[str, ...]) -> Iterator[tuple[str, Any]]:  # noqa: ANN401
    """typer's command objects, whose class it does not export, by their words."""
    yield " ".join(texts), command
    for name, inner in _inner(command).items():
        if not inner.hidden:
            yield from _commands(inner, (*texts, name))


def _inner(command: Any) -> dict[str, Any]:  # noqa: ANN401
    return dict(getattr(command, "commands", {}))


def _children(name: str, commands: dict[str, Any]) -> Iterator[str]:
    for inner, command in _inner(commands[name]).items():
        if f"{name} {inner}".strip() in commands:
            short = SHORT.get(inner) if not name else None
            yield f"{inner}\t{_brief(short or command.get_short_help_str(200))}"


def _options(command: Any) -> Iterator[str]:  # noqa: ANN401
    for parameter in _of(command, "option"):
        for name in parameter.opts:
            yield f"{name}\t{_brief(parameter.help or '')}"
    yield "--help\tShow this command's help."


def _values(name: str, command: Any) -> Iterator[tuple[str, str]]:  # noqa: ANN401
    for parameter in _of(command, "option"):
        if not parameter.is_flag:
            kind = _kind(name, parameter, parameter.opts[-1])
            for opt in parameter.opts:
                yield f"{name} {opt}", kind


def _takes(name: str, command: Any) -> Iterator[tuple[str, str]]:  # noqa: ANN401
    for number, parameter in enumerate(_of(command, "argument")):
        kind = _kind(name, parameter, parameter.name)
        if kind != "any":
            yield f"{name} {number}", kind


def _kind(command: str, parameter: Any, name: str) -> str:  # noqa: ANN401
    choices = getattr(parameter.type, "choices", ())
    if choices:
        return "words " + " ".join(str(getattr(choice, "value", choice)) for choice in choices)
    if type(parameter.type).__name__.endswith("Path"):
        return "files"
    return KINDS.get(f"{command} {name}") or KINDS.get(name, "any")


def _of(command: Any, kind: str) -> list[Any]:  # noqa: ANN401
    return [
        param
        for param in command.params
        if param.param_type_name == kind and not getattr(param, "hidden", False)
    ]


def _brief(text: str) -> str:
    """The first sentence, on one line that fits a terminal."""
    line = " ".join(text.split()).partition(". ")[0]
    return line if len(line) <= WIDEST else line[: WIDEST - 3].rpartition(" ")[0] + " ..."


# --- as sh ----------------------------------------------------------------------------------------


def _listing(function: str, evidence_list: Any) -> str:  # noqa: ANN401
    lines = [f"{function}() {{", "\tcase $1 in"]
    for name, listed in evidence_list:
        lines += [f"\t{_quoted(name)}) cat <<'END' ;;", *listed, "END"]
    return "\n".join([*lines, "\tesac", "}", ""])


def _answer(function: str, evidence_list: Iterator[tuple[str, str]]) -> str:
    by_kind: dict[str, list[str]] = {}
    for name, kind in evidence_list:
        by_kind.setdefault(kind, []).append(_quoted(name))
    lines = [f"{function}() {{", '\tcase "$1 $2" in']
    for kind, names in by_kind.items():
        lines += [f"\t{' | '.join(names)})", f"\t\techo {_quoted(kind)} ;;"]
    return "\n".join([*lines, "\tesac", "}", ""])


def _test(function: str, names: Any) -> str:  # noqa: ANN401
    meant = " | ".join(_quoted(name) for name in names)
    return f"{function}() {{\n\tcase $1 in {meant}) ;; *) return 1 ;; esac\n}}\n"


def _quoted(text: str) -> str:
    if text and all(letter.isalnum() or letter in "-_./" for letter in text):
        return text
    return "'" + text.replace("'", "'\\''") + "'"


def main() -> None:
    before, _, rest = FILE.read_text(encoding="utf-8").partition(BEGIN)
    after = rest.partition(END)[2]
    text = f"{before}{BEGIN}\n{words()}{END}{after}"
    if sys.argv[1:] == ["--check"]:
        if text != FILE.read_text(encoding="utf-8"):
            sys.exit(f"{FILE.name} is not what the command line says: run `make completions`")
    else:
        FILE.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
