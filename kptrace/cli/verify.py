"""``kptrace verify``: a file of expected results, each tried, for smoke tests in CI."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from kptrace.cli.console import ColorMode, colour, print_report, progress, width
from kptrace.cli.environment import LabOptions, OfflineOption, ground, namespace
from kptrace.cli.kubectl_flags import ClusterOptions
from kptrace.model.errors import KptraceError, ObservationError

if TYPE_CHECKING:
    from kptrace.model import Node
    from kptrace.protocol.recording import Recording
    from kptrace.verify.results import Expectation, Result, Verification


class VerifyForm(StrEnum):
    TEXT = "text"
    WIDE = "wide"
    JSON = "json"
    YAML = "yaml"
    JUNIT = "junit"
    GITHUB = "github"


def verify(
    file: Annotated[
        Path, typer.Argument(metavar="FILE", help="YAML file with targets and expected outcomes.")
    ],
    save: Annotated[
        Path | None,
        typer.Option(
            "--save",
            metavar="FOLDER",
            help="Save the run of each failed check in this directory.",
        ),
    ] = None,
    output: Annotated[
        VerifyForm, typer.Option("-o", "--output", help="Output format.")
    ] = VerifyForm.TEXT,
    color: Annotated[
        ColorMode, typer.Option("--color", help="Colour: on a terminal, always or never.")
    ] = ColorMode.AUTO,
    *,
    lab: LabOptions,
    here: OfflineOption,
    cluster: ClusterOptions,
) -> None:
    """Trace every target of FILE, one after the other, and compare with what FILE expects.

    It goes on when one fails; the last lines say which failed and why. It exits with 0 if all are
    as expected, 1 if one is not, 3 if one could not be looked at, 4 if one stayed inconclusive.
    Interrupted, it tells what it has so far and exits with 130.

    \b
      checks:
      - target: svc/web
        from: pod/client
      - target: svc/web:metrics
        expect: [dropped, rejected]
    """
    from kptrace.verify.expectations_file import read_expectations
    from kptrace.verify.results import Verification, exit_code

    expected = read_expectations(_text(file), str(file), namespace(lab, here, cluster))
    tried = _VerifyRun(save)
    say = progress()
    interrupt: KeyboardInterrupt | None = None
    try:
        for number, expectation in enumerate(expected, 1):
            say(f"{number} of {len(expected)}: {expectation.request.target.text}")
            with suppress(typer.Exit):  # --dry-run: what it would do was shown
                tried.add(expectation, lab, here, cluster)
    except KeyboardInterrupt as signal:
        interrupt = signal  # what is known is told all the same
    if cluster.dry_run and not tried.results:
        raise interrupt or typer.Exit
    if interrupt:
        tried.leave(expected)
    verification = Verification(file=str(file), results=tuple(tried.results), about=tried.about())
    print_report(_rendered(verification, output, color))
    raise interrupt or typer.Exit(exit_code(verification.results))


class _VerifyRun:
    """The results so far; ``save``: where the runs go that are not as expected."""

    def __init__(self, save: Path | None) -> None:
        self.results: list[Result] = []
        self._save = save
        self._nodes: dict[str, Node] = {}
        self._begun = 0

    def add(
        self, expected: Expectation, lab: LabOptions, here: OfflineOption, cluster: ClusterOptions
    ) -> None:
        from kptrace.kube.objects.cluster_state import read_cluster_state
        from kptrace.trace import trace as story
        from kptrace.verify.results import seen, unseen

        self._begun += 1
        try:
            with ExitStack() as stack:
                where, asked = ground(stack, expected.request, lab, here, cluster)
                seed = int.from_bytes(os.urandom(4))
                run = story.run(asked, where, seed, lambda _: None)
            result = seen(expected, story.report(run))
            self._nodes |= {node.name: node for node in read_cluster_state(run.api).nodes}
        except KptraceError as error:
            self.results.append(unseen(expected, error))
            return
        if result.status != "passed" and self._save is not None:
            result = seen(expected, story.report(run), self._kept(expected, run))
        self.results.append(result)

    def leave(self, expected: Sequence[Expectation]) -> None:
        """What is still open stays so."""
        from kptrace.verify.results import untried

        for number, expectation in enumerate(expected[len(self.results) :], len(self.results)):
            why = "interrupted" if number < self._begun else "not tried"
            self.results.append(untried(expectation, why))

    def about(self) -> dict[str, str]:
        from kptrace.verify.results import about

        traces = (result.trace for result in self.results)
        return about([trace for trace in traces if trace], self._nodes.values())

    def _kept(self, expected: Expectation, run: Recording) -> str:
        from kptrace.bundle import archive
        from kptrace.protocol.recording import pack

        assert self._save is not None
        try:
            self._save.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ObservationError(
                f"{self._save} cannot be made: {error.strerror or error}"
            ) from None
        name = re.sub(r"[^A-Za-z0-9.-]+", "-", expected.request.target.text)
        path = self._save / f"{expected.line}-{name}.tar.gz"
        archive.write(path, pack(run))
        return str(path)


def _text(file: Path) -> str:
    try:
        return file.read_bytes().decode()
    except UnicodeDecodeError as error:
        raise ObservationError(f"{file} is not UTF-8 at byte {error.start}") from None
    except OSError as error:
        raise ObservationError(f"{file} cannot be read: {error.strerror or error}") from None


def _rendered(verification: Verification, output: VerifyForm, color: ColorMode) -> str:
    match output:
        case VerifyForm.JSON:
            from kptrace.render.json import json

            return json(verification)
        case VerifyForm.YAML:
            from kptrace.render.json import yaml

            return yaml(verification)
        case VerifyForm.JUNIT:
            from kptrace.cli import ci_output

            return ci_output.junit(verification)
        case VerifyForm.GITHUB:
            from kptrace.cli import ci_output

            return ci_output.github(verification, _page(verification, output, color))
        case VerifyForm.TEXT | VerifyForm.WIDE:
            return _page(verification, output, color)


def _page(report: Verification, output: VerifyForm, color: ColorMode) -> str:
    from kptrace.render.verify import verification

    wide = output is VerifyForm.WIDE
    return verification(report, width=width(), colour=colour(color), wide=wide)
