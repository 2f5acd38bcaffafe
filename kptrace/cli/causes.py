"""``kptrace causes``: what a report's causes mean."""

from __future__ import annotations

from typing import Annotated

import typer

from kptrace.cli.console import print_report, width
from kptrace.model.errors import UsageError


def causes(
    cause: Annotated[
        str, typer.Argument(metavar="CAUSE", help="Id of a cause (default: list all).")
    ] = "",
) -> None:
    """Explain the causes that a report can name."""
    from kptrace.diagnose.catalogue.causes import CAUSES
    from kptrace.render.causes import cause_list, cause_page

    if not cause:
        print_report(cause_list(CAUSES.values(), width()))
    elif cause in CAUSES:
        print_report(cause_page(CAUSES[cause], width()))
    else:
        raise UsageError(f"no cause {cause}", "`kptrace causes` lists them")
