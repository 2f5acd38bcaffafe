"""The command line: flags in, exit code out.

The commands stand in ``kptrace/commands``, and each is imported only when it is asked for; so
``--help`` costs what typer costs and ``--version`` nothing at all. How it ends: cli/exit_status.py.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from kptrace.cli import SHORT
from kptrace.cli.console import print_report
from kptrace.cli.exit_status import INTERRUPTED, run_with_exit_code
from kptrace.cli.lazy_commands import RootGroup
from kptrace.model.errors import UsageError

app = typer.Typer(
    cls=RootGroup,
    add_completion=False,
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Trace a packet from a pod to a Service and show the kernel's evidence for each step.",
)


def _print_version(requested: bool) -> None:
    if requested:
        from kptrace import __version__

        print_report(f"kptrace {__version__}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool,
        typer.Option(
            "--version", help="Show the version and exit.", callback=_print_version, is_eager=True
        ),
    ] = False,
) -> None:
    pass


def _with_command(args: Sequence[str]) -> list[str]:
    """``svc/web -n shop`` means ``trace svc/web -n shop``: a first word that is no command.
    ``help lab up`` means ``lab up --help``.
    """
    if args[:1] == ["help"]:
        return [*args[1:], "--help"]
    if not args or args[0] in (*SHORT, "-h", "--help", "--version"):
        return list(args)
    return ["trace", *args]


def main() -> None:
    args = sys.argv[1:]
    if args == ["--version"]:
        from kptrace import __version__

        print(f"kptrace {__version__}")
        return
    sys.exit(_run(args))


def _run(args: Sequence[str]) -> int:
    return run_with_exit_code(lambda: _run_typer(args))


def _run_typer(args: Sequence[str]) -> int:
    program = Path(sys.argv[0]).name
    name = "kubectl kptrace" if program.startswith("kubectl-") else "kptrace"
    try:
        result = app(_with_command(args), prog_name=name, standalone_mode=False)
    except typer.TyperException as error:
        # Usage errors of typer's own click, whose classes it does not export.
        getattr(error, "show", lambda: None)()
        return int(getattr(error, "exit_code", UsageError.exit_code))
    except typer.Abort:
        raise KeyboardInterrupt from None
    if result == INTERRUPTED:  # typer's word for a KeyboardInterrupt in a command
        raise KeyboardInterrupt
    return result if isinstance(result, int) else 0
