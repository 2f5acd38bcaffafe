"""Real kube-proxies' rules walked: backends are the API's truth, outcomes the real traffic's.

The truth about endpoints comes from the API's documents by kube-proxy's own choice (policies,
hints, terminating ones); ``traffic.txt`` holds what real connections through these rules did.
"""

from __future__ import annotations

import gzip
import re
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from kptrace.kube.objects.cluster_state import ClusterState, read_folder
from kptrace.model import Endpoint, Flow, Netns, Outcome, Packet, Prediction, Service, ServicePort
from kptrace.model.family import Family
from kptrace.rules.kubeproxy.expected_endpoints import (
    ExpectedEndpoints,
    expected_endpoints,
    in_family,
    why_not_programmed,
)
from kptrace.simulate.predict import predict
from kptrace.simulate.snapshot.snapshot import Snapshot, read_snapshot
from kptrace.simulate.topology import Topology

FOLDERS = (
    "iptables-nft-default",
    "iptables-legacy-default",
    "nftables-default",
    "v1.30-iptables-legacy-default",
    "v1.30-nftables-default",
)
# a client pod on node-a, and a machine beside the nodes
CLIENT = {"ip": "10.244.1.99", "ip6": "fd00:10:244:1::99"}
OUTSIDE = {"ip": "172.30.0.1", "ip6": "fd00:30::1"}
NODE_A = Netns(node="node-a")


def files(folder: Path) -> dict[str, str]:
    found = {}
    for path in folder.iterdir():
        if path.suffix == ".gz":
            found[path.stem] = gzip.decompress(path.read_bytes()).decode()
        else:
            found[path.name] = path.read_text()
    return found


class Dump:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        api = folder / "api"
        # a link to another folder, or a file that holds its name
        target = api if api.is_dir() else folder / api.read_text().strip()
        self.documents: ClusterState = read_folder(target)
        snapshots: dict[Netns, Snapshot] = {}
        for name in ("node-a", "node-b"):
            if (folder / name).is_dir():
                place = Netns(node=name)
                snapshots[place] = read_snapshot(place, files(folder / name))
        told = {one for some in self.documents.endpoints.values() for one in some}
        self.world = Topology(
            snapshots=snapshots,
            endpoints=tuple(sorted(told, key=lambda one: (one.address, one.port))),
            services=frozenset(
                address
                for service in self.documents.services
                for address in (
                    *service.cluster_ips,
                    *service.external_ips,
                    *service.load_balancer_ips,
                )
            ),
        )

    def ask(self, dst: str, port: int, protocol: str, source: Netns | None, src: str) -> Prediction:
        flow = Flow(protocol=protocol, src=src, dst=dst, sport=41000, dport=port)
        return predict(Packet(flow=flow), source, self.world, (NODE_A, "eth0"))

    def ports(self) -> Iterator[tuple[Service, ServicePort, Family, ExpectedEndpoints]]:
        node = self.documents.node("node-a")
        for service in self.documents.services:
            if why_not_programmed(service):
                continue
            for port in service.ports:
                for family in ("ip", "ip6"):
                    if in_family(service.cluster_ips, family):
                        made = expected_endpoints(
                            service,
                            port,
                            self.known(service),
                            node="node-a",
                            zone=node.zone if node else "",
                            family=family,
                        )
                        yield service, port, family, made

    def known(self, service: Service) -> tuple[Endpoint, ...]:
        """kube-proxy 1.30 obeys hints only where the Service has the topology-mode annotation,
        which none here has; trafficDistribution came later.
        """
        endpoints = self.documents.endpoints.get(service.key, ())
        if self.folder.name.startswith("v1.30"):
            return tuple(msgspec.structs.replace(one, nodes=(), zones=()) for one in endpoints)
        return endpoints


@pytest.fixture(scope="module", params=FOLDERS)
def dump(request: pytest.FixtureRequest, dumps: Path) -> Dump:
    return Dump(dumps / request.param)


def check(
    found: Prediction, wanted: tuple[Endpoint, ...], made: ExpectedEndpoints, what: str
) -> None:
    """The backends with equal weights, or the right refusal."""
    if not wanted:
        expected = Outcome.DROPPED if made.any_endpoints else Outcome.NO_ENDPOINTS
        cause = "no-local-endpoints" if made.any_endpoints else "no-endpoints"
        assert [(b.outcome, b.cause) for b in found.branches] == [(expected, cause)], what
        return
    weights = {(b.backend.address, b.backend.port): b.weight for b in found.branches if b.backend}
    assert set(weights) == {(one.address, one.port) for one in wanted}, what
    assert weights == pytest.approx(dict.fromkeys(weights, 1 / len(wanted))), what
    for branch in found.branches:
        assert branch.outcome is Outcome.DELIVERED or unseen(branch.description), (
            what,
            branch.description,
        )


def unseen(words: str) -> bool:
    """Backends outside the cluster, and node-b where only node-a was dumped."""
    return "was not looked at" in words


def affine(service: Service, found: Prediction) -> bool:
    """An affinity set in the dump may hold the client already: then one backend is certain."""
    return bool(service.affinity_seconds) and len(found.branches) == 1


