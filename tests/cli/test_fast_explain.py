"""The plain words of ``explain`` mean what the whole command line takes them to mean."""

from __future__ import annotations

import itertools

import pytest

from kptrace.cli.fast_explain import read
from kptrace.cli.lazy_commands import LazyCommands

WORDS = [
    ["svc/web"],
    ["-n", "shop"],
    ["--namespace", "shop"],
    ["--node", "node-a"],
    ["--from", "pod/x"],
    ["--bundle", "state"],
    ["--offline"],
]


def by_typer(args: list[str]) -> dict[str, object]:
    context = LazyCommands()["explain"].make_context("explain", list(args))
    return dict(context.params)


@pytest.mark.parametrize("length", range(1, 5))
def test_the_same_words_mean_the_same(length: int) -> None:
    usual = by_typer(["svc/web"])
    read_quickly = 0
    for chosen in itertools.permutations(WORDS, length):
        args = [word for words in chosen for word in words]
        given = read(["explain", *args])
        if given is None:
            continue
        read_quickly += 1
        params = by_typer(args)
        told = {name: value for name, value in params.items() if value != usual[name]}
        told.setdefault("target", params["target"])
        expected = {name: True if name == "offline" else value for name, value in given.items()}
        assert {name: _plain(value) for name, value in told.items()} == expected, args
    assert read_quickly or length == 1


def _plain(value: object) -> object:
    return value if isinstance(value, bool) else str(value)


@pytest.mark.parametrize(
    "args",
    [
        [],
        ["trace", "svc/web", "--offline"],
        ["explain"],
        ["explain", "svc/web"],
        ["explain", "--offline"],
        ["explain", "svc/web", "svc/api", "--offline"],
        ["explain", "svc/web", "--offline", "--bundle", "x"],
        ["explain", "svc/web", "--bundle"],
        ["explain", "svc/web", "--bundle", "--offline"],
        ["explain", "svc/web", "--bundle=x"],
        ["explain", "svc/web", "--offline", "-o", "json"],
        ["explain", "svc/web", "--offline", "--help"],
        ["explain", "svc/web", "--offline", "--nonsense"],
    ],
)
def test_all_else_is_left_to_the_whole_command_line(args: list[str]) -> None:
    assert read(args) is None
