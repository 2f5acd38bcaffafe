"""``kptrace trace``, the command that may be left out: one packet sent, watched and judged."""

from __future__ import annotations

import os
from contextlib import ExitStack
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from kptrace.cli.console import progress
from kptrace.cli.environment import LabOptions, OfflineOption, ground, namespace
from kptrace.cli.kubectl_flags import ClusterOptions
from kptrace.cli.output import OutputOptions, print_and_exit
from kptrace.model import Outcome
from kptrace.model.errors import UsageError


class Via(StrEnum):
    CLUSTER_IP = "clusterIP"
    NODE_PORT = "nodePort"
    EXTERNAL_IP = "externalIP"
    LOAD_BALANCER = "loadBalancer"


def trace(
    target: Annotated[
        str,
        typer.Argument(
            metavar="TARGET", help="svc/web, svc/web:http, web.shop, pod/x:8080, 10.96.0.10:53/udp"
        ),
    ],
    source: Annotated[
        str,
        typer.Option(
            "--from",
            metavar="SOURCE",
            help="pod/NAME or node/NAME (default: a pod of the namespace).",
        ),
    ] = "",
    via: Annotated[
        Via, typer.Option("--via", help="Which of the Service's addresses to use.")
    ] = Via.CLUSTER_IP,
    node: Annotated[
        str,
        typer.Option(
            "--node", metavar="NAME", help="Node whose address is used with --via nodePort."
        ),
    ] = "",
    ipv4: Annotated[bool, typer.Option("-4", help="IPv4 only.")] = False,
    ipv6: Annotated[bool, typer.Option("-6", help="IPv6 only.")] = False,
    count: Annotated[
        int, typer.Option("--count", metavar="N", min=1, max=200, help="Number of flows to send.")
    ] = 1,
    timeout: Annotated[
        float,
        typer.Option(
            "--timeout", metavar="SECONDS", min=0.1, max=60, help="Seconds to wait for a reply."
        ),
    ] = 4.0,
    expect: Annotated[
        list[Outcome] | None,
        typer.Option(
            "--expect",
            metavar="OUTCOME",
            help="Outcome that exits with 0 (default: delivered; repeatable). One "
            f"of: {', '.join(Outcome)}.",
        ),
    ] = None,
    trace_rule: Annotated[
        bool,
        typer.Option(
            "--trace-rule",
            help="Allow a temporary TRACE rule in the raw table if the kernel has no nftables.",
        ),
    ] = False,
    save: Annotated[
        Path | None,
        typer.Option("--save", metavar="FILE", help="Save the whole run to FILE (a tar.gz)."),
    ] = None,
    *,
    lab: LabOptions,
    here: OfflineOption,
    cluster: ClusterOptions,
    look: OutputOptions,
) -> None:
    """Send one marked packet, watch it with the kernel's own reports, and say what became of it."""
    from kptrace.model import TraceRequest
    from kptrace.model.targets import parse_target

    if ipv4 and ipv6:
        raise UsageError("-4 and -6 exclude each other", "give one of them, or none")
    if node and via is not Via.NODE_PORT:
        raise UsageError(
            f"--node {node} says whose node port is used",
            f"add --via nodePort; to start on that node: --from node/{node}",
        )
    own = namespace(lab, here, cluster)
    request = TraceRequest(
        target=parse_target(target, own),
        source=source,
        namespace=own,
        via=via.value,
        node=node,
        family=4 if ipv4 else 6 if ipv6 else 0,
        count=count,
        timeout=timeout,
        expect=tuple(expect or ()),
        trace_rule=trace_rule,
    )
    with ExitStack() as stack:
        where, request = ground(stack, request, lab, here, cluster)
        from kptrace.trace import trace as story

        run, trace = story.trace_and_report(
            request, where, int.from_bytes(os.urandom(4)), progress()
        )
    print_and_exit(run, save, look, trace)
