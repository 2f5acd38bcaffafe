"""What DNS answered against what the API says: answers and a Service in, findings out. Pure.

The answers are those to one lookup, in the order of asking, so NXDOMAIN for an early name of the
search list is no fault: the last question decides. What a name of a Service must resolve to
(Kubernetes DNS specification 1.1.0, section 2): its ClusterIPs of the asked family; for a headless
Service the addresses of its ready endpoints; for type ExternalName an alias, which may lead
anywhere. An answer is wrong only if none of its addresses is one of these.

Ids of findings: dns-timeout, dns-unreachable, dns-refused, dns-servfail, dns-malformed,
dns-nxdomain, dns-no-address, dns-address-differs; and dns-slow, a warning.
"""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import ip_address
from typing import Literal

import msgspec

from kptrace.diagnose.phrases import end
from kptrace.model import DnsAnswer, Endpoint, Finding, Netns, Service

SLOW_US = 1_000_000

FAMILY = {"A": "IPv4", "AAAA": "IPv6"}

# status of the deciding answer -> (cause, what it says of the server and the name)
FAILURES = {
    "TIMEOUT": ("dns-timeout", "DNS server {server} did not answer the question for {name}"),
    "CLOSED": (
        "dns-unreachable",
        "DNS server {server} cannot be asked: nobody serves its port, or a rule rejects it",
    ),
    "UNREACHABLE": ("dns-unreachable", "DNS server {server} could not be reached"),
    "REFUSED": ("dns-refused", "DNS server {server} refused the question for {name}"),
    "SERVFAIL": ("dns-servfail", "DNS server {server} failed to answer for {name}"),
    "MALFORMED": ("dns-malformed", "what DNS server {server} answered for {name} is no DNS answer"),
    "NXDOMAIN": ("dns-nxdomain", "DNS server {server} knows no name {name}"),
}

UNANSWERED = ("dns-timeout", "dns-unreachable")

REMEDIES = {
    "dns-nxdomain": "kubectl -n kube-system logs -l k8s-app=kube-dns  # does it follow the API?",
    "dns-servfail": "kubectl -n kube-system logs -l k8s-app=kube-dns  # what does it lack?",
    "dns-address-differs": "kubectl -n kube-system get pods -l k8s-app=kube-dns -o wide"
    "  # did one of these answer?",
}


def compare(
    answers: Iterable[DnsAnswer],
    service: Service | None,
    endpoints: Iterable[Endpoint] = (),
    asker: Netns | None = None,
) -> list[Finding]:
    """service: None where the target is a name that no Service has; then any address will do.

    asker: whose questions were they, for the command that finds where they are lost
    """
    asked = tuple(answers)
    if not asked:
        return []
    findings = [
        _with_way(finding, asked, asker) for finding in _judge(asked, service, tuple(endpoints))
    ]
    total = sum(answer.elapsed_us for answer in asked)
    if not findings and total >= SLOW_US:
        findings = [
            _finding(
                "dns-slow",
                asked,
                f"{asked[-1].name} took {total / 1e6:.1f} s to resolve",
                severity="warning",
            )
        ]
    return findings


def _judge(
    asked: tuple[DnsAnswer, ...], service: Service | None, endpoints: tuple[Endpoint, ...]
) -> list[Finding]:
    last = asked[-1]
    addresses = tuple(text for type, text in last.records if type == last.type)
    if last.status == "NOERROR" and addresses:
        return _differing(asked, addresses, service, endpoints)
    if last.status == "NOERROR":
        family = FAMILY.get(last.type, last.type)
        return [_finding("dns-no-address", asked, f"{last.name} has no {family} address in DNS")]
    cause, phrase = FAILURES.get(
        last.status, ("dns-servfail", "DNS server {server} answered {status} for {name}")
    )
    phrase = phrase.format(server=last.server, name=last.name, status=last.status)
    if cause == "dns-nxdomain" and len(asked) > 1:
        phrase += f", nor any other of the {len(asked)} names of the search list"
    return [_finding(cause, asked, phrase)]


def _differing(
    asked: tuple[DnsAnswer, ...],
    addresses: tuple[str, ...],
    service: Service | None,
    endpoints: tuple[Endpoint, ...],
) -> list[Finding]:
    requested = _wanted(service, endpoints)
    if not requested or requested & {_normal(address) for address in addresses}:
        return []
    assert service is not None
    last = asked[-1]
    known = ", ".join(sorted(requested))
    return [
        _finding(
            "dns-address-differs",
            asked,
            f"DNS says {last.name} is {', '.join(addresses)}, the API says {known}",
            (f"Service {service.key} in the API: {known}",),
        )
    ]


def _wanted(service: Service | None, endpoints: tuple[Endpoint, ...]) -> set[str]:
    """The addresses of which one must be in the answer; empty: nothing is known against it."""
    if service is None or service.external_name:
        return set()
    if service.headless:
        return {_normal(e.address) for e in endpoints if e.ready}
    return {_normal(address) for address in service.cluster_ips}


def _normal(address: str) -> str:
    try:
        return str(ip_address(address))
    except ValueError:
        return address


def _finding(
    cause: str,
    asked: tuple[DnsAnswer, ...],
    summary: str,
    more: tuple[str, ...] = (),
    severity: Literal["error", "warning"] = "error",
) -> Finding:
    last = asked[-1]
    return Finding(
        cause=cause,
        severity=severity,
        node="",
        object=f"{last.name} ({last.type}) at {last.server}",
        summary=summary,
        evidence=(*map(_said, asked), *more),
        remedy=(REMEDIES[cause],) if cause in REMEDIES else (),
    )


def _with_way(finding: Finding, asked: tuple[DnsAnswer, ...], asker: Netns | None) -> Finding:
    """Where no answer came, the way to the server is what has to be looked at."""
    if asker is None or finding.cause not in UNANSWERED:
        return finding
    namespace, _, name = asker.pod.partition("/")
    source = f"pod/{name}.{namespace}" if name else f"node/{asker.node}"
    last = asked[-1]
    to = f"{end(last.server, 53)}/{last.transport}"
    trace = f"kptrace {to} --from {source}  # where is the question lost?"
    return msgspec.structs.replace(finding, remedy=(trace, *finding.remedy))


def _said(answer: DnsAnswer) -> str:
    """``10.96.0.10 over UDP: web.shop A: NXDOMAIN, 0.8 ms``."""
    said = ", ".join(f"{type} {text}" for type, text in answer.records) or answer.status
    return (
        f"{answer.server} over {answer.transport.upper()}: {answer.name} {answer.type}: {said}, "
        f"{answer.elapsed_us / 1000:.1f} ms"
    )
