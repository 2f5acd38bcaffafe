"""What ``explain`` says of every Service of every real node, against the API and real connections.

The dumps are the state of nodes as kube-proxy left it; every folder of their make is looked at,
also such as come later. The truth about endpoints is read here from the API's JSON itself, for all
Services without topology hints; for those with hints it is ``expected_endpoints()``, which the
others have
proved. ``traffic.txt`` holds what connections through these very rules did.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from functools import lru_cache
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from kptrace.bundle.folder import Bundle
from kptrace.explain.explain import explain
from kptrace.kube.objects.cluster_state import ClusterState, read_cluster_state
from kptrace.model import Explanation, Netns, Outcome, ServiceEntrypoint, SourceSpec, Target
from kptrace.rules.kubeproxy.expected_endpoints import endpoints_of, expected_endpoints
from kptrace.simulate.snapshot.snapshot import Snapshot, read_snapshot

DUMPS = Path(os.environ.get("KPTRACE_DUMPS", Path(__file__).parents[2] / "shared" / "dumps"))
Json = dict[str, Any]
Ends = frozenset[tuple[str, int]]

FAMILIES = {"ip": 4, "ip6": 6}
# iptables mode hangs KUBE-EXTERNAL-SERVICES into INPUT and FORWARD alone: what the node itself
# sends to such an address without endpoints leaves it as it is
UNGUARDED = {("iptables", "externalIP"), ("iptables", "loadBalancer")}
# its IPv6 tables were taken before kube-proxy had masquerading in them (the dumps' README)
MID_SYNC = {"ipvs-rr-default"}
REFUSED = {Outcome.NO_ENDPOINTS, Outcome.REJECTED}


def places() -> Iterator[tuple[str, str]]:
    """(folder, node)"""
    for folder in sorted(DUMPS.glob("*")) if DUMPS.is_dir() else ():
        if folder.is_dir() and not folder.name.startswith("_"):
            yield from ((folder.name, node) for node in Bundle(folder).nodes)


def is_ipvs(folder: str, node: str) -> bool:
    return "ipvsadm-Sn.txt" in Bundle(DUMPS / folder).node(node)


PLACES = [pytest.param(*place, id="-".join(place)) for place in places()]
every_place = pytest.mark.parametrize(("folder", "node"), PLACES or [("", "")])


@pytest.fixture(autouse=True)
def _needs_dumps(dumps: Path) -> None:
    """Skips, or fails in CI, where there are none (conftest.py)."""


@lru_cache(maxsize=2)
def state(folder: str, node: str) -> tuple[ClusterState, Snapshot, tuple[str, ...]]:
    bundle = Bundle(DUMPS / folder)
    place = Netns(node=node)
    return read_cluster_state(bundle.api()), read_snapshot(place, bundle.node(node)), bundle.nodes


def asked(folder: str, node: str, key: str, source: SourceSpec | None = None) -> Explanation:
    documents, snapshot, nodes = state(folder, node)
    namespace, name = key.split("/")
    target = Target(kind="service", text=key, name=name, namespace=namespace)
    return explain(target, source, node, documents, snapshot, nodes)


# --- the API's truth, from its JSON alone -----------------------------------------------------


class Truth:
    """What kube-proxy has to program on a node, for Services without topology hints."""

    def __init__(self, folder: str, node: str) -> None:
        api = Bundle(DUMPS / folder).api()
        self.node = node
        self.services: list[Json] = json.loads(api["services.json"])["items"]
        self.slices: list[Json] = json.loads(api["endpointslices.json"])["items"]
        nodes = {each["metadata"]["name"]: each for each in json.loads(api["nodes.json"])["items"]}
        self.addresses = [
            each["address"]
            for each in nodes[node]["status"]["addresses"]
            if each["type"] == "InternalIP"
        ]

        flags = DUMPS / folder / "FLAGS.txt"
        version = re.search(
            r"kube-proxy-(\d+)\.(\d+)", flags.read_text() if flags.is_file() else ""
        )
        # before ServiceTrafficDistribution was on by default, hints counted by annotation only
        self.obeys_hints = version is None or tuple(map(int, version.groups())) >= (1, 31)

    def proxied(self) -> Iterator[tuple[str, Json]]:
        for service in self.services:
            labels = service["metadata"].get("labels") or {}
            spec = service["spec"]
            served = spec["type"] != "ExternalName" and spec.get("clusterIP") != "None"
            if served and "service.kubernetes.io/service-proxy-name" not in labels:
                yield key_of(service), service

    def ends(self, service: Json, port: Json, version: int) -> list[Json]:
        """The endpoints of one port and family, each with the number of its own slice."""
        found = []
        for each in self.slices:
            labels = each["metadata"].get("labels") or {}
            mine = labels.get("kubernetes.io/service-name") == service["metadata"]["name"]
            same = each["metadata"]["namespace"] == service["metadata"]["namespace"]
            if not (mine and same and each["addressType"] == f"IPv{version}"):
                continue
            for numbered in each["ports"] or []:
                if (numbered.get("name") or "") == port.get("name", ""):
                    found += [
                        {**end, "number": numbered["port"]} for end in each["endpoints"] or []
                    ]
        return found

    def hinted(self, service: Json) -> bool:
        ends = [
            end
            for port in service["spec"].get("ports", [])
            for version in (4, 6)
            for end in self.ends(service, port, version)
        ]
        return any(end.get("hints") for end in ends)

    def cluster(self, ends: list[Json]) -> Ends:
        return usable(ends)

    def local(self, ends: list[Json]) -> Ends:
        return usable([end for end in ends if end.get("nodeName") == self.node])


def usable(ends: list[Json]) -> Ends:
    """The ready ones, else those that serve while they terminate (KEP-1669)."""
    ready = [end for end in ends if end["conditions"].get("ready") is not False]
    ending = [
        end
        for end in ends
        if end["conditions"].get("serving") is not False and end["conditions"].get("terminating")
    ]
    return frozenset((end["addresses"][0], end["number"]) for end in ready or ending)


def key_of(service: Json) -> str:
    return f"{service['metadata']['namespace']}/{service['metadata']['name']}"


class Wanted(NamedTuple):
    """What one way in must lead to."""

    ends: Ends
    outcomes: set[Outcome]


def wanted(
    service: Json,
    internal: Ends,
    external: Ends,
    cluster: Ends,
    entry: ServiceEntrypoint,
    proxy: str,
) -> Wanted:
    if entry.kind == "clusterIP":
        return settled(internal, bool(cluster), entry, proxy)
    ranges = [
        ip_network(text.strip()) for text in service["spec"].get("loadBalancerSourceRanges") or []
    ]
    if entry.kind == "loadBalancer" and ranges:
        source = ip_address(entry.source)
        inside = any(source in each for each in ranges if each.version == source.version)
        if not inside and entry.source != entry.address:  # its own address is let in too
            return Wanted(frozenset(), {Outcome.DROPPED})
    if proxy == "ipvs":  # one virtual server for all senders
        if external or entry.sender != "outside":
            return settled(external or cluster, bool(cluster), entry, proxy)
        # the answers of other nodes' pods do not come back through this one (traffic.txt: 28)
        return Wanted(cluster, {Outcome.DROPPED} if cluster else {Outcome.NO_ENDPOINTS})
    # kube-proxy takes the cluster's own senders round externalTrafficPolicy: Local
    ends = external if entry.sender == "outside" else cluster
    return settled(ends, bool(cluster), entry, proxy)


def settled(ends: Ends, somewhere: bool, entry: ServiceEntrypoint, proxy: str) -> Wanted:
    """``somewhere``: there are usable endpoints, maybe not for this way in."""
    if ends:
        return Wanted(ends, {Outcome.DELIVERED})
    if somewhere:  # IPVS refuses where the others drop
        return Wanted(ends, {Outcome.NO_ENDPOINTS if proxy == "ipvs" else Outcome.DROPPED})
    unguarded = entry.sender == "node" and (proxy, entry.kind) in UNGUARDED
    return Wanted(ends, {Outcome.NOT_PROGRAMMED if unguarded else Outcome.NO_ENDPOINTS})


# --- backends and weights -----------------------------------------------------------------------


@every_place
def test_backends_and_weights_are_the_apis_truth(folder: str, node: str) -> None:
    truth = Truth(folder, node)
    wrong: list[str] = []
    compared = 0
    for key, service in truth.proxied():
        explanation = asked(folder, node, key)
        for port, told in zip(service["spec"]["ports"], explanation.ports, strict=True):
            assert (told.port, told.protocol) == (port["port"], port["protocol"].lower())
            for entry in told.entries:
                if folder in MID_SYNC and ":" in entry.address:
                    continue
                ends = lists(truth, folder, service, port, entry)
                wrong += disagreements(
                    f"{key}:{port['port']}", wanted(service, *ends, entry, explanation.proxy), entry
                )
                compared += 1
    assert wrong == []
    assert compared > 3 * len(truth.services)


def lists(
    truth: Truth, folder: str, service: Json, port: Json, entry: ServiceEntrypoint
) -> tuple[Ends, Ends, Ends]:
    """(internal, external, cluster)"""
    version = ip_address(entry.address).version
    ends = truth.ends(service, port, version)
    cluster, local = truth.cluster(ends), truth.local(ends)
    if truth.hinted(service) and truth.obeys_hints:
        made = by_kube_proxys_rules(truth, folder, service, port, version)
        cluster = frozenset((one.address, one.port) for one in made.cluster)
    spec = service["spec"]
    internal = local if spec.get("internalTrafficPolicy") == "Local" else cluster
    external = local if spec.get("externalTrafficPolicy") == "Local" else cluster
    return internal, external, cluster


def by_kube_proxys_rules(truth: Truth, folder: str, service: Json, port: Json, version: int) -> Any:
    documents, _, _ = state(folder, truth.node)
    read = documents.service(key_of(service))
    node = documents.node(truth.node)
    assert read is not None
    assert node is not None
    number = service["spec"]["ports"].index(port)
    return expected_endpoints(
        read,
        read.ports[number],
        documents.endpoints.get(read.key, ()),
        node=truth.node,
        zone=node.zone,
        family="ip" if version == 4 else "ip6",
    )


def disagreements(what: str, want: Wanted, entry: ServiceEntrypoint) -> Iterator[str]:
    where = f"{what} {entry.kind} {entry.address} from {entry.sender} {entry.source}"
    given = {(one.address, one.port): one.weight for one in entry.backends}
    if entry.outcome not in want.outcomes:
        yield f"{where}: {entry.outcome} ({entry.description}), not {want.outcomes}"
    if set(given) != want.ends:
        yield f"{where}: {sorted(given)}, not {sorted(want.ends)}"
    right = 1 / max(len(want.ends), 1)
    if any(abs(weight - right) > 1e-6 * right for weight in given.values()):
        yield f"{where}: weights {given}"
    if not entry.deterministic:
        yield f"{where}: not certain ({entry.description})"


@every_place
def test_no_way_in_is_left_out(folder: str, node: str) -> None:
    truth = Truth(folder, node)
    documents, _, _ = state(folder, node)
    for key, service in truth.proxied():
        spec = service["spec"]
        families = {ip_address(text).version for text in spec["clusterIPs"]}
        ingress = (service["status"].get("loadBalancer") or {}).get("ingress") or []
        balancers = [one["ip"] for one in ingress if one.get("ipMode") != "Proxy"]
        for port, told in zip(spec["ports"], asked(folder, node, key).ports, strict=True):
            fixed = {
                "clusterIP": spec["clusterIPs"],
                "externalIP": spec.get("externalIPs") or [],
                "loadBalancer": balancers,
                "nodePort": truth.addresses if port.get("nodePort") else [],
            }
            expected = {
                (kind, address, port["nodePort"] if kind == "nodePort" else port["port"], sender)
                for kind, addresses in fixed.items()
                for address in addresses
                for sender in ("pod", "node", "outside")
                if ip_address(address).version in families
            }
            given = {(one.kind, one.address, one.port, one.sender) for one in told.entries}
            assert given == expected, key
    assert not documents.missing


@every_place
def test_no_fault_is_found_where_there_is_none(folder: str, node: str) -> None:
    """What hints, policies and conditions leave out is told as right."""
    found = [
        finding
        for service in Truth(folder, node).services
        for finding in asked(folder, node, key_of(service)).findings
        if finding.severity != "info"
        if folder not in MID_SYNC or "[" not in finding.object
    ]
    assert found == []


@every_place
def test_programmed_agrees_with_the_apis_json(folder: str, node: str) -> None:
    """So that the expectation for hints, which comes from it, stands on something."""
    truth = Truth(folder, node)
    documents, _, _ = state(folder, node)
    compared = 0
    for key, service in truth.proxied():
        if truth.hinted(service):
            continue
        read = documents.service(key)
        assert read is not None
        for number, port in enumerate(service["spec"]["ports"]):
            for family, version in FAMILIES.items():
                ends = truth.ends(service, port, version)
                made = by_kube_proxys_rules(truth, folder, service, port, version)
                known = endpoints_of(documents.endpoints.get(key, ()), read.ports[number], family)
                assert {(one.address, one.port) for one in known} == {
                    (end["addresses"][0], end["number"]) for end in ends
                }
                if made.uses_cluster:
                    assert {(one.address, one.port) for one in made.cluster} == truth.cluster(ends)
                if made.uses_local:
                    assert {(one.address, one.port) for one in made.local} == truth.local(ends)
                compared += 1
    assert compared > 60


# --- traffic.txt --------------------------------------------------------------------------------

# the connections of node-a in the one order in which every folder's script made them
CLIENT = SourceSpec(kind="pod", text="pod/client-a", name="client-a", namespace="default")
WEB_1 = SourceSpec(kind="pod", text="pod/web-1", name="web-1", namespace="default")
NODE_A = SourceSpec(kind="node", text="node/node-a", name="node-a")
BESIDE = SourceSpec(kind="outside", text="172.30.0.1", address="172.30.0.1")

QUESTIONS = (
    (re.compile(r"client-a -> (?P<address>\S+)"), CLIENT, ""),
    (re.compile(r"hairpin web-1 -> (?P<key>\S+)"), WEB_1, ""),
    (re.compile(r"node-a -> (?P<name>\S+)"), NODE_A, ""),
    (re.compile(r"cp -> node-a:(?P<node_port>\d+).*"), BESIDE, ""),
    (re.compile(r"client-a udp dns"), CLIENT, "kube-system/kube-dns"),
    (re.compile(r"client-a v6"), CLIENT, "default/v6only"),
    (re.compile(r""), CLIENT, "default/web"),
)
ANSWER = re.compile(r"(?P<name>\S+) peer=(?P<peer>\S+):\d+ local=(?P<local>\S+):(?P<port>\d+)")
DNS = re.compile(r"[ab]-(?P<pod>\S+) (?P<peer>\S+):\d+ q")
EXIT = re.compile(r"exit=(\d+)")
REFUSED_CODE, TIMED_OUT = "7", "28"

# In one folder three connections in a row got no answer for 6 s, in the other kube-proxy was still
# at its first sync (not masquerading yet): so the notes of those who took them.
ARTEFACTS = {
    ("v1.30-nftables-default", "client-a -> 10.96.1.17"),
    ("ipvs-rr-default", "node-a -> web"),
}


class Line(NamedTuple):
    """One connection: what was asked, who answered whom, how curl ended."""

    asked: str
    peer: str
    local: str
    port: int
    pod: str
    code: str


def lines(text: str) -> Iterator[Line]:
    """An answer without a newline is followed by curl's own line (`` rc=200 exit=0``)."""
    for line in text.splitlines():
        if line.startswith(" rc="):
            continue
        question, _, rest = line.partition(": ") if ": " in line else ("", "", line)
        found, dns, code = ANSWER.search(rest), DNS.search(rest), EXIT.search(rest)
        yield Line(
            asked=question,
            peer=found["peer"] if found else dns["peer"] if dns else "",
            local=found["local"] if found else "",
            port=int(found["port"]) if found else 0,
            pod=dns["pod"] if dns else "",
            code=code[1] if code else "",
        )


