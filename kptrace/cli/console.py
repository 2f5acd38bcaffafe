"""EDGE: the terminal: its width, whether it has colour, progress on stderr, the report on stdout.

Only this file and ``cli.py`` (errors) write anything.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from enum import StrEnum

WIPE = "\r\033[K"


class ColorMode(StrEnum):
    AUTO = "auto"
    ALWAYS = "always"
    NEVER = "never"


def width() -> int:
    """The terminal's, at most 100; 80 where there is none."""
    with suppress(OSError, ValueError):
        return max(40, min(100, os.get_terminal_size(sys.stdout.fileno()).columns))
    return 80


def colour(color_mode: ColorMode) -> bool:
    return wants_colour(color_mode, os.environ, sys.stdout.isatty())


def wants_colour(color_mode: ColorMode, environ: Mapping[str, str], terminal: bool) -> bool:
    """no-color.org and the field's habits: the flag, then NO_COLOR, FORCE_COLOR, the terminal."""
    if color_mode is not ColorMode.AUTO:
        return color_mode is ColorMode.ALWAYS
    if environ.get("NO_COLOR"):
        return False
    if environ.get("FORCE_COLOR"):
        return True
    return terminal and environ.get("TERM", "") not in ("", "dumb")


def progress() -> Callable[[str], None]:
    """One line on stderr that is written over; nothing when stderr is no terminal."""
    if not sys.stderr.isatty():
        return lambda _: None

    def say(text: str) -> None:
        sys.stderr.write(f"{WIPE}{text} ...\r")
        sys.stderr.flush()

    return say


def wipe() -> None:
    """Take the progress away before anything else is written."""
    if sys.stderr.isatty():
        sys.stderr.write(WIPE)
        sys.stderr.flush()


def print_report(text: str) -> None:
    wipe()
    try:
        sys.stdout.write(text if text.endswith("\n") else text + "\n")
        sys.stdout.flush()
    except BrokenPipeError:  # `| head`: the exit code still tells the outcome
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def print_error(message: str, hint: str, manifest: str = "") -> None:
    """Print an error, what to do about it, and the objects to apply for that."""
    from kptrace.render.sanitize import clean

    wipe()
    # every line but the first is indented, so that no text can look like a message of ours
    lines = [*message.splitlines(), *hint.splitlines(), *manifest.splitlines()]
    sys.stderr.write("kptrace: " + "\n  ".join(map(clean, lines)) + "\n")
