"""The pod that an agent runs in, as the API takes it. Pure.

It is the node's own network and process namespace with as few rights as the work needs: no service
account's token, no volume, no socket of a container runtime, no port. It only waits; the agent is
started in it over the API server's exec stream, and ends with that. Killed at any moment, it ends
by its own deadline.

Of the capabilities, NET_ADMIN reads rules and arms the rule trace, NET_RAW captures; SYS_PTRACE and
SYS_ADMIN together open another process's network namespace (setns(2)), SYS_CHROOT uses the node's
own programs where the image has none, BPF and PERFMON hear of dropped packets (bpf(2)).
"""

from __future__ import annotations

from typing import Any, Literal

from kptrace import __version__
from kptrace.model import Value

Profile = Literal["netadmin", "sysadmin"]

IMAGE = f"ghcr.io/kptrace/agent:{__version__}"
CONTAINER = "agent"
MANAGED_BY = "app.kubernetes.io/managed-by"
RUN = "kptrace.io/run"
NODE = "kptrace.io/node"
DEADLINE = 300  # seconds that a run may take; a killed client's pods end then
KEPT = 3600  # with --keep
NODE_CAPABILITIES = (
    "NET_ADMIN",
    "NET_RAW",
    "SYS_ADMIN",
    "SYS_PTRACE",
    "SYS_CHROOT",
    "BPF",
    "PERFMON",
)
POD_CAPABILITIES = ("NET_ADMIN", "NET_RAW")
_IDLE = (
    "import signal, sys; [signal.signal(one, lambda *_: sys.exit()) for one in (14, 15)]; "
    "signal.alarm(int(sys.argv[1])); signal.pause()"
)


class AgentPodOptions(Value):
    """How agents are to run.

    profile: ``netadmin`` the capabilities above, ``sysadmin`` privileged
    """

    image: str = IMAGE
    namespace: str = ""
    profile: Profile = "netadmin"
    keep: bool = False
    deadline: int = DEADLINE


def pod(terms: AgentPodOptions, run: str, number: int, node: str) -> dict[str, Any]:
    seconds = KEPT if terms.keep else terms.deadline
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": f"kptrace-{run}-{number}",
            "namespace": terms.namespace,
            "labels": {
                "app.kubernetes.io/name": "kptrace",
                MANAGED_BY: "kptrace",
                RUN: run,
            },
            "annotations": {
                NODE: node,
                # before Kubernetes 1.30; from then on it is a field
                f"container.apparmor.security.beta.kubernetes.io/{CONTAINER}": "unconfined",
            },
        },
        "spec": {
            "nodeName": node,
            "hostNetwork": True,
            "hostPID": True,
            "restartPolicy": "Never",
            "activeDeadlineSeconds": seconds,
            "terminationGracePeriodSeconds": 2,
            "automountServiceAccountToken": False,
            "enableServiceLinks": False,
            "tolerations": [{"operator": "Exists"}],
            "containers": [
                {
                    "name": CONTAINER,
                    "image": terms.image,
                    "imagePullPolicy": "IfNotPresent",
                    "command": ["sleep", str(seconds)],
                    "resources": {
                        "requests": {"cpu": "10m", "memory": "64Mi"},
                        "limits": {"memory": "192Mi"},
                    },
                    "securityContext": _rights(terms.profile),
                }
            ],
        },
    }


def _rights(profile: Profile) -> dict[str, Any]:
    if profile == "sysadmin":
        return {"runAsUser": 0, "runAsNonRoot": False, "privileged": True}
    return {
        "runAsUser": 0,
        "runAsNonRoot": False,
        # the usual profile of AppArmor lets no process look at another's namespaces
        "appArmorProfile": {"type": "Unconfined"},
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"], "add": list(NODE_CAPABILITIES)},
    }


def ephemeral(terms: AgentPodOptions, run: str) -> dict[str, Any]:
    """A container in a pod that is there already; it cannot be removed, so it ends by itself.

    It is the first process of its own process namespace, which no signal ends that it did not ask
    for (pid_namespaces(7)); ``sleep`` asks for none.
    """
    return {
        "name": f"kptrace-{run}",
        "image": terms.image,
        "imagePullPolicy": "IfNotPresent",
        "command": ["python3", "-c", _IDLE, str(terms.deadline)],
        "securityContext": {
            "runAsUser": 0,
            "runAsNonRoot": False,
            "capabilities": {"drop": ["ALL"], "add": list(POD_CAPABILITIES)},
        },
    }
