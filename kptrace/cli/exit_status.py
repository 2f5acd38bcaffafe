"""How the program ends: errors become a message and an exit code; ended from outside, it cleans up.

Exit codes: 0 the outcome is the expected one, 1 it is another, 2 wrong usage, 3 it could not be
looked at, 4 inconclusive, 130 interrupted.
"""

from __future__ import annotations

import signal
from collections.abc import Callable
from types import FrameType
from typing import NoReturn

from kptrace.cli.console import print_error
from kptrace.model.errors import KptraceError

INTERRUPTED = 130


def run_with_exit_code(run: Callable[[], int]) -> int:
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _terminated)
    try:
        return run()
    except KptraceError as error:
        print_error(error.message, error.hint, error.manifest)
        return error.exit_code
    except KeyboardInterrupt:
        print_error("interrupted; nothing was left behind", "")
        return INTERRUPTED


def _terminated(number: int, frame: FrameType | None) -> NoReturn:
    raise KeyboardInterrupt
