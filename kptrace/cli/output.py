"""How a report is printed: the options for it, its forms, and a trace's exit code."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn, Protocol

import typer

from kptrace.cli.console import ColorMode, colour, print_report, width
from kptrace.cli.options import Options
from kptrace.model import Outcome, Value

if TYPE_CHECKING:
    from kptrace.model import Trace
    from kptrace.protocol.recording import Recording
    from kptrace.verify.results import Verification


class OutputFormat(StrEnum):
    TEXT = "text"
    WIDE = "wide"
    JSON = "json"
    YAML = "yaml"
    JUNIT = "junit"
    GITHUB = "github"


class OutputOptions(Options):
    output: Annotated[OutputFormat, typer.Option("-o", "--output", help="Output format.")] = (
        OutputFormat.TEXT
    )
    color: Annotated[
        ColorMode, typer.Option("--color", help="Colour: on a terminal, always or never.")
    ] = ColorMode.AUTO


class BasicOutputFormat(StrEnum):
    TEXT = "text"
    WIDE = "wide"
    JSON = "json"
    YAML = "yaml"


class BasicOutputOptions(Options):
    """Of reports that are no trace, and so no case of a JUnit suite."""

    output: Annotated[BasicOutputFormat, typer.Option("-o", "--output", help="Output format.")] = (
        BasicOutputFormat.TEXT
    )
    color: Annotated[
        ColorMode, typer.Option("--color", help="Colour: on a terminal, always or never.")
    ] = ColorMode.AUTO


class TextRenderer(Protocol):
    """A room of render that writes a report for a person."""

    def __call__(self, text_: Any, /, width: int, colour: bool, wide: bool) -> str: ...  # noqa: ANN401


def plain(value: Value, look: BasicOutputOptions, text: TextRenderer) -> str:
    match look.output:
        case BasicOutputFormat.JSON:
            from kptrace.render.json import json

            return json(value)
        case BasicOutputFormat.YAML:
            from kptrace.render.json import yaml

            return yaml(value)
        case BasicOutputFormat.TEXT | BasicOutputFormat.WIDE:
            wide = look.output is BasicOutputFormat.WIDE
            return text(value, width=width(), colour=colour(look.color), wide=wide)


def print_and_exit(
    run: Recording, save: Path | None, look: OutputOptions, trace: Trace
) -> NoReturn:
    """Print the report of a run, and leave with its exit code."""
    if save is not None:
        from kptrace.bundle import archive
        from kptrace.protocol.recording import pack

        archive.write(save, pack(run))
    print_report(_rendered(trace, look, run))
    raise typer.Exit(_exit_code(trace, run.request.expect))


def _rendered(trace: Trace, look: OutputOptions, run: Recording) -> str:
    match look.output:
        case OutputFormat.JSON:
            from kptrace.render.json import json

            return json(trace)
        case OutputFormat.YAML:
            from kptrace.render.json import yaml

            return yaml(trace)
        case OutputFormat.JUNIT:
            from kptrace.cli import ci_output

            return ci_output.junit(_alone(trace, run))
        case OutputFormat.GITHUB:
            from kptrace.cli import ci_output

            return ci_output.github(_alone(trace, run), _text(trace, look))
        case OutputFormat.TEXT | OutputFormat.WIDE:
            return _text(trace, look)


def _text(trace: Trace, look: OutputOptions) -> str:
    from kptrace.render.text import text

    wide = look.output is OutputFormat.WIDE
    return text(trace, width=width(), colour=colour(look.color), wide=wide)


def _alone(trace: Trace, run: Recording) -> Verification:
    """One trace as CI systems take it: the result of one expectation."""
    from kptrace.kube.objects.cluster_state import read_cluster_state
    from kptrace.verify.results import Expectation, Verification, about, seen

    result = seen(Expectation(request=run.request), trace)
    texts_by_name = about([trace], read_cluster_state(run.api).nodes)
    return Verification(file="", results=(result,), about=texts_by_name)


def _exit_code(trace: Trace, expect: tuple[Outcome, ...]) -> int:
    if trace.outcome in (expect or (Outcome.DELIVERED,)):
        return 0
    return 4 if trace.outcome is Outcome.INCONCLUSIVE else 1
