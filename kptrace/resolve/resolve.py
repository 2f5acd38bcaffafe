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
    Resolution,
    ResolveReport,
    Source,
    TraceRequest,
)
from kptrace.protocol.recording import files_by_netns
from kptrace.trace.agent_session import AgentSession, Environment
from kptrace.trace.dns_lookup import RESOLV_CONF, name_to_ask, with_dns
from kptrace.trace.trace import Say

NO_SERVERS = "no nameserver is known there"
AN_ADDRESS = "an address needs no name"
A_POD = "a pod is named by the API alone"
A_NODE = "a node's resolver is not the cluster's: --from pod/NAME asks as a pod does"


def resolve_target(
    question: TraceRequest, ground: Environment, seed: int, say: Say
) -> ResolveReport:
    documents = read_cluster_state(ground.api())
    meant = resolve(question, documents)
    source = choose_source(question, documents, (e.pod for e in meant.endpoints))
    asking = bool(name_to_ask(question, source, meant))
    servers: tuple[str, ...] = ()
    absent: tuple[EvidenceSource, ...] = ()
    if asking:
        say(f"asking DNS as {source.netns.name} on {source.netns.node} does")
        crew = AgentSession(ground)
        crew.sender(source.netns)
        if crew.reachable_netns((source.netns,)):
            crew.dump((source.netns,), (RESOLV_CONF,))
            conf = files_by_netns(crew.words()).get(source.netns, {}).get(RESOLV_CONF, "")
            servers = resolver.parse_resolv_conf(conf).servers
            meant = _asked(question, source, meant, crew, seed)
        absent = tuple(crew.absent)
    known = documents.endpoints.get(meant.service.key, ()) if meant.service else ()
    return ResolveReport(
        target=question.target,
        source=source,
        resolution=meant,
        servers=servers,
        dns_skipped_reason=_why_not(question, source)
        if not asking
        else ""
        if servers
        else _unasked(absent),
        service_source=documents.told_by.by if documents.told_by else "",
        findings=tuple(_differences(meant, known, source.netns)),
        missing=tuple(f"api/{name}" for name in documents.missing),
        unavailable=absent,
    )


def _asked(
    question: TraceRequest, source: Source, meant: Resolution, crew: AgentSession, seed: int
) -> Resolution:
    answers: list[DnsAnswer] = []
    for number, family in enumerate(_families(question, meant)):
        of_family = msgspec.structs.replace(question, family=family)
        resolution = with_dns(of_family, source, meant, crew, seed + number)
        answers += resolution.dns
        meant = msgspec.structs.replace(resolution, dns=())
    return msgspec.structs.replace(meant, dns=tuple(answers))


def _families(question: TraceRequest, meant: Resolution) -> tuple[int, ...]:
    service = meant.service
    if question.family:
        return (question.family,)
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


def _why_not(question: TraceRequest, source: Source) -> str:
    if question.target.kind == "address":
        return AN_ADDRESS
    return A_POD if question.target.kind == "pod" else A_NODE
