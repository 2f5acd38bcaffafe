"""A cluster seen from one of its nodes: no pod is started there; all others are asked as ever."""

from __future__ import annotations

import json
import os

import pytest

from kptrace.environment import cluster_from_node
from kptrace.environment.cluster_from_node import OWN_NETNS, ClusterFromNode, node_here
from kptrace.model import Netns, Node
from kptrace.protocol import NetnsHandle

POD = NetnsHandle(netns=Netns(node="node-a", pod="shop/web"), pod_uid="u-1")
HOST = NetnsHandle(
    netns=Netns(node="node-a"), ns_path="/proc/1/ns/net", bpffs="/proc/1/root/sys/fs/bpf"
)


class Cluster:
    """What a ClusterGround is asked for."""

    nodes = ("node-a", "node-b")

    def __init__(self, addresses: dict[str, str]) -> None:
        self._addresses = addresses
        self.asked: list[str] = []

    def __enter__(self) -> Cluster:
        return self

    def __exit__(self, *_: object) -> None:
        self.asked.append("left")

    def api(self) -> dict[str, str]:
        items = [
            {
                "metadata": {"name": name},
                "status": {"addresses": [{"type": "InternalIP", "address": address}]},
            }
            for name, address in self._addresses.items()
        ]
        return {"nodes.json": json.dumps({"kind": "List", "items": items})}

    def begin(self, node: str) -> None:
        self.asked.append(f"begin {node}")

    def agent(self, node: str) -> str:
        self.asked.append(f"agent {node}")
        return f"pod on {node}"

    def netns_handles(self, node: str) -> tuple[NetnsHandle, ...]:
        return HOST, POD


class Local:
    """Stands for a process of ours."""

    def __init__(self, node: str, doors: tuple[NetnsHandle, ...]) -> None:
        self.node, self.netns_handles = node, doors

    def __enter__(self) -> Local:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def wait_until_entered(self) -> None:
        pass


def test_which_node_is_this_machine() -> None:
    """127.0.0.1 is an address that any machine has; 192.0.2.1 is kept for documentation."""
    here, other = (
        Node(name="here", addresses=("127.0.0.1",)),
        Node(name="other", addresses=("192.0.2.1", "2001:db8::1")),
    )
    assert node_here([other, here]) == "here"
    assert node_here([other]) == ""
    assert node_here([]) == ""


@pytest.mark.parametrize("root", [True, False])
def test_only_root_looks_at_its_own_node_without_a_pod(
    root: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0 if root else 1000)
    monkeypatch.setattr(cluster_from_node, "SubprocessAgent", Local)
    cluster = Cluster({"node-a": "127.0.0.1", "node-b": "192.0.2.1"})
    with ClusterFromNode(cluster) as ground:  # type: ignore[arg-type]
        ground.api()
        for node in ("node-a", "node-b"):
            ground.begin(node)
        own, far = ground.agent("node-a"), ground.agent("node-b")
    assert far == "pod on node-b"
    asked = ["begin node-b", "agent node-b", "left"]
    if root:
        assert isinstance(own, Local)
        assert own.netns_handles[0].ns_path == OWN_NETNS
        assert own.netns_handles[1] == POD
        assert cluster.asked == asked
    else:
        assert cluster.asked == ["begin node-a", asked[0], "agent node-a", *asked[1:]]


def test_from_a_workstation_nothing_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    cluster = Cluster({"node-a": "192.0.2.1", "node-b": "192.0.2.2"})
    with ClusterFromNode(cluster) as ground:  # type: ignore[arg-type]
        ground.api()
        assert ground.agent("node-a") == "pod on node-a"
    assert ground.nodes == cluster.nodes
