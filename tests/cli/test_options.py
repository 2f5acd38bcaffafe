"""Groups of options: typer sees each option, the command gets the group."""

from __future__ import annotations

from typing import Annotated

import typer
import typer.testing

from kptrace.cli.options import Options, flat


class Colours(Options):
    front: Annotated[str, typer.Option("--front", "-f", help="Of letters.")] = "black"
    back: Annotated[str, typer.Option("--back")] = "white"


class Sizes(Options):
    width: Annotated[int, typer.Option("--width", min=1)] = 80


def paint(
    word: Annotated[str, typer.Argument()],
    loud: Annotated[bool, typer.Option("--loud")] = False,
    *,
    colours: Colours,
    sizes: Sizes,
) -> None:
    """Paint a word."""
    typer.echo(f"{word} {loud} {colours.front} {colours.back} {sizes.width}")


def invoke(*words: str) -> str:
    app = typer.Typer(add_completion=False, rich_markup_mode=None)
    app.command("paint")(flat(paint))
    return typer.testing.CliRunner().invoke(app, words).output


def test_defaults_of_the_group() -> None:
    assert invoke("x") == "x False black white 80\n"


def test_values_that_were_given() -> None:
    assert invoke("--back", "red", "x", "-f", "blue", "--width", "7", "--loud") == (
        "x True blue red 7\n"
    )


def test_checked_as_any_option() -> None:
    assert "--width" in invoke("x", "--width", "0")


def test_help_lists_each() -> None:
    shown = invoke("--help")
    assert "Paint a word." in shown
    assert all(option in shown for option in ("--loud", "-f, --front", "--back", "--width"))


def test_a_command_without_groups_is_as_it_was() -> None:
    def bare(word: Annotated[str, typer.Argument()] = "nothing") -> None:
        typer.echo(word)

    app = typer.Typer(add_completion=False)
    app.command()(flat(bare))
    assert typer.testing.CliRunner().invoke(app, []).output == "nothing\n"
