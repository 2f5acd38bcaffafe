"""What runs in the cluster: manifests applied with the real kubectl, and the wait until it runs."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cluster.ground.home import Home
from cluster.ground.plan import NodePlan, NotPossible, Plan
from cluster.ground.shell import attempt, run

MANIFESTS = Path(__file__).parents[1] / "manifests"
READY_SECONDS = 180


class Kubectl:
    """The real one, as the cluster's administrator or as whoever the kubeconfig says."""

    def __init__(self, binaries: Path, kubeconfig: Path) -> None:
        self.program = binaries / "kubectl"
        self.kubeconfig = kubeconfig

    def __call__(self, *arguments: str | Path, given: str = "", seconds: float = 120) -> str:
        return run(*self.command(*arguments), given=given, seconds=seconds)

    def attempt(
        self, *arguments: str | Path, given: str = "", seconds: float = 120
    ) -> subprocess.CompletedProcess[str]:
        return attempt(*self.command(*arguments), given=given, seconds=seconds)

    def command(self, *arguments: str | Path) -> list[str | Path]:
        return [self.program, f"--kubeconfig={self.kubeconfig}", *arguments]

    def json(self, *arguments: str) -> Any:
        return json.loads(self(*arguments, "-o", "json"))


def register(kubectl: Kubectl, plan: Plan) -> None:
    """The nodes before their kubelets come, so that each has the pod network of the plan."""
    kubectl("apply", "-f", "-", given="\n---\n".join(json.dumps(_node(one)) for one in plan.nodes))


def apply(kubectl: Kubectl, plan: Plan) -> None:
    """The namespace first: a pod cannot be made before it has a service account."""
    kubectl("apply", "-f", MANIFESTS / "namespaces.yaml")
    for name in ("shop", "kube-system"):
        _until(kubectl, ("get", "serviceaccount", "default", "-n", name))
    texts = (path.read_text() for path in sorted(MANIFESTS.glob("*.yaml")))
    given = "\n---\n".join(texts).replace("OUTSIDE", plan.control.addresses[0])
    kubectl("apply", "-f", "-", given=given)


def wait(kubectl: Kubectl, home: Home) -> None:
    """Until the nodes and all pods are ready; what is not is in the message."""
    everything = (("node", "--all"), ("pod", "--all", "-n", "kube-system"))
    for what in (*everything, ("pod", "--all", "-n", "shop")):
        told = kubectl.attempt(
            *("wait", "--for=condition=Ready", f"--timeout={READY_SECONDS}s", *what),
            seconds=READY_SECONDS + 20,
        )
        if told.returncode:
            state = kubectl("get", "nodes,pods", "-A", "-o", "wide")
            raise NotPossible(f"not ready: {told.stderr}\n{state}\nlogs: {home.path / 'log'}")


def renew(kubectl: Kubectl, home: Home, plan: Plan) -> None:
    """Every pod anew: for a network that gives pods other interfaces than before."""
    for namespace in ("shop", "kube-system"):
        kubectl("delete", "pod", "--all", "-n", namespace, "--grace-period=1")
    apply(kubectl, plan)
    _until(kubectl, ("wait", "--for=create", "pod/client", "-n", "shop", "--timeout=1s"))
    for namespace in ("shop", "kube-system"):
        kubectl(
            *("rollout", "status", "deployment", "-n", namespace, f"--timeout={READY_SECONDS}s"),
            seconds=READY_SECONDS + 20,
        )
    wait(kubectl, home)


def _node(node: NodePlan) -> dict[str, object]:
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {
            "name": node.role,
            "labels": {
                # pods are spread over the hosts that the scheduler knows when it places them
                "kubernetes.io/hostname": node.role,
                "kubernetes.io/os": "linux",
                "topology.kubernetes.io/zone": f"zone-{node.role[-1]}",
            },
        },
        "spec": {"podCIDR": node.pod_cidrs[0], "podCIDRs": list(node.pod_cidrs)},
    }


def _until(kubectl: Kubectl, question: Sequence[str], seconds: float = 60) -> None:
    until = time.monotonic() + seconds
    while kubectl.attempt(*question).returncode:
        if time.monotonic() > until:
            kubectl(*question)
        time.sleep(0.2)
