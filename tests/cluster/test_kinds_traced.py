"""Every kind of Service through the real kube-proxy: what a trace says is what a connection met."""

from __future__ import annotations

import pytest
from cluster.cli import Cli
from cluster.ground.cluster import Cluster
from cluster.ground.connection import from_pod
from cluster.kinds import NODE_A, NODE_B, OTHER, SAME

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
    ("http://remote6", "remote6", ("-6",)),
    ("udp://remote-echo:7", "remote-echo", ()),
    ("http://remote-local", "remote-local", ()),
    ("http://empty", "empty", ()),
]


@pytest.mark.parametrize("source", [SAME, OTHER])
@pytest.mark.parametrize(("url", "name", "args"), ASKED, ids=[one[0] for one in ASKED])
def test_a_trace_says_what_a_connection_meets(
    proxied: Cluster, url: str, name: str, args: tuple[str, ...], source: str
) -> None:
    first, second = proxied.plan.nodes
    url = url.replace(NODE_A, first.addresses[0]).replace(NODE_B, second.addresses[0])
    met = from_pod(proxied, source, url)
    cli = Cli(proxied)
    told = cli(f"svc/{name}", "-n", "shop", "--from", f"pod/{source}", *args, "-o", "json")
    assert told.code in (0, 1), told.err
    trace = told.trace
    assert trace["outcome"] == OUTCOMES[met.outcome]
    if met.outcome == "answered":
        assert trace["hops"][-1]["node"] == trace["source"]["place"]["node"]  # the answer came back
        assert {hop["node"] for hop in trace["hops"]} >= {met.node}


def test_no_evidence_is_missing(proxied: Cluster) -> None:
    """Also of rules of the legacy tables, for which a sysctl of the node is changed for a while."""
    machines = [node.machine for node in proxied.nodes.values()]
    loggers = [one.run("cat", "/proc/sys/net/netfilter/nf_log/2") for one in machines]
    told = Cli(proxied)("svc/remote", "-n", "shop", "--from", "pod/client")
    assert told.code == 0, told.err
    assert "Watched by: capture, rule trace, drop reasons, conntrack. Nothing lost." in told.out
    assert "Not watched" not in told.out
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
