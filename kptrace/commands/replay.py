"""``kptrace replay``: the report of a saved run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from kptrace.commands.report import Look, tell


def replay(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A run that `--save FILE` kept.")],
    *,
    look: Look,
) -> None:
    """Print the report of a saved run; nothing is sent, no cluster is needed."""
    from kptrace import archive
    from kptrace.run import unpack
    from kptrace.trace import report

    run = unpack(archive.read(file), file.name)
    tell(run, None, look, report(run))
