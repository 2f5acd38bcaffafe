"""A real cluster as a ground for a run: the API's documents, and an agent's pod on each node that
is looked at.

In: how to reach it (kube/client/client_config.py), how agents are to run (agent_pod.Terms), and the
question, which says what is read. Leaving the context removes the pods.
"""

from __future__ import annotations

import secrets
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType

from kptrace.kube.agents.cleanup import delete_expired_pods
from kptrace.kube.agents.container import AgentPod, EphemeralAgentContainer
from kptrace.kube.agents.dry_run import dry_run
from kptrace.kube.agents.exec_agent import ExecAgentClient
from kptrace.kube.agents.manifest import AgentPodOptions
from kptrace.kube.client.api_reader import ApiReader
from kptrace.kube.client.client import ApiError, Client, is_rbac_denial
from kptrace.kube.client.permissions import RequiredPermission, lacking, missing, to_act, to_read
from kptrace.kube.client.related_objects import related_objects
from kptrace.kube.objects.cluster_state import ClusterState, read_cluster_state
from kptrace.kube.objects.resolve import choose_source, resolve
from kptrace.model import Netns, ProgressCallback, TraceRequest
from kptrace.model.errors import KptraceError, ObservationError, PermissionDeniedError
from kptrace.protocol import AgentClient, NetnsHandle
from kptrace.trace.agent_session import unique

# As seen from the agent's pod, which is in the node's own process and network namespaces.
HOST_NETNS = "/proc/1/ns/net"
HOST_RESOLV_CONF = "/proc/1/root/etc/resolv.conf"
HOST_BPFFS = "/proc/1/root/sys/fs/bpf"


def host_handle(node: str) -> NetnsHandle:
    return NetnsHandle(
        netns=Netns(node=node),
        ns_path=HOST_NETNS,
        resolv_conf=HOST_RESOLV_CONF,
        bpffs=HOST_BPFFS,
    )


