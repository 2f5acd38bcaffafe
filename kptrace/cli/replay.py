"""``kptrace replay``: the report of a saved run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from kptrace.cli.output import OutputOptions, print_and_exit


def replay(
    file: Annotated[
        Path, typer.Argument(metavar="FILE", help="Run that was saved with `--save FILE`.")
    ],
    *,
    look: OutputOptions,
) -> None:
    """Print the report of a saved run; nothing is sent, no cluster is needed."""
    from kptrace.bundle import archive
    from kptrace.protocol.recording import unpack
    from kptrace.trace.trace import report

    run = unpack(archive.read(file), file.name)
    print_and_exit(run, None, look, report(run))
