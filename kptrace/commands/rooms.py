"""The commands by name for typer, each imported when it is asked for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from importlib import import_module
from typing import Any

import typer
import typer.core
import typer.main

from kptrace.commands import GROUPS, SHORT
from kptrace.commands.options import flat


class Rooms(Mapping[str, Any]):
    """typer's command objects, whose class it does not export."""

    def __init__(self) -> None:
        self._made: dict[str, Any] = {}

    def __getitem__(self, name: str) -> Any:  # noqa: ANN401
        if name not in SHORT:
            raise KeyError(name)
        if name not in self._made:
            self._made[name] = _made(name)
        return self._made[name]

    def __iter__(self) -> Iterator[str]:
        return iter(SHORT)

    def __len__(self) -> int:
        return len(SHORT)


def _made(name: str) -> Any:  # noqa: ANN401
    if name in GROUPS:
        return typer.main.get_command(import_module(GROUPS[name]).app)
    app = typer.Typer(add_completion=False, rich_markup_mode=None)
    command = getattr(import_module(f"kptrace.commands.{name}"), name)
    app.command(name, short_help=SHORT[name])(flat(command))
    return typer.main.get_command(app)


class Entrance(typer.core.TyperGroup):
    """The list of commands costs no import of any."""

    def __init__(self, **attributes: Any) -> None:  # noqa: ANN401
        super().__init__(**{**attributes, "commands": Rooms()})

    def format_commands(self, ctx: object, formatter: Any) -> None:  # noqa: ANN401
        with formatter.section("Commands"):
            formatter.write_dl(list(SHORT.items()))
