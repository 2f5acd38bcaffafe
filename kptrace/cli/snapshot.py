"""``kptrace snapshot``: the state of nodes kept, to be explained or checked later, elsewhere."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from kptrace.cli.console import print_report, progress
from kptrace.cli.environment import LabOptions, OfflineOption, site
from kptrace.cli.kubectl_flags import ClusterOptions
from kptrace.model.errors import EXIT_INCONCLUSIVE, NotFoundError, ObservationError
from kptrace.model.suggestions import suggestion
from kptrace.rules.live.queries import TABLES

if TYPE_CHECKING:
    from kptrace.bundle.collect import CollectedState


def snapshot(
    output: Annotated[
        Path | None,
        typer.Option(
            "-o",
            "--output",
            metavar="PATH",
            help="Directory or FILE.tar.gz (default: kptrace-snapshot-TIME.tar.gz).",
            show_default=False,
        ),
    ] = None,
    node: Annotated[
        list[str] | None,
        typer.Option("--node", help="Save only this node (repeatable).", metavar="NAME"),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Overwrite an existing snapshot.")] = False,
    *,
    lab: LabOptions,
    here: OfflineOption,
    cluster: ClusterOptions,
) -> None:
    """Keep all that explaining needs of every node as one bundle; nothing is sent.

    It tells of addresses, Services and connections, so only you can read it. What could not be had
    is said and left out; it exits with 4 when that is a whole node, or its rules.
    """
    from kptrace.cli.snapshot_output import keep, place_for

    path = place_for(output, force)
    with ExitStack() as stack:
        there = site(stack, lab, here, cluster, node or ())
        from kptrace.bundle.collect import collect

        nodes = _chosen(there.nodes, node or [])
        collected_state = collect(there.ground, nodes, progress())
    absent = [layer for layer in collected_state.missing if layer.name == "agent"]
    if len(absent) == len(nodes):
        raise ObservationError(absent[0].unavailable, absent[0].hint, absent[0].manifest)
    keep(
        path,
        collected_state,
        tuple(name for name in nodes if name not in {source.node for source in absent}),
    )
    print_report(_words(path, collected_state, len(nodes) - len(absent)))
    whole = not any(layer.name in ("agent", TABLES) for layer in collected_state.missing)
    raise typer.Exit(0 if whole else EXIT_INCONCLUSIVE)


def _chosen(known: tuple[str, ...], requested: list[str]) -> tuple[str, ...]:
    for name in requested:
        if name not in known:
            raise NotFoundError(f"no node {name}", suggestion(name, known))
    return tuple(dict.fromkeys(requested)) or known


def _words(path: Path, collected_state: CollectedState, nodes: int) -> str:
    from kptrace.cli.console import width
    from kptrace.render.layout import TextLayout, span

    page = TextLayout(width(), False)
    size = sum(map(len, collected_state.files.values())) / 1000
    count = f"{nodes} node{'s' if nodes != 1 else ''}, {len(collected_state.files)} files"
    many = f"{count}, {size:.0f} kB"
    page.uncut(span(str(path), "name"))
    page.line(span(f"{many}, readable by you only"), indent=2)
    reasons: dict[tuple[str, str], list[str]] = {}
    for layer in collected_state.needed:
        reasons.setdefault((layer.node, layer.unavailable), []).append(layer.name)
    for (node, why), names in reasons.items():
        page.line(span(f"not had of {node}: {', '.join(names)}: {why}"), indent=2, hang=4)
    page.uncut(span(f"kptrace explain svc/NAME --bundle {path}", "name"), indent=2)
    return page.text()