class ClusterEnvironment:
    sparing = True

    def __init__(
        self,
        client: Client,
        request: TraceRequest,
        terms: AgentPodOptions,
        progress: ProgressCallback,
        sends: bool = True,
    ) -> None:
        """sends: a packet is to be sent, so a container in its sender's own pod is of use."""
        self._sends = sends
        self._client, self._request, self._terms, self._progress = client, request, terms, progress
        self._reading = ApiReader(client, request)
        self._texts: dict[str, str] = {}
        self._cluster_state = ClusterState()
        self._agents: dict[str, ExecAgentClient] = {}
        self._closed: ObservationError | None = None
        self.run = secrets.token_hex(4)

    def __enter__(self) -> ClusterEnvironment:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def api(self) -> dict[str, str]:
        if self._texts:
            return self._texts
        self._progress(f"asking {self._client.server}")
        try:
            self._texts = self._reading.documents()
        except ApiError as refusal:
            self._texts = self._what_may_be_read(self._explained(refusal))
        self._cluster_state = read_cluster_state(self._texts)
        return self._texts

    def forget(self) -> bool:
        self._reading = ApiReader(self._client, self._request, lenient=self._closed is not None)
        self._texts = {}
        return True

    @property
    def nodes(self) -> tuple[str, ...]:
        """Those that were read, the ready ones first; each time in the same order."""
        nodes = sorted(self._cluster_state.nodes, key=lambda node: (not node.ready, node.name))
        return tuple(node.name for node in nodes)

    def plan(self) -> str:
        """What would be started, and what must be allowed for it."""
        self.api()
        endpoints = resolve(self._request, self._cluster_state).endpoints
        far = unique(endpoint.node for endpoint in endpoints if endpoint.node)
        return dry_run(self._terms, self._source(), far, self._needs())

    def begin(self, node: str) -> None:
        """Have the agent there start; ``agent`` then waits for it."""
        if node in self._agents or self._closed:
            return
        known = self._cluster_state.node(node)
        if known is not None and not known.ready:
            return  # no pod starts there; who wants an agent there is told so
        number = len(self._agents) + 1
        if number == 1:
            delete_expired_pods(self._client, self._terms.namespace)
        container = AgentPod(self._client, self._terms, self.run, number, node)
        agent = ExecAgentClient(
            node, self.netns_handles(node), container, self._terms.image, self._progress
        )
        self._agents[node] = agent
        agent.begin()

    def agent(self, node: str) -> AgentClient:
        self.begin(node)
        if self._closed:
            raise self._closed
        if node not in self._agents:
            raise ObservationError(
                f"node {node} is NotReady, so no agent can start there",
                f"see why: kubectl describe node {node}",
            )
        try:
            self._agents[node].wait_until_entered()
        except (ApiError, PermissionDeniedError) as error:
            why = self._explained(error) if isinstance(error, ApiError) else error
            if not isinstance(why, PermissionDeniedError):
                raise why from None
            self._instead(node, why)
        return self._agents[node]

    def api_only_documents(self) -> dict[str, str]:
        self._progress("reading related API objects")
        return {**self.api(), **related_objects(self._client, self._cluster_state)}

    def refusal(self) -> ObservationError | None:
        """Why no agent can be started, where that is for want of rights."""
        if self._closed:
            return self._closed
        needs = tuple(to_act(self._terms.namespace))
        lacks = missing(self._client, needs)
        if not lacks:
            return None
        return PermissionDeniedError(
            "not allowed to " + ", ".join(need.words for need in lacks),
            "`kptrace ... --dry-run` prints the roles that allow it",
        )

    def close(self) -> None:
        """All at once: each waits for its agent to leave in good order."""
        if not self._agents:
            return
        with ThreadPoolExecutor(len(self._agents), "leaving") as pool:
            left = [pool.submit(agent.close) for agent in self._agents.values()]
        errors = [future.exception() for future in left]
        self._agents.clear()
        for error in errors:
            if isinstance(error, KptraceError):
                raise ObservationError(
                    f"agents' pods may be left: {error}",
                    "they end by their own deadline; `kptrace clean` removes them now",
                )

    # --- inside -------------------------------------------------------------------------------

    def _what_may_be_read(self, why: ObservationError) -> dict[str, str]:
        """Who may not read all may read the Service, and that may tell enough; then no agent is
        started: all rights that are missing are told of at once. Raises ``why`` where it does not.
        """
        if not isinstance(why, PermissionDeniedError):
            raise why from None
        self._reading, self._closed = ApiReader(self._client, self._request, lenient=True), why
        try:
            texts = self._reading.documents()
            self._cluster_state = read_cluster_state(texts)
            self._source()
        except ObservationError:
            raise why from None
        return texts

    def _instead(self, node: str, why: PermissionDeniedError) -> None:
        """No pod of ours may be there: a container in the source's own pod sees the least part.
        Raises ``why`` if that cannot be either.
        """
        source = self._source() if self._sends else Netns(node="")
        if source.node != node or not source.pod:
            raise why
        self._progress(f"no pod of ours may be made: adding a container to pod {source.pod}")
        closed = f"only pod {source.pod} itself was looked into: {why.in_one_line}"
        handles = (
            NetnsHandle(
                netns=Netns(node=node), closed=closed, hint=why.hint, manifest=why.manifest
            ),
            NetnsHandle(netns=source, ns_path="/proc/self/ns/net", resolv_conf="/etc/resolv.conf"),
        )
        guest = EphemeralAgentContainer(self._client, self._terms, self.run, source.pod)
        agent = ExecAgentClient(node, handles, guest, self._terms.image, self._progress)
        self._agents.pop(node).close()
        self._agents[node] = agent
        agent.begin()
        try:
            agent.wait_until_entered()
        except ObservationError as error:
            raise _both_forbidden(why, source.pod, error) from None

    def _source(self) -> Netns:
        resolution = resolve(self._request, self._cluster_state)
        backends = [endpoint.pod for endpoint in resolution.endpoints]
        return choose_source(self._request, self._cluster_state, backends).netns

    def netns_handles(self, node: str) -> tuple[NetnsHandle, ...]:
        """The node itself, and its pods that the question is about."""
        here = [
            pod for pod in self._cluster_state.pods if pod.node == node and not pod.host_network
        ]
        pods = (
            NetnsHandle(netns=Netns(node=node, pod=pod.key), pod_uid=self._reading.uids[pod.key])
            for pod in here
        )
        return (host_handle(node), *pods)

    def _explained(self, refusal: ApiError) -> ObservationError:
        return lacking(self._client, self._needs(), refusal) if refusal.code == 403 else refusal

    def _needs(self) -> tuple[RequiredPermission, ...]:
        target = self._request.target
        namespaces = [target.namespace or self._request.namespace]
        if self._request.source.startswith("pod"):
            namespaces.append(self._request.namespace)
        reads = to_read(namespaces, everywhere=target.kind == "address")
        return (*reads, *to_act(self._terms.namespace))


def _both_forbidden(
    why: PermissionDeniedError, pod: str, error: ObservationError
) -> PermissionDeniedError:
    """No pod of ours and no container in the sender's: both reasons, and the first one's remedy."""
    text = "not allowed to patch pods/ephemeralcontainers" if is_rbac_denial(error) else error.brief
    return PermissionDeniedError(
        f"{why.message}\nand no container in pod {pod} instead ({text})", why.hint, why.manifest
    )