def question(truth: Truth, asked: str) -> tuple[Json, SourceSpec, int]:
    """(Service, sender, node port or 0)"""
    for pattern, source, key in QUESTIONS:
        found = pattern.fullmatch(asked)
        if found is None:
            continue
        told = found.groupdict()
        number = int(told.get("node_port") or 0)
        for service in truth.services:
            spec = service["spec"]
            ports = [port.get("nodePort") for port in spec.get("ports", [])]
            if (
                key_of(service) in (key, told.get("key"), f"default/{told.get('name')}")
                or told.get("address") in (spec.get("clusterIPs") or [])
                or (number and number in ports)
            ):
                return service, source, number
    raise AssertionError(f"nobody knows what {asked!r} asked for")


TRAFFIC = [
    pytest.param(name, id=name)
    for name, node in places()
    if node == "node-a" and (DUMPS / name / "traffic.txt").is_file()
]


@pytest.mark.parametrize("folder", TRAFFIC or [""])
def test_real_connections_did_what_is_explained(folder: str) -> None:
    truth = Truth(folder, "node-a")
    wrong: list[str] = []
    compared = 0
    for line in lines((DUMPS / folder / "traffic.txt").read_text()):
        if (folder, line.asked) in ARTEFACTS or not (line.peer or line.code):
            continue  # an empty line: nothing was told
        service, source, number = question(truth, line.asked)
        entry = the_entry(asked(folder, "node-a", key_of(service), source), line, number)
        wrong += [f"{line}: {each}" for each in contradictions(line, entry)]
        compared += 1
    assert wrong == []
    assert compared > 12


def the_entry(explanation: Explanation, line: Line, node_port: int) -> ServiceEntrypoint:
    protocol = "udp" if line.pod else "tcp"
    kind = "nodePort" if node_port else "clusterIP"
    found = [
        entry
        for port in explanation.ports
        if port.protocol == protocol
        for entry in port.entries
        if entry.kind == kind and entry.port == (node_port or port.port)
    ]
    return found[0]


def contradictions(line: Line, entry: ServiceEntrypoint) -> Iterator[str]:
    if not line.peer:
        outcomes = {REFUSED_CODE: REFUSED, TIMED_OUT: {Outcome.DROPPED}}[line.code]
        if entry.outcome not in outcomes:
            yield f"explained as {entry.outcome}"
        return
    if entry.outcome is not Outcome.DELIVERED:
        yield f"explained as {entry.outcome} ({entry.description})"
    ends = {(one.address, one.port) for one in entry.backends}
    pods = {one.pod.rpartition("/")[2] for one in entry.backends}
    if line.pod not in pods if line.pod else (line.local, line.port) not in ends:
        yield f"the backends are {sorted(ends)}"
    if line.peer not in (entry.snat_source or entry.source).split(", "):
        yield f"the backend should see {entry.snat_source or entry.source}"
