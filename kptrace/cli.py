"""The command line: flags in, exit code out.

The commands stand in ``kptrace/commands``, and each is imported only when it is asked for; so
``--help`` costs what typer costs and ``--version`` nothing at all. This is the only file that turns
an error into a message and an exit code.

Exit codes: 0 the outcome is the expected one, 1 it is another, 2 wrong usage, 3 it could not be
looked at, 4 inconclusive, 130 interrupted.
"""

from __future__ import annotations

import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from types import FrameType
from typing import Annotated, NoReturn

import typer

from kptrace.commands import SHORT
from kptrace.commands.console import complain, show
from kptrace.commands.rooms import Entrance
from kptrace.errors import KptraceError, Usage

INTERRUPTED = 130

app = typer.Typer(
    cls=Entrance,
    add_completion=False,
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="""Follow one packet from a pod to a Service, and prove each step by the kernel's word.

\b
  kptrace svc/web --lab            trace it (`trace` may be left out)
  kptrace lab up                   make a small cluster of network namespaces
  kptrace lab faults               what can be broken in it, and how to see it
""",
)


def _print_version(wanted: bool) -> None:
    if wanted:
        from kptrace import __version__

        show(f"kptrace {__version__}")
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


def _terminated(number: int, frame: FrameType | None) -> NoReturn:
    raise KeyboardInterrupt


def main() -> None:
    args = sys.argv[1:]
    if args == ["--version"]:
        from kptrace import __version__

        print(f"kptrace {__version__}")
        return
    sys.exit(_run(args))


def _run(args: Sequence[str]) -> int:
    program = Path(sys.argv[0]).name
    name = "kubectl kptrace" if program.startswith("kubectl-") else "kptrace"
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _terminated)
    try:
        result = app(_with_command(args), prog_name=name, standalone_mode=False)
        if result == INTERRUPTED:  # typer's word for a KeyboardInterrupt in a command
            raise KeyboardInterrupt
        return result if isinstance(result, int) else 0
    except typer.TyperException as error:
        # Usage errors of typer's own click, whose classes it does not export.
        getattr(error, "show", lambda: None)()
        return int(getattr(error, "exit_code", Usage.exit_code))
    except KptraceError as error:
        complain(error.message, error.hint)
        return error.exit_code
    except (KeyboardInterrupt, typer.Abort):
        complain("interrupted; nothing was left behind", "")
        return INTERRUPTED
