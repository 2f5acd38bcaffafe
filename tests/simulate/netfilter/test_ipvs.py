"""IPVS walked: real kube-proxies' nodes against the API's truth and real traffic, and by hand.

The truth about endpoints comes from the API's documents by kube-proxy's own choice; what real
connections did stands in ``traffic.txt`` of each dump. Where kube-proxy's rules would drop (policy
Local without a local endpoint) IPVS refuses: there is a service without servers.
"""

from __future__ import annotations

import gzip
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from kptrace.kube.objects.cluster_state import ClusterState, read_folder
from kptrace.model import Endpoint, Flow, Netns, Outcome, Packet, Prediction, Service, ServicePort
from kptrace.model.family import Family
from kptrace.rules.ipvs.ipvsadm import PersistentClient, RealServer, VirtualService
from kptrace.rules.kubeproxy.expected_endpoints import (
    ExpectedEndpoints,
    expected_endpoints,
    in_family,
    why_not_programmed,
)
from kptrace.simulate.netfilter.ipvs import choice_description
from kptrace.simulate.predict import predict
from kptrace.simulate.snapshot.snapshot import Snapshot, read_snapshot
from kptrace.simulate.topology import Topology

CLIENT = {"ip": "10.244.1.99", "ip6": "fd00:10:244:1::99"}
OUTSIDE = {"ip": "172.30.0.1", "ip6": "fd00:30::1"}
NODE_A = Netns(node="node-a")
POD = Netns(node="node-a", pod="x")


def files(folder: Path) -> dict[str, str]:
    return {
        path.name.removesuffix(".gz"): gzip.decompress(path.read_bytes()).decode()
        if path.suffix == ".gz"
        else path.read_text()
        for path in folder.iterdir()
    }


class Dump:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        # the IPv6 tables of this one were taken while kube-proxy was still at work
        mid_sync = folder.name == "ipvs-rr-default"
        self.families: tuple[Family, ...] = ("ip",) if mid_sync else ("ip", "ip6")
        api = folder / "api"
        self.documents: ClusterState = read_folder(
            api if api.is_dir() else folder / api.read_text().strip()
        )
        self.snapshots: dict[Netns, Snapshot] = {}
        for name in ("node-a", "node-b"):
            if (folder / name).is_dir():
                place = Netns(node=name)
                self.snapshots[place] = read_snapshot(place, files(folder / name))
        self.services = [s for s in self.documents.services if not why_not_programmed(s)]
        self.world = Topology(
            snapshots=self.snapshots,
            endpoints=tuple(e for some in self.documents.endpoints.values() for e in some),
            services=frozenset(
                address
                for one in self.services
                for address in (*one.cluster_ips, *one.external_ips, *one.load_balancer_ips)
            ),
            node_ports=frozenset(p.node_port for s in self.services for p in s.ports),
        )

    def ask(
        self, dst: str, port: int, src: str, source: Netns | None = POD, protocol: str = "tcp"
    ) -> Prediction:
        flow = Flow(protocol=protocol, src=src, dst=dst, sport=41000, dport=port)
        return predict(Packet(flow=flow), source, self.world, (NODE_A, "eth0"))

    def ports(self) -> Iterator[tuple[Service, ServicePort, Family, ExpectedEndpoints]]:
        node = self.documents.node("node-a")
        assert node
        for service in self.services:
            known = self.documents.endpoints.get(service.key, ())
            for port in service.ports:
                for family in self.families:
                    if in_family(service.cluster_ips, family):
                        made = expected_endpoints(
                            service, port, known, node="node-a", zone=node.zone, family=family
                        )
                        yield service, port, family, made


@pytest.fixture(scope="module", params=["ipvs-rr-default", "ipvs-sh"])
def dump(request: pytest.FixtureRequest, dumps: Path) -> Dump:
    return Dump(dumps / request.param)


def check(found: Prediction, wanted: tuple[Endpoint, ...], what: str) -> None:
    if not wanted:
        assert [(b.outcome, b.cause) for b in found.branches] == [
            (Outcome.NO_ENDPOINTS, "no-endpoints")
        ], what
        return
    weights = {(b.backend.address, b.backend.port): b.weight for b in found.branches if b.backend}
    assert set(weights) == {(one.address, one.port) for one in wanted}, what
    assert weights == pytest.approx(dict.fromkeys(weights, 1 / len(wanted))), what
    for branch in found.branches:
        unseen = "was not looked at" in branch.description
        assert branch.outcome is Outcome.DELIVERED or unseen, (what, branch.description)


