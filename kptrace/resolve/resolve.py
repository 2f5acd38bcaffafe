"""What a target means, asked of the API and, as its own resolver asks, of the source's DNS servers:
``resolve_target``. Nothing is sent but DNS questions.

In: the question and a ground. Out: a Resolved: what each of the two says, and where they differ.
Both families that the Service has are asked for, as getaddrinfo(3) does.
"""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import ip_address

import msgspec

from kptrace.diagnose.checks.dns import compare
from kptrace.kube.objects import resolver
from kptrace.kube.objects.cluster_state import read_cluster_state
from kptrace.kube.objects.resolve import choose_source, resolve
from kptrace.model import (
    DnsAnswer,
    Endpoint,
    EvidenceSource,
    Finding,
    Netns,
    ProgressCallback,
    Resolution,
    ResolveReport,
    Source,
    TraceRequest,
)
from kptrace.protocol.recording import files_by_netns
from kptrace.trace.agent_session import AgentSession, Environment
from kptrace.trace.dns_lookup import RESOLV_CONF, name_to_ask, with_dns

NO_SERVERS = "no nameserver is known there"
AN_ADDRESS = "an address needs no name"
A_POD = "a pod is named by the API alone"
A_NODE = "a node's resolver is not the cluster's: --from pod/NAME asks as a pod does"


def resolve_target(
    request: TraceRequest, environment: Environment, seed: int, progress: ProgressCallback
) -> ResolveReport:
    cluster_state = read_cluster_state(environment.api())
    meant = resolve(request, cluster_state)
    source = choose_source(request, cluster_state, (e.pod for e in meant.endpoints))
    asking = bool(name_to_ask(request, source, meant))
    servers: tuple[str, ...] = ()
    absent: tuple[EvidenceSource, ...] = ()
    if asking:
        progress(f"asking DNS as {source.netns.name} on {source.netns.node} does")
        session = AgentSession(environment)
        session.open_source_netns(source.netns)
        if session.reachable_netns((source.netns,)):
            session.dump((source.netns,), (RESOLV_CONF,))
            conf = files_by_netns(session.words()).get(source.netns, {}).get(RESOLV_CONF, "")
            servers = resolver.parse_resolv_conf(conf).servers
            meant = _asked(request, source, meant, session, seed)
        absent = tuple(session.absent)
    known = cluster_state.endpoints.get(meant.service.key, ()) if meant.service else ()
    return ResolveReport(
        target=request.target,
        source=source,
        resolution=meant,
        servers=servers,
        dns_skipped_reason=_why_not(request, source)
        if not asking
        else ""
        if servers
        else _unasked(absent),
        service_source=cluster_state.told_by.by if cluster_state.told_by else "",
        findings=tuple(_differences(meant, known, source.netns)),
        missing=tuple(f"api/{name}" for name in cluster_state.missing),
        unavailable=absent,
    )


def _asked(
    request: TraceRequest, source: Source, meant: Resolution, session: AgentSession, seed: int
) -> Resolution:
    answers: list[DnsAnswer] = []
    for number, family in enumerate(_families(request, meant)):
        of_family = msgspec.structs.replace(request, family=family)
        resolution = with_dns(of_family, source, meant, session, seed + number)
        answers += resolution.dns
        meant = msgspec.structs.replace(resolution, dns=())
    return msgspec.structs.replace(meant, dns=tuple(answers))


def _families(request: TraceRequest, meant: Resolution) -> tuple[int, ...]:
    service = meant.service
    if request.family:
        return (request.family,)
    if service is None or service.external_name:
        return (4,)
    addresses = service.cluster_ips or tuple(e.address for e in meant.endpoints)
    return tuple(dict.fromkeys(ip_address(address).version for address in addresses)) or (4,)


def _differences(meant: Resolution, known: tuple[Endpoint, ...], asker: Netns) -> Iterator[Finding]:
    """Each family's answers by themselves, for the last one of them decides."""
    for kind in dict.fromkeys(answer.type for answer in meant.dns):
        answers = [answer for answer in meant.dns if answer.type == kind]
        yield from compare(answers, meant.service, known, asker)


def _unasked(absent: tuple[EvidenceSource, ...]) -> str:
    return absent[0].unavailable if absent else NO_SERVERS


def _why_not(request: TraceRequest, source: Source) -> str:
    if request.target.kind == "address":
        return AN_ADDRESS
    return A_POD if request.target.kind == "pod" else A_NODE
