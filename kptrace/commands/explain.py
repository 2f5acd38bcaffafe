"""``kptrace explain``: what a node's rules do with a Service's packets."""

from __future__ import annotations

import gc
from contextlib import ExitStack
from typing import Annotated

import typer

from kptrace.commands.connection import InCluster
from kptrace.commands.console import show
from kptrace.commands.report import PlainLook, plain
from kptrace.commands.where import InLab, Offline, Saved, namespace, state
from kptrace.errors import Usage


def explain(
    target: Annotated[
        str,
        typer.Argument(help="svc/web, svc/web:http, web.shop", show_default=False),
    ],
    source: Annotated[
        str, typer.Option("--from", help="Only for pod/NAME, node/NAME or an ADDRESS outside.")
    ] = "",
    node: Annotated[
        str, typer.Option("--node", help="Whose rules; default: those of --from, else the first.")
    ] = "",
    *,
    lab: InLab,
    here: Offline,
    saved: Saved,
    cluster: InCluster,
    look: PlainLook,
) -> None:
    """Say what a node's rules do with a Service's packets, rule by rule; nothing is sent.

    It exits with 1 when the rules differ from what the API tells.
    """
    gc.disable()  # it is soon over, and looking for cycles takes a tenth of its time

    from kptrace.model import Question
    from kptrace.target import parse_source, parse_target

    own = cluster.namespace or "default" if saved.bundle else namespace(lab, here, cluster)
    meant = parse_target(target, own)
    if meant.kind != "service":
        raise Usage(f'"{target}" is no Service', "explain tells of Services: svc/NAME")
    sender = parse_source(source, own) if source else None
    question = Question(target=meant, source=source, namespace=own, node=node)
    with ExitStack() as stack:
        there = state(stack, question, lab, here, saved, cluster)
        from kptrace.explain import look as look_at  # an agent may be at work meanwhile

        made = look_at(meant, sender, node, there)
    from kptrace.render.explain import explain as text

    show(plain(made, look, text))
    raise typer.Exit(int(any(finding.severity == "error" for finding in made.findings)))