def test_cluster_ips_from_a_pod_and_from_the_node(dump: Dump) -> None:
    asked = 0
    for service, port, family, made in dump.ports():
        address = in_family(service.cluster_ips, family)[0]
        what = f"{service.key}:{port.port} {family}"
        wanted = made.internal(service)
        pod = dump.ask(address, port.port, CLIENT[family], POD, port.protocol)
        check(pod, wanted, what)
        check(dump.ask(address, port.port, "", NODE_A, port.protocol), wanted, what)
        asked += 1
    assert asked > 30


def test_node_ports_and_open_addresses_from_outside(dump: Dump) -> None:
    own = {"ip": "172.30.0.11", "ip6": "fd00:30::11"}
    asked = 0
    for service, port, family, made in dump.ports():
        wanted = made.external(service) or made.cluster  # for the node's own pods
        if port.node_port:
            found = dump.ask(own[family], port.node_port, OUTSIDE[family], None, port.protocol)
            if made.external(service):
                check(found, wanted, f"{service.key} node port {family}")
                asked += 1
        for address in in_family((*service.external_ips, *service.load_balancer_ips), family):
            found = dump.ask(address, port.port, OUTSIDE[family], None, port.protocol)
            check(found, wanted, f"{service.key} {address}")
    assert asked > 6


def test_the_server_is_chosen_in_words(dump: Dump) -> None:
    branch = dump.ask("10.96.1.1", 80, CLIENT["ip"]).branches[0]
    step = next(step for step in branch.steps if step.action == "dnat")
    assert step.hook == "input"
    assert step.rule
    assert (step.rule.backend, step.rule.chain) == ("ipvs", "10.96.1.1:80/tcp")
    how = "rr takes them in turn" if "rr" in dump.folder.name else "sh goes by a hash of the client"
    assert f"one of 3 servers: {how}" in step.description
    affine = dump.ask("10.96.1.3", 80, CLIENT["ip"]).branches[0]
    words = next(step.description for step in affine.steps if step.action == "dnat")
    assert "a client keeps its server for 3 h" in words


def test_the_path_is_input_then_output(dump: Dump) -> None:
    """The order that the kernel's rule trace showed for pod -> VIP -> remote pod."""
    for branch in dump.ask("10.96.1.9", 80, CLIENT["ip"]).branches:
        hooks = []
        for step in branch.steps:
            if step.action == "reply" or step.netns != NODE_A or step.packet.tunnel:
                break
            if step.hook and step.hook not in hooks[-1:]:
                hooks.append(step.hook)
        assert hooks[:2] == ["prerouting", "input"]
        assert "forward" not in hooks


def test_an_unknown_port_of_a_service_is_refused(dump: Dump) -> None:
    (branch,) = dump.ask("10.96.1.1", 81, CLIENT["ip"]).branches
    assert (branch.outcome, branch.cause) == (Outcome.NOT_PROGRAMMED, "proxy-rules-missing")
    assert "KUBE-IPVS-FILTER" in branch.object


ANSWER = re.compile(r"peer=(\S+):\d+ local=(\S+):\d+")
TRAFFIC = {
    "web": ("10.96.1.1", 80, CLIENT["ip"], POD),
    "hairpin web-1 -> prod/single": ("10.96.1.18", 80, "10.244.1.11", POD),
    "node-a -> web": ("10.96.1.1", 80, "", NODE_A),
    "cp -> node-a:30080": ("172.30.0.11", 30080, OUTSIDE["ip"], None),
    "cp -> node-a:30081 (eTP Local)": ("172.30.0.11", 30081, OUTSIDE["ip"], None),
}


def test_what_real_connections_did(dumps: Path) -> None:
    """Of the dump that was taken when kube-proxy was done: backend and the source that it saw."""
    dump = Dump(dumps / "ipvs-sh")
    text = (dump.folder / "traffic.txt").read_text().replace("\n rc=", " rc=")
    compared = refused = 0
    for line in text.splitlines():
        asked, _, rest = line.partition(": ") if ": " in line else ("web", "", line)
        client = re.fullmatch(r"client-a -> (\S+)", asked)
        case = (client.group(1), 80, CLIENT["ip"], POD) if client else TRAFFIC.get(asked)
        if case is None:
            continue
        found = dump.ask(*case)
        seen = ANSWER.search(rest)
        if seen:
            pairs = {(b.backend.address, source(b)) for b in found.branches if b.backend}
            peer, local = seen.groups()
            assert local in {backend for backend, _ in pairs}, line
            if local != "172.30.0.12":  # of which nothing was dumped
                assert (local, peer) in pairs, (line, pairs)
            compared += 1
        elif "exit=7" in rest:
            assert {b.outcome for b in found.branches} == {Outcome.NO_ENDPOINTS}, line
            refused += 1
    assert (compared, refused) == (16, 3)


