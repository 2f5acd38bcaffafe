"""When a report has colour."""

from __future__ import annotations

import pytest

from kptrace.cli.console import ColorMode, wants_colour


@pytest.mark.parametrize(
    ("environ", "terminal", "coloured"),
    [
        ({"TERM": "xterm"}, True, True),
        ({"TERM": "xterm"}, False, False),
        ({"TERM": "dumb"}, True, False),
        ({}, True, False),
        ({"TERM": "xterm", "NO_COLOR": "1"}, True, False),
        ({"TERM": "xterm", "NO_COLOR": ""}, True, True),
        ({"FORCE_COLOR": "1"}, False, True),
        ({"FORCE_COLOR": "1", "NO_COLOR": "1"}, False, False),
    ],
)
def test_colour_by_itself(environ: dict[str, str], terminal: bool, coloured: bool) -> None:
    assert wants_colour(ColorMode.AUTO, environ, terminal) is coloured


def test_the_flag_comes_first() -> None:
    assert wants_colour(ColorMode.ALWAYS, {"NO_COLOR": "1"}, False)
    assert not wants_colour(ColorMode.NEVER, {"FORCE_COLOR": "1"}, True)
