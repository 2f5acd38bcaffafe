"""Lines fit, nothing is lost on the way, and only colour is added by colour."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kptrace.render.layout import STYLES, Span, TextLayout, glue, span
from kptrace.render.sanitize import cells, clean


def page(width: int = 40, colour: bool = False) -> TextLayout:
    return TextLayout(width, colour)


def test_a_paragraph_hangs() -> None:
    sheet = page()
    sheet.line(span("the VXLAN packet reached eth0 of node-b"), label=[span("What  ")], indent=2)
    assert sheet.text() == "  What  the VXLAN packet reached eth0 of\n        node-b\n"


def test_indent_and_glue() -> None:
    sheet = page()
    sheet.line(
        span("12345678901234567890123456"), span(" "), glue("-> 10.96.41.7:80/TCP"), indent=2
    )
    assert sheet.text() == "  12345678901234567890123456\n  -> 10.96.41.7:80/TCP\n"


def test_a_row_ends_at_the_right_margin() -> None:
    sheet = page()
    sheet.row([span("svc/remote (shop)  from pod/client on node-a")], span("DROPPED"), [], hang=4)
    assert sheet.text() == (
        "svc/remote (shop)  from         DROPPED\n    pod/client on node-a\n".replace(
            "         DROPPED", " " * 10 + "DROPPED"
        )
    )


def test_a_long_word_is_cut_behind_a_joint() -> None:
    sheet = page()
    sheet.line(span("a-very-long-node-name.eu-central-1.compute.internal.example"), indent=2)
    assert sheet.text() == ("  a-very-long-node-name.eu-central-1.\n  compute.internal.example\n")


def test_a_command_can_be_copied() -> None:
    sheet = page()
    sheet.command("bridge fdb replace 4a:00:00:00:00:02 dev flannel.1 dst 172.30.0.12", indent=2)
    text = sheet.text()
    assert text == (
        "  bridge fdb replace 4a:00:00:00:00:02 \\\n      dev flannel.1 dst 172.30.0.12\n"
    )
    joined = re.sub(r" \\\n +", " ", text).strip()
    assert joined == "bridge fdb replace 4a:00:00:00:00:02 dev flannel.1 dst 172.30.0.12"


def test_what_is_to_be_copied_as_it_is_stays_whole() -> None:
    sheet, path = page(), "/var/lib/incidents/2026-11-23/shop/kptrace-snapshot.tar.gz"
    sheet.uncut(span(path), indent=2)
    assert sheet.text() == f"  {path}\n"


def test_blank_lines_are_single() -> None:
    sheet = page()
    sheet.blank()
    sheet.line(span("a"))
    sheet.blank()
    sheet.blank()
    sheet.line(span("b"))
    assert sheet.text() == "a\n\nb\n"


def test_colour_changes_nothing_else() -> None:
    plain, coloured = page(), page(colour=True)
    for sheet in (plain, coloured):
        sheet.row(
            [span("svc/web", "name"), span(" is  "), span("up", "good")], span("ok", "quiet"), [], 4
        )
    assert re.sub(r"\x1b\[[0-9;]*m", "", coloured.text()) == plain.text()
    assert "\x1b[1;32mup\x1b[0m" in coloured.text()
    assert "\x1b" not in plain.text()


def test_hostile_text_stays_text() -> None:
    sheet = page(colour=True)
    sheet.line(span("\x1b[2J\u202e"), glue("\n"))
    assert sheet.text() == "\\x1b[2J\\u202e\\n\n"


TEXT = st.text(st.characters(codec="utf-8"), max_size=90)


@given(st.lists(st.tuples(TEXT, st.sampled_from(sorted(STYLES)))), st.integers(40, 90))
def test_every_line_fits_and_no_character_is_lost(parts: list[tuple[str, str]], width: int) -> None:
    sheet = page(width)
    spans = [span(text, style) for text, style in parts]
    sheet.line(*spans, indent=2, hang=9)
    lines = sheet.text().splitlines()
    assert all(cells(line) <= width for line in lines)
    assert "".join("".join(lines).split()) == "".join(
        "".join(clean(text) for text, _ in parts).split()
    )


@pytest.mark.parametrize("width", [0, 20, 39])
def test_too_narrow_is_forty(width: int) -> None:
    assert page(width).width == 40


def test_spans_count_cells() -> None:
    assert Span("東京").width == 4
