"""How a report is printed: the options for it, its forms, and a trace's exit code."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn, Protocol

import typer

from kptrace.commands.console import When, colour, show, width
from kptrace.commands.options import Options
from kptrace.model import Outcome, Value

if TYPE_CHECKING:
    from kptrace.model import Trace
    from kptrace.run import Run
    from kptrace.verification import Verification


class Form(StrEnum):
    TEXT = "text"
    WIDE = "wide"
    JSON = "json"
    YAML = "yaml"
    JUNIT = "junit"
    GITHUB = "github"


class Look(Options):
    output: Annotated[Form, typer.Option("-o", "--output", help="How to print the report.")] = (
        Form.TEXT
    )
    color: Annotated[
        When, typer.Option("--color", help="Colour: on a terminal, always or never.")
    ] = When.AUTO


class PlainForm(StrEnum):
    TEXT = "text"
    WIDE = "wide"
    JSON = "json"
    YAML = "yaml"


class PlainLook(Options):
    """Of reports that are no trace, and so no case of a JUnit suite."""

    output: Annotated[
        PlainForm, typer.Option("-o", "--output", help="How to print the report.")
    ] = PlainForm.TEXT
    color: Annotated[
        When, typer.Option("--color", help="Colour: on a terminal, always or never.")
    ] = When.AUTO


class Text(Protocol):
    """A room of render that writes a report for a person."""

    def __call__(self, made: Any, /, width: int, colour: bool, wide: bool) -> str: ...  # noqa: ANN401


def plain(made: Value, look: PlainLook, text: Text) -> str:
    match look.output:
        case PlainForm.JSON:
            from kptrace.render.json import json

            return json(made)
        case PlainForm.YAML:
            from kptrace.render.json import yaml

            return yaml(made)
        case PlainForm.TEXT | PlainForm.WIDE:
            wide = look.output is PlainForm.WIDE
            return text(made, width=width(), colour=colour(look.color), wide=wide)


def tell(run: Run, save: Path | None, look: Look, made: Trace) -> NoReturn:
    """Print the report of a run, and leave with its exit code."""
    if save is not None:
        from kptrace import archive
        from kptrace.run import pack

        archive.write(save, pack(run))
    show(_rendered(made, look, run))
    raise typer.Exit(_exit_code(made, run.question.expect))


def _rendered(made: Trace, look: Look, run: Run) -> str:
    match look.output:
        case Form.JSON:
            from kptrace.render.json import json

            return json(made)
        case Form.YAML:
            from kptrace.render.json import yaml

            return yaml(made)
        case Form.JUNIT:
            from kptrace.commands import ci

            return ci.junit(_alone(made, run))
        case Form.GITHUB:
            from kptrace.commands import ci

            return ci.github(_alone(made, run), _text(made, look))
        case Form.TEXT | Form.WIDE:
            return _text(made, look)


def _text(made: Trace, look: Look) -> str:
    from kptrace.render.text import text

    wide = look.output is Form.WIDE
    return text(made, width=width(), colour=colour(look.color), wide=wide)


def _alone(made: Trace, run: Run) -> Verification:
    """One trace as CI systems take it: the result of one expectation."""
    from kptrace.kube.documents import read_documents
    from kptrace.verification import Expectation, Verification, about, seen

    result = seen(Expectation(question=run.question), made)
    told = about([made], read_documents(run.api).nodes)
    return Verification(file="", results=(result,), about=told)


def _exit_code(made: Trace, expect: tuple[Outcome, ...]) -> int:
    if made.outcome in (expect or (Outcome.DELIVERED,)):
        return 0
    return 4 if made.outcome is Outcome.INCONCLUSIVE else 1