def test_cluster_ips_from_a_pod(dump: Dump) -> None:
    asked = 0
    for service, port, family, made in dump.ports():
        address = in_family(service.cluster_ips, family)[0]
        found = dump.ask(
            address, port.port, port.protocol, Netns(node="node-a", pod="x"), CLIENT[family]
        )
        if affine(service, found):
            continue
        check(found, made.internal(service), made, f"{service.key}:{port.port} {family}")
        asked += 1
    assert asked > 30


def test_cluster_ips_from_the_node(dump: Dump) -> None:
    for service, port, family, made in dump.ports():
        address = in_family(service.cluster_ips, family)[0]
        found = dump.ask(address, port.port, port.protocol, NODE_A, "")
        if not affine(service, found):
            check(found, made.internal(service), made, f"{service.key}:{port.port} {family}")


def test_node_ports_from_outside_and_from_a_pod(dump: Dump) -> None:
    asked = 0
    own = {"ip": "172.30.0.11", "ip6": "fd00:30::11"}
    for service, port, family, made in dump.ports():
        if not port.node_port:
            continue
        what = f"{service.key} node port {port.node_port} {family}"
        outside = dump.ask(own[family], port.node_port, port.protocol, None, OUTSIDE[family])
        if not affine(service, outside):
            check(outside, made.external(service), made, what)
        pod = Netns(node="node-a", pod="x")
        inside = dump.ask(own[family], port.node_port, port.protocol, pod, CLIENT[family])
        if not affine(service, inside):  # a pod's own traffic takes any endpoint, whatever policy
            check(inside, made.cluster, made, what)
        asked += 1
    assert asked > 8


def test_external_and_load_balancer_addresses_from_outside(dump: Dump) -> None:
    for service, port, family, made in dump.ports():
        open_addresses = (*service.external_ips, *service.load_balancer_ips)
        for address in in_family(open_addresses, family):
            found = dump.ask(address, port.port, port.protocol, None, OUTSIDE[family])
            if not affine(service, found):
                check(found, made.external(service), made, f"{service.key} {address}")


# --- traffic.txt ------------------------------------------------------------------------------


def answers(text: str) -> Iterator[tuple[str, str, str, str]]:
    """(what was asked, the peer that the backend saw, the backend, how curl ended)."""
    for asked, rest in re.findall(r"^(?:(\S.*?): )?(\S*(?: .*)?(?:\n .*)?)$", text, re.MULTILINE):
        seen = re.search(r"peer=(\S+):\d+ local=(\S+):\d+", rest)
        code = re.search(r"exit=(\d+)", rest)
        peer, local = seen.groups() if seen else ("", "")
        yield asked or "web", peer, local, code.group(1) if code and not seen else "0"


CASES = {
    "web": ("10.96.1.1", 80, "pod"),
    "hairpin web-1 -> prod/single": ("10.96.1.18", 80, "web-1"),
    "node-a -> web": ("10.96.1.1", 80, "node"),
    "cp -> node-a:30080": ("172.30.0.11", 30080, "outside"),
    "cp -> node-a:30081 (eTP Local)": ("172.30.0.11", 30081, "outside"),
    "cp -> node-a:30082 (eTP Local no local ep)": ("172.30.0.11", 30082, "outside"),
    "client-a v6": ("fd00:10:96::1", 80, "pod"),
}
# the one run that was made went wrong here: the same rules in a kernel refuse it at once
ARTEFACTS = {("v1.30-nftables-default", "client-a -> 10.96.1.17")}
REFUSED = (Outcome.NO_ENDPOINTS, Outcome.REJECTED)


def test_what_real_connections_did(dump: Dump) -> None:
    """Each answer that was seen is among the predicted, with the source that it was seen from."""
    compared = 0
    for asked, peer, local, code in answers((dump.folder / "traffic.txt").read_text()):
        if (dump.folder.name, asked) in ARTEFACTS:
            continue
        found = question(dump, asked, ":" in peer)
        if found is None or (not peer and code == "0"):
            continue
        compared += 1
        if peer:
            assert (local, peer) in delivered(found), asked
        else:
            outcomes = {branch.outcome for branch in found.branches}
            assert outcomes <= ({Outcome.DROPPED} if code == "28" else set(REFUSED)), asked
    assert compared >= 12


def question(dump: Dump, asked: str, v6: bool) -> Prediction | None:
    client = re.match(r"client-a -> (\S+)$", asked)
    address, port, source = (
        (client.group(1), 80, "pod") if client else CASES.get(asked, ("", 0, ""))
    )
    if asked == "client-a v6":
        service = dump.documents.service("default/dual")
        assert service is not None
        address = in_family(service.cluster_ips, "ip6")[0]
    if not address:
        return None
    pod = Netns(node="node-a", pod="x")
    match source:
        case "pod":
            return dump.ask(address, port, "tcp", pod, CLIENT["ip6" if v6 else "ip"])
        case "web-1":
            return dump.ask(address, port, "tcp", pod, "10.244.1.11")
        case "node":
            return dump.ask(address, port, "tcp", NODE_A, "")
        case _:
            return dump.ask(address, port, "tcp", None, OUTSIDE["ip"])


def delivered(found: Prediction) -> set[tuple[str, str]]:
    """(backend, source as the backend sees it) of each branch, as far as it was looked at."""
    pairs = set()
    for branch in found.branches:
        forward = []
        for step in branch.steps:
            if step.action == "reply":
                break
            forward.append(step)
        flow = forward[-1].packet.innermost.flow
        pairs.add((flow.dst, flow.src))
    return pairs
