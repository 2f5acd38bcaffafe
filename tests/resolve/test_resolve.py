"""``resolve``: which questions are asked of whom, and what is said where none is.

The agent of these tests is a resolver that knows a few names; what each target must come to is
written by hand after the Kubernetes DNS specification.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import dns.message
import dns.rcode
import dns.rrset
import jsonschema
import pytest

import kptrace.render.schema
from kptrace.model import Netns, ResolveReport, TraceRequest
from kptrace.model.targets import parse_target
from kptrace.protocol import DnsQuery, DnsResponse, Done, FileContent, ReadFiles, Reply, Request
from kptrace.render.json import json as rendered
from kptrace.render.resolve import resolved
from kptrace.resolve.resolve import A_NODE, A_POD, AN_ADDRESS, NO_SERVERS, resolve_target

CONF = "nameserver 10.96.0.10\nsearch shop.svc.cluster.local svc.cluster.local\noptions ndots:5\n"
DOMAIN = "svc.cluster.local"
SLICE = {"addressType": "IPv4", "ports": [{"port": 8080, "name": "http"}]}
API = {
    "services.json": [
        {
            "metadata": {"name": "web", "namespace": "shop"},
            "spec": {
                "type": "ClusterIP",
                "clusterIP": "10.96.1.1",
                "clusterIPs": ["10.96.1.1", "fd00::1"],
                "ports": [{"name": "http", "port": 80, "targetPort": 8080}],
            },
        },
        {
            "metadata": {"name": "alias", "namespace": "shop"},
            "spec": {"type": "ExternalName", "externalName": "db.example.org"},
        },
    ],
    "endpointslices.json": [
        {
            "metadata": {
                "name": "web-1",
                "namespace": "shop",
                "labels": {"kubernetes.io/service-name": "web"},
            },
            "endpoints": [{"addresses": ["10.244.1.11"], "nodeName": "node-a"}],
            **SLICE,
        }
    ],
    "pods.json": [
        {
            "metadata": {"name": "client", "namespace": "shop"},
            "spec": {"nodeName": "node-a"},
            "status": {"podIPs": [{"ip": "10.244.1.10"}]},
        }
    ],
    "nodes.json": [{"metadata": {"name": "node-a"}}],
}


class Resolver:
    """An agent that answers from ``names``, and NXDOMAIN to all else."""

    node = "node-a"

    def __init__(self, names: dict[tuple[str, str], str], conf: str) -> None:
        self._names, self._conf = names, conf
        self.log: list[Reply] = []
        self.asked: list[str] = []

    def send(self, request: Request) -> None:
        if isinstance(request, ReadFiles):
            for file in request.files:
                self.log.append(
                    FileContent(id=request.id, netns=request.netns, file=file, text=self._conf)
                )
        elif isinstance(request, DnsQuery):
            self.log.append(self._answer(request))
        self.log.append(Done(id=request.id))

    def _answer(self, ask: DnsQuery) -> DnsResponse:
        question = dns.message.from_wire(ask.query)
        asked = question.question[0]
        name, kind = asked.name.to_text(True), dns.rdatatype.to_text(asked.rdtype)
        self.asked.append(f"{name} {kind}")
        answer = dns.message.make_response(question)
        found = self._names.get((name, kind))
        if found is None:
            answer.set_rcode(dns.rcode.NXDOMAIN)
        else:
            answer.answer.append(dns.rrset.from_text(asked.name, 5, "IN", kind, found))
        return DnsResponse(
            id=ask.id,
            netns=ask.netns,
            server=ask.server,
            transport=ask.transport,
            elapsed_us=700,
            message=answer.to_wire(),
        )

    def wait(self, id: int, timeout: float) -> bool:
        return True

    def close(self) -> None:
        pass


class Ground:
    def __init__(self, resolver: Resolver) -> None:
        self._resolver = resolver

    def api(self) -> dict[str, str]:
        return {name: json.dumps({"kind": "List", "items": some}) for name, some in API.items()}

    def agent(self, node: str) -> Resolver:
        return self._resolver


WEB = {(f"web.shop.{DOMAIN}", "A"): "10.96.1.1", (f"web.shop.{DOMAIN}", "AAAA"): "fd00::1"}


def told(
    target: str,
    names: dict[tuple[str, str], str],
    source: str = "pod/client",
    conf: str = CONF,
    family: int = 0,
) -> tuple[ResolveReport, Sequence[str]]:
    resolver = Resolver(names, conf)
    question = TraceRequest(
        target=parse_target(target, "shop"), source=source, namespace="shop", family=family
    )
    return resolve_target(question, Ground(resolver), 7, lambda _: None), resolver.asked


def test_both_families_that_the_service_has() -> None:
    made, asked = told("svc/web", WEB)
    assert asked == [f"web.shop.{DOMAIN} A", f"web.shop.{DOMAIN} AAAA"]
    assert made.findings == ()
    assert made.resolution.address == "10.96.1.1"
    assert made.servers == ("10.96.0.10",)
    assert made.source.netns == Netns(node="node-a", pod="shop/client")


def test_only_the_family_that_was_asked_for() -> None:
    made, asked = told("svc/web", WEB, family=6)
    assert asked == [f"web.shop.{DOMAIN} AAAA"]
    assert made.resolution.address == "fd00::1"


def test_another_address_than_the_apis() -> None:
    made, _ = told("svc/web", {**WEB, (f"web.shop.{DOMAIN}", "A"): "10.96.9.9"})
    (finding,) = made.findings
    assert (finding.cause, finding.severity) == ("dns-address-differs", "error")


def test_a_name_that_dns_does_not_know() -> None:
    made, asked = told("svc/web", {}, family=4)
    assert [finding.cause for finding in made.findings] == ["dns-nxdomain"]
    assert asked == [f"web.shop.{DOMAIN} A", f"web.{DOMAIN} A", "web A"]


def test_an_alias_is_what_dns_says() -> None:
    made, _ = told("svc/alias", {(f"alias.shop.{DOMAIN}", "A"): "192.0.2.5"})
    assert made.resolution.address == "192.0.2.5"
    assert made.findings == ()


@pytest.mark.parametrize(
    ("target", "source", "conf", "why"),
    [
        ("10.96.1.1:80", "pod/client", CONF, AN_ADDRESS),
        ("pod/client:80", "pod/client", CONF, A_POD),
        ("svc/web", "node/node-a", CONF, A_NODE),
        ("svc/web", "pod/client", "search shop\n", NO_SERVERS),
    ],
)
def test_what_dns_is_not_asked(target: str, source: str, conf: str, why: str) -> None:
    made, asked = told(target, WEB, source, conf)
    assert (made.dns_skipped_reason, list(asked)) == (why, [])
    assert f"not asked: {why[:20]}" in resolved(made)


def test_the_text() -> None:
    made, _ = told("svc/web", WEB)
    lines = resolved(made).splitlines()
    assert lines[0].startswith("svc/web (shop)  from pod/client on node-a")
    assert lines[0].endswith("RESOLVED")
    assert "API   Service shop/web, ClusterIP 10.96.1.1, fd00::1" in lines
    assert "        10.244.1.11:8080  node-a" in lines
    assert "ndots 5" in resolved(made)


@pytest.mark.parametrize("width", [40, 60, 80])
def test_it_fits(width: int) -> None:
    made, _ = told("svc/web", {})
    assert max(map(len, resolved(made, width).splitlines())) <= width


def test_the_document_keeps_to_its_schema() -> None:
    made, _ = told("svc/web", {})
    folder = Path(kptrace.render.schema.__file__).parent
    schema = json.loads((folder / "resolve-report.schema.json").read_text())
    jsonschema.Draft202012Validator.check_schema(schema)
    document = json.loads(rendered(made))
    jsonschema.Draft202012Validator(schema).validate(document)
    assert (document["apiVersion"], document["kind"]) == ("kptrace.io/v1alpha1", "ResolveReport")
