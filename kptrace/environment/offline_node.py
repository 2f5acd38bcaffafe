"""EDGE: the node that we run on as a ground for a run, without any API server.

In: the question. Out: the documents as the node's own rules tell them
(explain/services_from_rules.py), its agent, and the question with its source found among what the
node has: itself, or a pod by its name, address, device or one of its processes. Other nodes are
seen up to the wire.

A pod whose name nobody tells is called by its address, as DNS does: ``10-244-1-10``.
"""

from __future__ import annotations

from functools import cached_property

import msgspec

from kptrace.agent_client.subprocess_agent import SubprocessAgent
from kptrace.environment.local_node import LiveState, LocalNode
from kptrace.environment.local_pods import LocalPod, local_pods
from kptrace.explain.services_from_rules import own_documents
from kptrace.model import Netns, Pod, TraceRequest
from kptrace.model.errors import NotFoundError, ObservationError
from kptrace.protocol import AgentClient, NetnsHandle
from kptrace.trace.prediction import snapshots_of

OWN_RESOLV_CONF = "/etc/resolv.conf"
_POD_WORDS = ("pod", "pods", "po")
_NODE_WORDS = ("node", "nodes", "no")


class OfflineNode(LocalNode):
    def __init__(self, asked: TraceRequest) -> None:
        super().__init__()
        self._asked = asked

    @cached_property
    def _found(self) -> dict[str, LocalPod]:
        """The pods of this node by ``namespace/name``."""
        asked = self._asked.target.namespace or self._asked.namespace
        return {
            f"{local_pod.namespace or asked}/{_name(local_pod)}": local_pod
            for local_pod in local_pods()
        }

    @cached_property
    def request(self) -> TraceRequest:
        return msgspec.structs.replace(self._asked, source=self._source(self._asked.source))

    @cached_property
    def _texts(self) -> dict[str, str]:
        with LocalNode() as node:
            files = LiveState(node, (self.name,)).node(self.name)
            netns = Netns(node=self.name)
            snapshot = snapshots_of({netns: files})[netns]
            pods = [
                Pod(namespace=key.split("/")[0], name=key.split("/")[1], ips=local_pod.addresses)
                for key, local_pod in self._found.items()
            ]
            return own_documents(snapshot, self._asked.target, pods)

    def api(self) -> dict[str, str]:
        return self._texts

    def agent(self, node: str) -> AgentClient:
        if node != self.name:
            raise ObservationError(
                f"not looked at: --offline sees {self.name} up to the wire",
                "run kptrace on that node too, or here without --offline",
            )
        host = NetnsHandle(
            netns=Netns(node=node), ns_path="/proc/self/ns/net", resolv_conf=OWN_RESOLV_CONF
        )
        pods = (
            NetnsHandle(
                netns=Netns(node=node, pod=key),
                ns_path=local_pod.netns,
                resolv_conf=local_pod.resolv_conf,
            )
            for key, local_pod in self._found.items()
        )
        return self._open.enter_context(SubprocessAgent(node, (host, *pods)))

    # --- whom the user means ------------------------------------------------------------------

    def _source(self, text: str) -> str:
        kind, slash, name = text.partition("/")
        if not text:
            return ""
        if slash and kind in _NODE_WORDS:
            if name != self.name:
                raise NotFoundError(f"no node {name} here", f"--offline sees node/{self.name} only")
            return text
        word = name if slash and kind in (*_POD_WORDS, "pid") else text
        for key, local_pod in self._found.items():
            if _means(kind if slash else "", word, key, local_pod):
                return f"pod/{key.split('/')[1]}.{key.split('/')[0]}"
        raise NotFoundError(
            f"nothing on {self.name} is {text}",
            "name a pod of this node by its address, device, process (pid/N) or name; there are: "
            + (", ".join(map(_shown, self._found.items())) or "none"),
        )


def _name(pod: LocalPod) -> str:
    address = pod.addresses[0] if pod.addresses else pod.device
    return pod.name or address.replace(".", "-").replace(":", "-")


def _means(kind: str, word: str, key: str, pod: LocalPod) -> bool:
    if kind == "pid":
        return word.isdecimal() and int(word) in pod.pids
    namespace, name = key.split("/")
    own = (name, f"{name}.{namespace}", key) if kind in _POD_WORDS else ()
    return word in (*own, *pod.addresses, pod.device)


def _shown(item: tuple[str, LocalPod]) -> str:
    """``10.244.1.10 (veth2828400f)``, ``pod/client.shop (10.244.1.10)``"""
    key, pod = item
    address = pod.addresses[0] if pod.addresses else "no address"
    if not pod.name:
        return f"{address} ({pod.device})"
    namespace, name = key.split("/")
    return f"pod/{name}.{namespace} ({address})"
