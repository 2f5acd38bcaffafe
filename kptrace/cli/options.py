"""Options that several commands share, written once: a group of them is a class.

::

    class Look(Options):
        color: Annotated[When, typer.Option("--color", help="...")] = When.AUTO

    def replay(file: ..., *, look: Look) -> None: ...

``flat`` is what typer sees of such a command: each option of the group beside its own ones. When it
is called, the group is made of the values that were given.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from typing import ClassVar

from kptrace.model import Value

PLAIN = "Options"  # the heading of those that have none of their own


class Options(Value):
    """A group of options: fields with ``Annotated[..., typer.Option(...)]`` and a default.

    ``heading``: what its fields stand under on the page of help, unless a field names another.
    """

    heading: ClassVar[str] = PLAIN


def flat(command: Callable[..., None]) -> Callable[..., None]:
    own = inspect.signature(command, eval_str=True).parameters.values()
    groups = {
        parameter.name: parameter.annotation for parameter in own if _is_group(parameter.annotation)
    }
    fields = {name: tuple(_options(group)) for name, group in groups.items()}

    def run(**values_by_name: object) -> None:
        for name, group in groups.items():
            values_by_name[name] = group(
                **{field.name: values_by_name.pop(field.name) for field in fields[name]}
            )
        command(**values_by_name)

    shown = [field for parameter in own for field in fields.get(parameter.name, (parameter,))]
    run.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
        [parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY) for parameter in shown]
    )
    run.__annotations__ = {parameter.name: parameter.annotation for parameter in shown}
    run.__doc__ = command.__doc__
    return run


def _is_group(annotation: object) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, Options)


def _options(group: type[Options]) -> Iterator[inspect.Parameter]:
    for field in inspect.signature(group, eval_str=True).parameters.values():
        option = field.annotation.__metadata__[0]
        option.rich_help_panel = option.rich_help_panel or _owner(group, field.name).heading
        yield field


def _owner(group: type[Options], name: str) -> type[Options]:
    """The class that brings the field."""
    return next(option_type for option_type in group.__mro__ if name in option_type.__annotations__)
