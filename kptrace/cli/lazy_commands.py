"""The commands by name for typer, each imported when it is asked for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from importlib import import_module
from typing import Any

import typer
import typer.core
import typer.main

from kptrace.cli import EXAMPLES, GROUPS, SHORT
from kptrace.cli.options import PLAIN, flat


class LazyCommands(Mapping[str, Any]):
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
    command = getattr(import_module(f"kptrace.cli.{name}"), name)
    app.command(name, cls=HelpPage, short_help=SHORT[name])(flat(command))
    return typer.main.get_command(app)


class HelpPage(typer.core.TyperCommand):
    """A page of help with its options under headings: the command's own first."""

    def collect_usage_pieces(self, ctx: Any) -> list[str]:  # noqa: ANN401
        """``TARGET`` as kubectl writes it; typer's own is ``{TARGET}``."""
        return [piece.strip("{}") for piece in super().collect_usage_pieces(ctx)]

    def format_options(self, ctx: Any, formatter: Any) -> None:  # noqa: ANN401
        sections: dict[str, list[tuple[str, str]]] = {"Arguments": [], PLAIN: []}
        for param in self.get_params(ctx):
            option = param.param_type_name == "option"
            heading = getattr(param, "rich_help_panel", None) or PLAIN if option else "Arguments"
            if (shown := param.get_help_record(ctx)) is not None:
                sections.setdefault(heading, []).append(shown)
        for heading, rows in sections.items():
            if rows:
                with formatter.section(heading):
                    formatter.write_dl(rows)


class RootGroup(typer.core.TyperGroup):
    """The first page: what to type, then the commands; the list costs no import of any."""

    def __init__(self, **attributes: Any) -> None:  # noqa: ANN401
        super().__init__(**{**attributes, "commands": LazyCommands()})

    def format_help_text(self, ctx: Any, formatter: Any) -> None:  # noqa: ANN401
        super().format_help_text(ctx, formatter)
        rows = [(f"{ctx.command_path} {text}", why) for text, why in EXAMPLES.items()]
        longest = max(len(command) for command, _ in rows)
        wide = formatter.width >= longest + max(map(len, EXAMPLES.values())) + 4
        with formatter.section("Examples"):
            formatter.write_dl(rows, col_max=longest if wide else 2)

    def format_commands(self, ctx: object, formatter: Any) -> None:  # noqa: ANN401
        with formatter.section("Commands"):
            formatter.write_dl(list(SHORT.items()))
