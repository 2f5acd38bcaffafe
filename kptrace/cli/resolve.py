"""``kptrace resolve``: the DNS and API step alone."""

from __future__ import annotations

import os
from contextlib import ExitStack
from typing import Annotated

import typer

from kptrace.cli.console import print_report, progress
from kptrace.cli.environment import LabOptions, OfflineOption, ground, namespace
from kptrace.cli.kubectl_flags import ClusterOptions
from kptrace.cli.output import BasicOutputOptions, plain
from kptrace.model.errors import EXIT_INCONCLUSIVE, UsageError


def resolve(
    target: Annotated[
        str,
        typer.Argument(
            metavar="TARGET", help="svc/web, svc/web:http, web.shop, pod/x:8080, example.org"
        ),
    ],
    source: Annotated[
        str,
        typer.Option(
            "--from",
            metavar="SOURCE",
            help="Pod whose resolver is asked: pod/NAME (default: a pod of the namespace).",
        ),
    ] = "",
    ipv4: Annotated[bool, typer.Option("-4", help="IPv4 only.")] = False,
    ipv6: Annotated[bool, typer.Option("-6", help="IPv6 only.")] = False,
    *,
    lab: LabOptions,
    here: OfflineOption,
    cluster: ClusterOptions,
    look: BasicOutputOptions,
) -> None:
    """Say what the API and the pod's own DNS make of a name; only DNS questions are sent.

    It exits with 1 when the name does not resolve, or to something else than the API says, and with
    4 when DNS could not be asked.
    """
    from kptrace.model import TraceRequest
    from kptrace.model.targets import parse_target

    if ipv4 and ipv6:
        raise UsageError("-4 and -6 exclude each other", "give one of them, or none")
    own = namespace(lab, here, cluster)
    request = TraceRequest(
        target=parse_target(target, own),
        source=source,
        namespace=own,
        family=4 if ipv4 else 6 if ipv6 else 0,
    )
    with ExitStack() as stack:
        where, request = ground(stack, request, lab, here, cluster)
        from kptrace.resolve.resolve import resolve_target

        report = resolve_target(request, where, int.from_bytes(os.urandom(4)), progress())
    from kptrace.render.resolve import resolved

    print_report(plain(report, look, resolved))
    wrong = any(finding.severity == "error" for finding in report.findings)
    raise typer.Exit(1 if wrong else EXIT_INCONCLUSIVE if report.unavailable else 0)