def source(branch: object) -> str:
    """As the backend's node or the backend saw it: of the last step before the answer."""
    last = ""
    for step in branch.steps:  # type: ignore[attr-defined]
        if step.action == "reply":
            break
        last = step.packet.innermost.flow.src
    return last


# --- clients that are remembered, by hand ---------------------------------------------------------

IPVS = """\
-A -t 10.96.0.50:80 -s rr -p 300
-a -t 10.96.0.50:80 -r 10.244.1.31:8080 -m -w 1
-a -t 10.96.0.50:80 -r 10.244.2.21:8080 -m -w {weight}
"""
# 10.244.1.10 is bound to 10.244.2.21:8080
CONNECTIONS = """\
Pro FromIP   FPrt ToIP     TPrt DestIP   DPrt State       Expires PEName PEData
TCP 0AF4010A 0000 0A600032 0050 0AF40215 1F90 ASSURED         {seconds}
"""


def asked(weight: int = 1, seconds: int = 299, **sysctls: str) -> tuple[set[str], bool, str]:
    """Where its packets may go, whether that is certain, and how it is put."""
    text = IPVS.format(weight=weight)
    files = {
        "ipvsadm-Sn.txt": text,
        "ip_vs_conn.txt": CONNECTIONS.format(seconds=seconds),
        "ip-addr.json": """[{"ifindex": 2, "ifname": "kube-ipvs0", "flags": [], "addr_info":
            [{"family": "inet", "local": "10.96.0.50", "prefixlen": 32, "scope": "global"}]},
            {"ifindex": 3, "ifname": "lxc", "flags": ["UP"], "addr_info": []}]""",
        "ip-route.json": """[{"dst": "10.244.0.0/16", "dev": "lxc", "scope": "link"}]""",
        "sysctl.txt": "".join(
            f"{name} = {value}\n"
            for name, value in {"net.ipv4.ip_forward": "1", "net.ipv4.vs.conntrack": "1"}.items()
        )
        + "".join(f"net.ipv4.vs.{name} = {value}\n" for name, value in sysctls.items()),
    }
    snapshot = read_snapshot(NODE_A, files)
    flow = Flow(protocol="tcp", src="10.244.1.10", dst="10.96.0.50", sport=41000, dport=80)
    found = predict(
        Packet(flow=flow), None, Topology(snapshots={NODE_A: snapshot}), (NODE_A, "lxc")
    ).branches
    steps = [step for one in found for step in one.steps if step.action == "dnat"]
    where = {step.packet.flow.dst for step in steps}
    return where, all(step.deterministic for step in steps), steps[0].description


def test_a_client_that_was_there_before_has_its_server() -> None:
    where, certain, words = asked()
    assert (where, certain) == ({"10.244.2.21"}, True)
    assert words == (
        "an earlier connection of this client binds it to 10.244.2.21:8080 for 299 s more"
    )


def test_one_that_ends_soon_may_be_gone_by_then() -> None:
    assert asked(seconds=3)[:2] == ({"10.244.2.21"}, False)


def test_a_server_of_weight_0_keeps_its_clients_unless_that_is_forbidden() -> None:
    assert asked(0, expire_quiescent_template="0")[:2] == ({"10.244.2.21"}, True)
    assert asked(0, expire_quiescent_template="1")[:2] == ({"10.244.1.31"}, True)
    assert not asked(0)[1], "nobody told which"


def test_why_a_server_was_taken() -> None:
    servers = tuple(RealServer(address=f"10.0.0.{n}", port=80) for n in (1, 2))
    bound = (PersistentClient(client="10.1.1.1", address="10.0.0.2", port=80, seconds=60),)
    service = VirtualService(
        protocol="tcp",
        address="10.96.0.1",
        port=80,
        scheduler="rr",
        servers=servers,
        persistent=300,
        persistent_clients=bound,
    )
    words = "taken, as an earlier connection of this client binds it to 10.0.0.2:80 for 60 s more"
    assert words in choice_description(service, 2, "conntrack", "10.1.1.1")
    # it had run out meanwhile, or another client asks
    assert words not in choice_description(service, 1, "conntrack", "10.1.1.1")
    assert words not in choice_description(service, 2, "conntrack", "10.1.1.2")
