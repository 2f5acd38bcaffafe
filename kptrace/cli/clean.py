"""``kptrace clean``: the pods that a killed run left in the cluster are removed now."""

from __future__ import annotations

from typing import Annotated

import typer

from kptrace.cli.console import print_report, progress
from kptrace.cli.kubectl_flags import KubectlFlags


def clean(
    everywhere: Annotated[
        bool, typer.Option("-A", "--all-namespaces", help="All namespaces.")
    ] = False,
    run: Annotated[
        str,
        typer.Option(
            "--run", metavar="RUN", help="Delete only pods of this run (label kptrace.io/run)."
        ),
    ] = "",
    *,
    cluster: KubectlFlags,
) -> None:
    """Remove the agents' pods of runs that were killed; those of runs at work too.

    They end by themselves, some minutes after they were started. Finds them by their label.
    """
    from kptrace.kube.agents.cleanup import delete_all_pods

    namespace = "" if everywhere else cluster.client.namespace
    removed = delete_all_pods(cluster.client, namespace, run, progress())
    where = "" if everywhere else f" in namespace {namespace}"
    print_report(
        "".join(f"removed pod {pod.key}\n" for pod in removed) or f"nothing to remove{where}"
    )
