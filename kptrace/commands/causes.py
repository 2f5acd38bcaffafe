"""``kptrace causes``: what a report's causes mean."""

from __future__ import annotations

from typing import Annotated

import typer

from kptrace.commands.console import show, width
from kptrace.errors import Usage


def causes(
    cause: Annotated[
        str, typer.Argument(metavar="CAUSE", help="One cause's id; without it all are listed.")
    ] = "",
) -> None:
    """Explain the causes that a report can name."""
    from kptrace.judge.causes import CAUSES
    from kptrace.render.causes import cause_list, cause_page

    if not cause:
        show(cause_list(CAUSES.values(), width()))
    elif cause in CAUSES:
        show(cause_page(CAUSES[cause], width()))
    else:
        raise Usage(f"no cause {cause}", "`kptrace causes` lists them")
