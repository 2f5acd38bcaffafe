"""``kptrace check``: what on these nodes would break Service traffic."""

from __future__ import annotations

import gc
from contextlib import ExitStack
from typing import TYPE_CHECKING, Annotated

import typer

from kptrace.commands.connection import InCluster
from kptrace.commands.console import progress, show
from kptrace.commands.report import PlainLook, plain
from kptrace.commands.where import InLab, Offline, Saved, site
from kptrace.errors import CannotLook, Inconclusive, NotFound, Usage
from kptrace.nearest import instead

if TYPE_CHECKING:
    from kptrace.explain import State


def check(
    node: Annotated[
        list[str] | None,
        typer.Option("--node", help="Only this one; may be given more than once.", metavar="NAME"),
    ] = None,
    *,
    lab: InLab,
    here: Offline,
    cluster: InCluster,
    saved: Saved,
    look: PlainLook,
) -> None:
    """Say what on the nodes would break Service traffic; nothing is sent.

    It exits with 1 when something would, with 4 when nothing was found but a node could not be
    looked at.
    """
    gc.disable()  # it is soon over, and looking for cycles takes a tenth of its time

    with ExitStack() as stack:
        there = _state(stack, lab, here, cluster, saved, node or [])
        from kptrace.checkup import check as look_at

        made = look_at(there, _chosen(there.nodes, node or []), progress())
    if not made.nodes and made.absent:
        raise CannotLook(made.absent[0].missing, made.absent[0].hint)
    from kptrace.render.checkup import checkup

    show(plain(made, look, checkup))
    wrong = any(finding.severity == "error" for finding in made.findings)
    raise typer.Exit(1 if wrong else Inconclusive.exit_code if made.absent else 0)


def _state(
    stack: ExitStack,
    lab: InLab,
    here: Offline,
    cluster: InCluster,
    saved: Saved,
    wanted: list[str],
) -> State:
    if saved.bundle is not None:
        if lab.named or here.offline:
            raise Usage("--bundle excludes --lab and --offline", "give one of them")
        from kptrace.bundle import Bundle

        return Bundle(saved.bundle)
    from kptrace.judge.health import STATS
    from kptrace.live import Live

    found = site(stack, lab, here, cluster, wanted)
    return Live(found.ground, found.nodes, (STATS,))


def _chosen(known: tuple[str, ...], wanted: list[str]) -> tuple[str, ...]:
    for name in wanted:
        if name not in known:
            raise NotFound(f"no node {name}", instead(name, known))
    if not known:
        raise NotFound("there is no node's state in it", "a node's folder holds iptables-save.txt")
    return tuple(dict.fromkeys(wanted)) or known
