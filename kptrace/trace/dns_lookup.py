"""The name of the target, looked up as a program in the source would: from its own namespace, with
its own resolv.conf, search list and servers.
"""

from __future__ import annotations

from functools import partial

import msgspec

from kptrace.kube.objects import resolver as dns
from kptrace.model import DnsAnswer, Netns, Resolution, Source, TraceRequest
from kptrace.protocol import DnsQuery, DnsResponse
from kptrace.protocol.recording import files_by_netns
from kptrace.trace.agent_session import AgentSession, wait_all

RESOLV_CONF = "resolv.conf"

# A resolver asks a silent server again (resolv.conf(5), attempts), and over TCP if UDP was cut.
ATTEMPTS = ("udp", "udp", "tcp")
ASK_SECONDS = 1.0
ANSWER_SECONDS = 15.0


def with_dns(
    request: TraceRequest, source: Source, resolution: Resolution, session: AgentSession, seed: int
) -> Resolution:
    """The resolution with what DNS said, and with the address where only DNS knows it.

    Asked as the source's resolver would ask: each search name in turn until one has an answer.
    """
    conf = files_by_netns(session.words()).get(source.netns, {}).get(RESOLV_CONF, "")
    resolver = dns.parse_resolv_conf(conf)
    name = name_to_ask(request, source, resolution)
    if not name or not resolver.servers:
        return resolution
    kind = "AAAA" if request.family == 6 or ":" in resolution.address else "A"
    asked: list[DnsAnswer] = []
    for candidate in dns.questions(name, resolver):
        asked.append(_ask(session, source.netns, resolver, candidate, kind, seed))
        if asked[-1].records or asked[-1].status not in ("NXDOMAIN", "NOERROR"):
            break
    texts = [text for type, text in asked[-1].records if type == kind]
    return msgspec.structs.replace(
        resolution,
        dns=tuple(asked),
        search=resolver.search,
        ndots=resolver.ndots,
        address=resolution.address or (texts[0] if texts else ""),
    )


def name_to_ask(request: TraceRequest, source: Source, resolution: Resolution) -> str:
    """What a program in the source would look up; empty: nothing, the target is an address.

    A node's resolver is not the cluster's, so from a node a Service's name is not asked.
    """
    service = resolution.service
    if request.target.kind == "name":
        return request.target.name
    if request.target.kind != "service" or service is None:
        return ""
    if source.kind != "pod" and not service.external_name:
        return ""
    if source.netns.pod.startswith(f"{service.namespace}/"):
        return service.name
    return f"{service.name}.{service.namespace}"


def _ask(
    session: AgentSession, netns: Netns, resolver: dns.Resolver, name: str, kind: str, seed: int
) -> DnsAnswer:
    """One question as a resolver puts it: to the servers in turn while they are silent."""
    query = dns.query(name, kind, seed & 0xFFFF)
    answers: list[DnsAnswer] = []
    cut = False
    for server in resolver.servers:
        for transport in ATTEMPTS:
            if transport == "tcp" and not cut:
                break
            ask = partial(
                DnsQuery,
                netns=netns,
                server=server,
                query=query,
                transport=transport,
                timeout=ASK_SECONDS,
            )
            agent, id = session.send(netns.node, ask)
            wait_all([(agent, id)], ANSWER_SECONDS, "DNS question")
            reply = next(r for r in agent.log if isinstance(r, DnsResponse) and r.id == id)
            answer, cut = dns.read_answer(reply, name, kind)
            answers.append(answer)
            if answer.status != "TIMEOUT" and not cut:
                break
        if answers[-1].status not in ("TIMEOUT", "REFUSED", "CLOSED", "UNREACHABLE"):
            break
    return answers[-1]
