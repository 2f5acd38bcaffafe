"""``kptrace check``: what on these nodes would break Service traffic."""

from __future__ import annotations

import gc
from contextlib import ExitStack
from typing import TYPE_CHECKING, Annotated

import typer

from kptrace.cli.console import print_report, progress
from kptrace.cli.environment import BundleOption, LabOptions, OfflineOption, site
from kptrace.cli.kubectl_flags import ClusterOptions
from kptrace.cli.output import BasicOutputOptions, plain
from kptrace.model.errors import EXIT_INCONCLUSIVE, NotFoundError, ObservationError, UsageError
from kptrace.model.suggestions import suggestion

if TYPE_CHECKING:
    from kptrace.explain.explain import StateSource


def check(
    node: Annotated[
        list[str] | None,
        typer.Option("--node", help="Check only this node (repeatable).", metavar="NAME"),
    ] = None,
    *,
    lab: LabOptions,
    here: OfflineOption,
    cluster: ClusterOptions,
    saved: BundleOption,
    look: BasicOutputOptions,
) -> None:
    """Say what on the nodes would break Service traffic; nothing is sent.

    It exits with 1 when something would, with 4 when nothing was found but a node could not be
    looked at.
    """
    gc.disable()  # it is soon over, and looking for cycles takes a tenth of its time

    with ExitStack() as stack:
        there = _state(stack, lab, here, cluster, saved, node or [])
        from kptrace.check.check import check as look_at

        report = look_at(there, _chosen(there.nodes, node or []), progress())
    if not report.nodes and report.unavailable:
        raise ObservationError(
            report.unavailable[0].unavailable,
            report.unavailable[0].hint,
            report.unavailable[0].manifest,
        )
    from kptrace.render.check import checkup

    print_report(plain(report, look, checkup))
    wrong = any(finding.severity == "error" for finding in report.findings)
    raise typer.Exit(1 if wrong else EXIT_INCONCLUSIVE if report.unavailable else 0)


def _state(
    stack: ExitStack,
    lab: LabOptions,
    here: OfflineOption,
    cluster: ClusterOptions,
    saved: BundleOption,
    requested: list[str],
) -> StateSource:
    if saved.bundle is not None:
        if lab.named or here.offline:
            raise UsageError("--bundle excludes --lab and --offline", "give one of them")
        from kptrace.bundle.folder import Bundle

        return Bundle(saved.bundle)
    from kptrace.diagnose.node_health import STATS
    from kptrace.environment.local_node import LiveState

    site_ = site(stack, lab, here, cluster, requested)
    return LiveState(site_.ground, site_.nodes, (STATS,))


def _chosen(known: tuple[str, ...], requested: list[str]) -> tuple[str, ...]:
    for name in requested:
        if name not in known:
            raise NotFoundError(f"no node {name}", suggestion(name, known))
    if not known:
        raise NotFoundError(
            "there is no node's state in it", "a node's folder holds iptables-save.txt"
        )
    return tuple(dict.fromkeys(requested)) or known
