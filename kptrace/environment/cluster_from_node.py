"""A real cluster, maybe seen from one of its own nodes: then this node's agent is a process of ours
and the others' are pods (environment/cluster.py).

In: the cluster's ground. Out: the same, where the node that has an address of this machine's is
looked at without a pod. That takes root here, and the node's own process namespace, in which the
pods' processes are found.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from types import TracebackType

from kptrace.agent_client.subprocess_agent import SubprocessAgent
from kptrace.environment.cluster import ClusterEnvironment
from kptrace.kube.objects.cluster_state import read_cluster_state
from kptrace.model import Node
from kptrace.model.errors import ObservationError
from kptrace.protocol import AgentClient, NetnsHandle

OWN_NETNS, OWN_RESOLV_CONF = "/proc/self/ns/net", "/etc/resolv.conf"


def node_here(nodes: Iterable[Node]) -> str:
    """The one whose address is this machine's; empty: none."""
    for node in nodes:
        if any(_is_ours(address) for address in node.addresses):
            return node.name
    return ""


def _is_ours(address: str) -> bool:
    """Only an address of its own can a machine be bound to."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as sock:
            sock.bind((address, 0))
    except OSError:
        return False
    return True


class ClusterFromNode:
    sparing = True

    def __init__(self, cluster: ClusterEnvironment) -> None:
        self._cluster = cluster
        self._open = ExitStack()
        self._own = ""

    def __enter__(self) -> ClusterFromNode:
        self._open.enter_context(self._cluster)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._open.__exit__(kind, error, trace)

    def api(self) -> dict[str, str]:
        texts = self._cluster.api()
        if os.geteuid() == 0:
            self._own = node_here(read_cluster_state(texts).nodes)
        return texts

    def forget(self) -> bool:
        return self._cluster.forget()

    def api_only_documents(self) -> Mapping[str, str] | None:
        return self._cluster.api_only_documents()

    def refusal(self) -> ObservationError | None:
        return self._cluster.refusal()

    @property
    def nodes(self) -> tuple[str, ...]:
        return self._cluster.nodes

    def begin(self, node: str) -> None:
        if node != self._own:
            self._cluster.begin(node)

    def agent(self, node: str) -> AgentClient:
        if not self._own or node != self._own:
            return self._cluster.agent(node)
        handles = tuple(map(_from_here, self._cluster.netns_handles(node)))
        agent = self._open.enter_context(SubprocessAgent(node, handles))
        agent.wait_until_entered()  # which pods have no way in is known then
        return agent


def _from_here(handle: NetnsHandle) -> NetnsHandle:
    """The node's own is the one that we are in; a pod's is found by its uid as from anywhere."""
    if handle.netns.pod:
        return handle
    return NetnsHandle(netns=handle.netns, ns_path=OWN_NETNS, resolv_conf=OWN_RESOLV_CONF)
