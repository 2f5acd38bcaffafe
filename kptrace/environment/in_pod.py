"""EDGE: the pod that we run in as a ground for a run, where no agent can be started on a node.

In: the question, what the API told (nothing, where we may not read it), and why no more can be had.
Out: the documents, an agent in this very namespace, and the question in names that are known here:
without an API a Service is what DNS says. What cannot be seen from here is named with its reason.
"""

from __future__ import annotations

import json
import os
import re
import socket
from collections.abc import Mapping
from pathlib import Path

import msgspec

from kptrace.agent_client.subprocess_agent import SubprocessAgent
from kptrace.environment.local_node import LocalNode
from kptrace.kube.objects.cluster_state import PARTIAL, TOLD_BY, read_cluster_state
from kptrace.model import Netns, Target, TraceRequest, Value
from kptrace.model.errors import ObservationError
from kptrace.protocol import AgentClient, NetnsHandle

IN_CLUSTER = "KUBERNETES_SERVICE_HOST"  # the kubelet sets it in every container
ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
RESOLV_CONF = Path("/etc/resolv.conf")
UNKNOWN_NODE = "its node"
OWN_ONLY = "this pod sees its own namespace only"
_SEARCH = re.compile(r"^search\s+([a-z0-9-]+)\.svc\.", re.MULTILINE)


class PodIdentity(Value):
    name: str
    namespace: str
    node: str = ""


def this_pod(environ: Mapping[str, str] = os.environ) -> PodIdentity | None:
    """None: we run in no pod."""
    if IN_CLUSTER not in environ:
        return None
    match = _SEARCH.search(_text(RESOLV_CONF))
    namespace = _text(ACCOUNT / "namespace").strip() or (match[1] if match else "default")
    return PodIdentity(
        name=environ.get("HOSTNAME") or socket.gethostname(),
        namespace=namespace,
        node=environ.get("NODE_NAME", ""),
    )


class InPod(LocalNode):
    def __init__(
        self,
        asked: TraceRequest,
        pod: PodIdentity,
        texts: Mapping[str, str],
        refusal: ObservationError,
    ) -> None:
        """``texts``: as the API told; empty: it did not."""
        super().__init__()
        self._asked, self._pod, self._refusal = asked, pod, refusal
        self._texts = dict(texts) or _alone(pod, refusal)
        self._blind = not texts
        own = read_cluster_state(self._texts).pod(f"{pod.namespace}/{pod.name}")
        self.name = (own.node if own else "") or pod.node or UNKNOWN_NODE

    @property
    def request(self) -> TraceRequest:
        """Raises the refusal where another source than this pod is asked for and no API tells."""
        asked = self._asked
        if not self._blind:
            return asked
        if not self._is_ours(asked.source):
            raise self._refusal
        if asked.target.kind != "service":
            return asked
        return msgspec.structs.replace(asked, target=_by_name(asked.target, self._pod))

    def api(self) -> dict[str, str]:
        return self._texts

    def api_only_documents(self) -> dict[str, str] | None:
        return None if self._blind else self._texts

    def agent(self, node: str) -> AgentClient:
        if node != self.name or not self._is_ours(self._asked.source):
            raise self._refusal
        pod = Netns(node=node, pod=f"{self._pod.namespace}/{self._pod.name}")
        why = f"{OWN_ONLY}, and no agent could be started: {self._refusal.in_one_line}"
        handles = (
            NetnsHandle(
                netns=Netns(node=node),
                closed=why,
                hint=self._refusal.hint,
                manifest=self._refusal.manifest,
            ),
            NetnsHandle(netns=pod, ns_path="/proc/self/ns/net", resolv_conf=str(RESOLV_CONF)),
        )
        agent = self._open.enter_context(SubprocessAgent(node, handles))
        agent.wait_until_entered()
        return agent

    def _is_ours(self, source: str) -> bool:
        own = f"pod/{self._pod.name}"
        bare = own if self._asked.namespace == self._pod.namespace else ""
        return source in (f"{own}.{self._pod.namespace}", bare)


def _alone(pod: PodIdentity, refusal: ObservationError) -> dict[str, str]:
    """All that is known without the API: this pod."""
    node = pod.node or UNKNOWN_NODE
    metadata = {"name": pod.name, "namespace": pod.namespace}
    pods = [{"kind": "Pod", "metadata": metadata, "spec": {"nodeName": node}}]
    told_by = {
        "by": "DNS alone",
        "why": f"not asked: {refusal.in_one_line}",
        "hint": refusal.hint,
        "manifest": refusal.manifest,
    }
    return {
        "pods.json": json.dumps({"kind": "List", "items": pods}),
        PARTIAL: json.dumps(["pods.json"]),
        TOLD_BY: json.dumps(told_by),
    }


def _by_name(target: Target, pod: PodIdentity) -> Target:
    """As a program in the pod would call it, and by the port that its environment names, if it does
    (the kubelet puts in the Services that there were when the pod began).
    """
    name = target.name if target.namespace == pod.namespace else f"{target.name}.{target.namespace}"
    texts = [target.name, "SERVICE_PORT", target.port]
    known = "_".join(filter(None, texts)).upper().replace("-", "_")
    number = target.port if target.port.isdecimal() else os.environ.get(known, target.port)
    own = target.namespace == pod.namespace
    return msgspec.structs.replace(
        target, kind="name", name=name, port=number if own else target.port
    )


def _text(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""
