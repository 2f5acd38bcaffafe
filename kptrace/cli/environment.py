"""Where a command looks: the options for it, and the ground or the state that they name."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar, NamedTuple

import typer

from kptrace.cli.console import print_report, progress
from kptrace.cli.options import Options
from kptrace.model.errors import NotFoundError, ObservationError, UsageError

if TYPE_CHECKING:
    from contextlib import ExitStack

    from kptrace.cli.kubectl_flags import ClusterOptions, KubectlFlags
    from kptrace.environment.cluster_from_node import ClusterFromNode
    from kptrace.environment.in_pod import PodIdentity
    from kptrace.explain.explain import StateSource
    from kptrace.model import TraceRequest
    from kptrace.trace.agent_session import Environment


ELSEWHERE = "Instead of the kubeconfig's cluster"


class LabOptions(Options):
    heading: ClassVar[str] = ELSEWHERE
    lab: Annotated[bool, typer.Option("--lab", help="Use the lab named `default`.")] = False
    lab_name: Annotated[
        str, typer.Option("--lab-name", metavar="NAME", help="Use the lab of this name.")
    ] = ""

    @property
    def named(self) -> str:
        return self.lab_name or ("default" if self.lab else "")


class OfflineOption(Options):
    heading: ClassVar[str] = ELSEWHERE
    offline: Annotated[
        bool,
        typer.Option(
            "--offline", help="Use this node's rules only; do not contact the API server."
        ),
    ] = False


class BundleOption(Options):
    heading: ClassVar[str] = ELSEWHERE
    bundle: Annotated[
        Path | None,
        typer.Option(
            "--bundle", metavar="PATH", help="Read node state from this directory or tar archive."
        ),
    ] = None


class Site(NamedTuple):
    """A ground, and the nodes that are to be had there."""

    ground: Environment
    nodes: tuple[str, ...]


def namespace(lab: LabOptions, here: OfflineOption, cluster: KubectlFlags) -> str:
    """The one that is meant where none is named: of the context, where a cluster is meant."""
    if cluster.namespace or lab.named or here.offline:
        return cluster.namespace or "default"
    pod = _this_pod(cluster)
    return pod.namespace if pod else cluster.client.namespace


def _this_pod(cluster: KubectlFlags) -> PodIdentity | None:
    """The pod that we run in, unless another cluster is named."""
    if cluster.elsewhere:
        return None
    from kptrace.environment.in_pod import this_pod

    return this_pod()


def ground(
    stack: ExitStack,
    request: TraceRequest,
    lab: LabOptions,
    here: OfflineOption,
    cluster: ClusterOptions,
) -> tuple[Environment, TraceRequest]:
    """Where packets are sent, and the question in that place's own names."""
    if here.offline and not lab.named:
        from kptrace.environment.offline_node import OfflineNode

        node = stack.enter_context(OfflineNode(request))
        return node, node.request
    if lab.named or here.offline:
        return site(stack, lab, here, cluster).ground, request
    pod = _this_pod(cluster)
    if pod is not None:
        return _inside(stack, request, cluster, pod)
    return stack.enter_context(_cluster(request, cluster)), request


def _inside(
    stack: ExitStack, request: TraceRequest, cluster: ClusterOptions, pod: PodIdentity
) -> tuple[Environment, TraceRequest]:
    """In a pod: with its rights as from a workstation, else from its own namespace alone."""
    from msgspec.structs import replace

    from kptrace.environment.in_pod import InPod

    asked = replace(request, source=request.source or f"pod/{pod.name}.{pod.namespace}")
    texts: dict[str, str] = {}
    try:
        cluster_from_node = _cluster(asked, cluster)
        texts = cluster_from_node.api()
        refusal = cluster_from_node.refusal()
        if refusal is None:
            return stack.enter_context(cluster_from_node), asked
    except ObservationError as error:
        refusal = error
    node = stack.enter_context(InPod(asked, pod, texts, refusal))
    return node, node.request


def _cluster(request: TraceRequest, cluster: ClusterOptions, sends: bool = True) -> ClusterFromNode:
    from kptrace.environment.cluster import ClusterEnvironment
    from kptrace.environment.cluster_from_node import ClusterFromNode

    cluster_environment = ClusterEnvironment(
        cluster.client, request, cluster.terms, progress(), sends
    )
    if cluster.dry_run:
        print_report(cluster_environment.plan())
        raise typer.Exit
    return ClusterFromNode(cluster_environment)


MOST_NODES = 20


def site(
    stack: ExitStack,
    lab: LabOptions,
    here: OfflineOption,
    cluster: ClusterOptions,
    requested: Sequence[str] = (),
) -> Site:
    """``wanted``: nodes that the user named; empty: all."""
    if lab.named and here.offline:
        raise UsageError("--lab and --offline exclude each other", "give one of them")
    if lab.named:
        from kptrace.environment.lab import LabEnvironment
        from kptrace.lab.state import load

        lab_ = load(lab.named)
        return Site(stack.enter_context(LabEnvironment(lab_)), lab_.nodes)
    if here.offline:
        from kptrace.environment.local_node import LocalNode

        ours = stack.enter_context(LocalNode())
        return Site(ours, (ours.name,))
    from kptrace.environment.cluster_from_node import ClusterFromNode
    from kptrace.environment.whole_cluster import WholeCluster

    whole = stack.enter_context(
        ClusterFromNode(WholeCluster(cluster.client, cluster.terms, progress()))
    )
    whole.api()
    if not requested and len(whole.nodes) > MOST_NODES:
        raise UsageError(
            f"the cluster has {len(whole.nodes)} nodes, and each would get an agent",
            "name those that matter: --node NAME, more than once",
        )
    asked = tuple(requested) or whole.nodes
    if set(asked) <= set(whole.nodes):  # else none is looked at: the command says which there are
        for node in asked:
            whole.begin(node)  # all at once
    return Site(whole, whole.nodes)


def state(
    stack: ExitStack,
    request: TraceRequest,
    lab: LabOptions,
    here: OfflineOption,
    saved: BundleOption,
    cluster: ClusterOptions,
) -> StateSource:
    """Where the state of nodes comes from."""
    if saved.bundle is not None:
        if lab.named or here.offline:
            raise UsageError("--bundle excludes --lab and --offline", "give one of them")
        from kptrace.bundle.folder import Bundle

        return Bundle(saved.bundle)
    from kptrace.environment.local_node import LiveState

    if not lab.named and not here.offline:
        nodes = stack.enter_context(_cluster(request, cluster, sends=False))
        nodes.api()
        if nodes.nodes and request.node and request.node not in nodes.nodes:
            from kptrace.model.suggestions import suggestion

            raise NotFoundError(f"no node {request.node}", suggestion(request.node, nodes.nodes))
        return LiveState(nodes, nodes.nodes)
    there = site(stack, lab, here, cluster)
    live = LiveState(there.ground, there.nodes)
    if here.offline:
        live.begin(there.nodes[0])
    return live
