"""Every kind of Service through the real kube-proxy: what a trace says is what a connection met.

kptrace sends from a pod or a node, not from outside the cluster: how the rules treat a stranger is
tried from the other node, whose packets come in over the same wire. That a node's packets to a
local policy's port are not from outside is so on that node alone.
"""

from __future__ import annotations

import json

import pytest
from cluster.cli import Cli, until
from cluster.ground.cluster import Cluster
from cluster.ground.connection import Answer, from_node, from_pod
from cluster.kinds import NODE_A, NODE_B, OTHER, SAME

DUAL4, DUAL6, BALANCED = "DUAL4", "DUAL6", "203.0.113.12"
BALANCER = "remote-balanced"
PORT_OF_A = ("--via", "nodePort", "--node", "node-a")
PORT_OF_B = ("--via", "nodePort", "--node", "node-b")
EXTERNAL = ("--via", "externalIP")
# what a program meets, and what the report calls it
OUTCOMES = {"answered": "delivered", "timed out": "dropped", "refused": "no-endpoints"}

# the same thing asked of a program and of kptrace
ASKED = [
    ("http://remote", "remote", ()),
    ("http://remote-headless:8080", "remote-headless", ()),
    ("http://remote-sticky", "remote-sticky", ()),
    (f"http://{NODE_A}:30082", "remote-nodeport", PORT_OF_A),
    (f"http://{NODE_B}:30083", "remote-nodeport-local", PORT_OF_B),
    ("http://203.0.113.11", "remote-external", EXTERNAL),
    (f"http://{BALANCED}", BALANCER, ("--via", "loadBalancer")),
    ("http://remote6", "remote6", ("-6",)),
    (f"http://{DUAL4}", "remote-dual", ("-4",)),
    (f"http://{DUAL6}", "remote-dual", ("-6",)),
    ("udp://remote-echo:7", "remote-echo", ()),
    (f"udp://{NODE_A}:30084", "remote-echo-nodeport", PORT_OF_A),
    (f"udp://{NODE_B}:30084", "remote-echo-nodeport", PORT_OF_B),
    ("http://remote-local", "remote-local", ()),
    ("http://empty", "empty", ()),
]
BY_NODES = [
    ("node-a", f"http://{DUAL4}", "remote-dual", ("-4",)),
    ("node-a", f"http://{DUAL6}", "remote-dual", ("-6",)),
    ("node-a", f"http://{NODE_B}:30082", "remote-nodeport", PORT_OF_B),
    ("node-b", f"http://{NODE_A}:30082", "remote-nodeport", PORT_OF_A),
    ("node-a", f"udp://{NODE_B}:30084", "remote-echo-nodeport", PORT_OF_B),
    ("node-b", f"udp://{NODE_A}:30084", "remote-echo-nodeport", PORT_OF_A),
    ("node-a", f"http://{NODE_B}:30083", "remote-nodeport-local", PORT_OF_B),
    ("node-b", f"http://{NODE_A}:30083", "remote-nodeport-local", PORT_OF_A),
    ("node-a", "http://203.0.113.11", "remote-external", EXTERNAL),
    ("node-a", f"http://{BALANCED}", BALANCER, ("--via", "loadBalancer")),
]


@pytest.fixture(scope="module", autouse=True)
def balanced(cluster: Cluster, as_begun: None) -> None:
    """What a cloud's controller does once its balancer stands."""
    status = {"status": {"loadBalancer": {"ingress": [{"ip": BALANCED}]}}}
    patch = ("-n", "shop", "--subresource=status", "-p", json.dumps(status))
    cluster.kubectl("patch", "service", BALANCER, *patch)
    for pod in (OTHER, SAME):
        until(
            lambda pod=pod: from_pod(cluster, pod, f"http://{BALANCED}").outcome == "answered",
            f"kube-proxy to know {BALANCED}",
        )


@pytest.mark.parametrize("source", [SAME, OTHER])
@pytest.mark.parametrize(("url", "name", "args"), ASKED, ids=[one[0] for one in ASKED])
def test_a_trace_says_what_a_connection_meets(
    proxied: Cluster, url: str, name: str, args: tuple[str, ...], source: str
) -> None:
    met = from_pod(proxied, source, addressed(proxied, url))
    compare(proxied, met, f"svc/{name}", "-n", "shop", "--from", f"pod/{source}", *args)


@pytest.mark.parametrize(
    ("node", "url", "name", "args"), BY_NODES, ids=[f"{one[0]}-{one[1]}" for one in BY_NODES]
)
def test_a_trace_from_a_node_says_what_a_connection_meets(
    proxied: Cluster, node: str, url: str, name: str, args: tuple[str, ...]
) -> None:
    met = from_node(proxied, node, addressed(proxied, url))
    compare(proxied, met, f"svc/{name}", "-n", "shop", "--from", f"node/{node}", *args)


def addressed(cluster: Cluster, url: str) -> str:
    """With the addresses that this cluster has."""
    first, second = cluster.plan.nodes
    known = {NODE_A: first.addresses[0], NODE_B: second.addresses[0]}
    if DUAL4 in url or DUAL6 in url:
        spec = cluster.kubectl.json("get", "service", "remote-dual", "-n", "shop")["spec"]
        known |= {DUAL4: spec["clusterIPs"][0], DUAL6: f"[{spec['clusterIPs'][1]}]"}
    for name, address in known.items():
        url = url.replace(name, address)
    return url


def compare(cluster: Cluster, met: Answer, *asked: str) -> None:
    told = Cli(cluster)(*asked, "-o", "json")
    assert told.code in (0, 1), told.err
    trace = told.trace
    assert trace["outcome"] == OUTCOMES[met.outcome]
    if met.outcome == "answered":
        assert trace["hops"][-1]["node"] == trace["source"]["netns"]["node"]  # the answer came back
        assert {hop["node"] for hop in trace["hops"]} >= {met.node}


def test_no_evidence_is_missing(proxied: Cluster) -> None:
    """Also of rules of the legacy tables, for which a sysctl of the node is changed for a while."""
    machines = [node.machine for node in proxied.nodes.values()]
    loggers = [one.run("cat", "/proc/sys/net/netfilter/nf_log/2") for one in machines]
    told = Cli(proxied)("svc/remote", "-n", "shop", "--from", "pod/client")
    assert told.code == 0, told.err
    assert "Data sources: capture, rule trace, drop reasons, conntrack. No events lost." in told.out
    assert "Not available" not in told.out
    assert [one.run("cat", "/proc/sys/net/netfilter/nf_log/2") for one in machines] == loggers


@pytest.mark.parametrize("name", ["remote", "remote-dual", "remote6"])
def test_each_cluster_ip_leads_to_its_service(cluster: Cluster, name: str) -> None:
    """Also the second one, which no field selector knows."""
    spec = cluster.kubectl.json("get", "svc", name, "-n", "shop")["spec"]
    for address in spec["clusterIPs"]:
        told = Cli(cluster)(address, "-n", "shop", "--from", f"pod/{OTHER}", "-o", "json")
        assert told.code == 0, told.err
        assert told.trace["resolution"]["service"]["name"] == name
        assert {hop["node"] for hop in told.trace["hops"]} == {"node-a", "node-b"}
