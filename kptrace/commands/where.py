"""Where a command looks: the options for it, and the ground or the state that they name."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar, NamedTuple

import typer

from kptrace.commands.console import progress, show
from kptrace.commands.options import Options
from kptrace.errors import CannotLook, NotFound, Usage

if TYPE_CHECKING:
    from contextlib import ExitStack

    from kptrace.commands.connection import Flags, InCluster
    from kptrace.crew import Ground
    from kptrace.explain import State
    from kptrace.inside import ThisPod
    from kptrace.kube.on_node import OnNode
    from kptrace.model import Question


ELSEWHERE = "Instead of the kubeconfig's cluster"


class InLab(Options):
    heading: ClassVar[str] = ELSEWHERE
    lab: Annotated[bool, typer.Option("--lab", help="In the lab named `default`.")] = False
    lab_name: Annotated[
        str, typer.Option("--lab-name", metavar="NAME", help="In the lab of this name.")
    ] = ""

    @property
    def named(self) -> str:
        return self.lab_name or ("default" if self.lab else "")


class Offline(Options):
    heading: ClassVar[str] = ELSEWHERE
    offline: Annotated[
        bool, typer.Option("--offline", help="This node; names come from its own rules.")
    ] = False


class Saved(Options):
    heading: ClassVar[str] = ELSEWHERE
    bundle: Annotated[
        Path | None,
        typer.Option("--bundle", metavar="PATH", help="A folder or tar with the state of nodes."),
    ] = None


class Site(NamedTuple):
    """A ground, and the nodes that are to be had there."""

    ground: Ground
    nodes: tuple[str, ...]


def namespace(lab: InLab, here: Offline, cluster: Flags) -> str:
    """The one that is meant where none is named: of the context, where a cluster is meant."""
    if cluster.namespace or lab.named or here.offline:
        return cluster.namespace or "default"
    pod = _this_pod(cluster)
    return pod.namespace if pod else cluster.client.namespace


def _this_pod(cluster: Flags) -> ThisPod | None:
    """The pod that we run in, unless another cluster is named."""
    if cluster.elsewhere:
        return None
    from kptrace.inside import this_pod

    return this_pod()


def ground(
    stack: ExitStack, question: Question, lab: InLab, here: Offline, cluster: InCluster
) -> tuple[Ground, Question]:
    """Where packets are sent, and the question in that place's own names."""
    if here.offline and not lab.named:
        from kptrace.here import Here

        node = stack.enter_context(Here(question))
        return node, node.question
    if lab.named or here.offline:
        return site(stack, lab, here, cluster).ground, question
    pod = _this_pod(cluster)
    if pod is not None:
        return _inside(stack, question, cluster, pod)
    return stack.enter_context(_cluster(question, cluster)), question


def _inside(
    stack: ExitStack, question: Question, cluster: InCluster, pod: ThisPod
) -> tuple[Ground, Question]:
    """In a pod: with its rights as from a workstation, else from its own namespace alone."""
    from msgspec.structs import replace

    from kptrace.inside import Inside

    asked = replace(question, source=question.source or f"pod/{pod.name}.{pod.namespace}")
    texts: dict[str, str] = {}
    try:
        made = _cluster(asked, cluster)
        texts = made.api()
        refusal = made.refusal()
        if refusal is None:
            return stack.enter_context(made), asked
    except CannotLook as error:
        refusal = error
    node = stack.enter_context(Inside(asked, pod, texts, refusal))
    return node, node.question


def _cluster(question: Question, cluster: InCluster, sends: bool = True) -> OnNode:
    from kptrace.kube.ground import ClusterGround
    from kptrace.kube.on_node import OnNode

    made = ClusterGround(cluster.client, question, cluster.terms, progress(), sends)
    if cluster.dry_run:
        show(made.plan())
        raise typer.Exit
    return OnNode(made)


MOST_NODES = 20


def site(
    stack: ExitStack, lab: InLab, here: Offline, cluster: InCluster, wanted: Sequence[str] = ()
) -> Site:
    """``wanted``: nodes that the user named; empty: all."""
    if lab.named and here.offline:
        raise Usage("--lab and --offline exclude each other", "give one of them")
    if lab.named:
        from kptrace.lab.ground import LabGround
        from kptrace.lab.state import load

        found = load(lab.named)
        return Site(stack.enter_context(LabGround(found)), found.nodes)
    if here.offline:
        from kptrace.live import ThisNode

        ours = stack.enter_context(ThisNode())
        return Site(ours, (ours.name,))
    from kptrace.kube.on_node import OnNode
    from kptrace.kube.whole import WholeCluster

    whole = stack.enter_context(OnNode(WholeCluster(cluster.client, cluster.terms, progress())))
    whole.api()
    if not wanted and len(whole.nodes) > MOST_NODES:
        raise Usage(
            f"the cluster has {len(whole.nodes)} nodes, and each would get an agent",
            "name those that matter: --node NAME, more than once",
        )
    asked = tuple(wanted) or whole.nodes
    if set(asked) <= set(whole.nodes):  # else none is looked at: the command says which there are
        for node in asked:
            whole.begin(node)  # all at once
    return Site(whole, whole.nodes)


def state(
    stack: ExitStack,
    question: Question,
    lab: InLab,
    here: Offline,
    saved: Saved,
    cluster: InCluster,
) -> State:
    """Where the state of nodes comes from."""
    if saved.bundle is not None:
        if lab.named or here.offline:
            raise Usage("--bundle excludes --lab and --offline", "give one of them")
        from kptrace.bundle import Bundle

        return Bundle(saved.bundle)
    from kptrace.live import Live

    if not lab.named and not here.offline:
        nodes = stack.enter_context(_cluster(question, cluster, sends=False))
        nodes.api()
        if nodes.nodes and question.node and question.node not in nodes.nodes:
            from kptrace.nearest import instead

            raise NotFound(f"no node {question.node}", instead(question.node, nodes.nodes))
        return Live(nodes, nodes.nodes)
    there = site(stack, lab, here, cluster)
    live = Live(there.ground, there.nodes)
    if here.offline:
        live.begin(there.nodes[0])
    return live
