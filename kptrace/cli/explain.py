"""``kptrace explain``: what a node's rules do with a Service's packets."""

from __future__ import annotations

import gc
from contextlib import ExitStack
from typing import Annotated

import typer

from kptrace.cli.console import print_report
from kptrace.cli.environment import BundleOption, LabOptions, OfflineOption, namespace, state
from kptrace.cli.kubectl_flags import ClusterOptions
from kptrace.cli.output import BasicOutputOptions, plain


def explain(
    target: Annotated[
        str,
        typer.Argument(
            metavar="TARGET",
            help="svc/web, svc/web:http, web.shop, 10.96.0.10:53",
            show_default=False,
        ),
    ],
    source: Annotated[
        str,
        typer.Option(
            "--from",
            metavar="SOURCE",
            help="Client to evaluate: pod/NAME, node/NAME or an external ADDRESS.",
        ),
    ] = "",
    node: Annotated[
        str,
        typer.Option(
            "--node",
            metavar="NAME",
            help="Node whose rules are explained (default: the client's, else the first).",
        ),
    ] = "",
    *,
    lab: LabOptions,
    here: OfflineOption,
    saved: BundleOption,
    cluster: ClusterOptions,
    look: BasicOutputOptions,
) -> None:
    """Say what a node's rules do with a Service's packets, rule by rule; nothing is sent.

    It exits with 1 when the rules differ from what the API tells, with 4 when not enough was read
    to know what they do.
    """
    gc.disable()  # it is soon over, and looking for cycles takes a tenth of its time
    from kptrace.cli.explain_request import exit_code, explained

    own = cluster.namespace or "default" if saved.bundle else namespace(lab, here, cluster)
    with ExitStack() as stack:
        explanation = explained(
            target,
            source,
            own,
            node,
            lambda request: state(stack, request, lab, here, saved, cluster),
        )
    from kptrace.render.explain import explain as text

    print_report(plain(explanation, look, text))
    raise typer.Exit(exit_code(explanation))
