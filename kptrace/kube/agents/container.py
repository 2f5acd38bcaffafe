"""The life of an agent's pod: made, looked at until it runs or never will, removed.

In: the client, and what the pod is to be (manifest.py). Out: an exec stream into it, or a
CannotLook that says why there is none.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, Protocol

from kptrace.kube.agents.manifest import CONTAINER, AgentPodOptions, ephemeral, pod
from kptrace.kube.client.client import ApiError, Client, decoded, is_rbac_denial, path
from kptrace.kube.client.exec_stream import ExecStream
from kptrace.model.errors import (
    AgentError,
    NotFoundError,
    ObservationError,
    PermissionDeniedError,
    UnsupportedError,
)

_HOPELESS = {
    "ErrImagePull": "cannot be pulled",
    "ImagePullBackOff": "cannot be pulled",
    "ErrImageNeverPull": "is not on the node, and may not be pulled",
    "InvalidImageName": "is no name of an image",
}
_BROKEN = ("CreateContainerError", "CreateContainerConfigError", "RunContainerError")
_DETAILS = re.compile(r" \((?:[^()]|\([^()]*\))*\)")  # which container has what of it
_VIOLATES = re.compile(r'violates PodSecurity "([^"]+)"')
MORE_RIGHTS = {
    "netadmin": "the same command with --profile sysadmin, which makes the agents' pods privileged",
    "sysadmin": "the agent's pod is privileged already: look at SELinux and seccomp on the node",
}
OTHER_IMAGE = "give --image with one that the node can have; any with Python 3.11 will do"


class AgentContainer(Protocol):
    """A container that an agent can be started in.

    rights: how an agent in it could have more of them
    """

    name: str
    rights: str

    def create(self) -> None: ...

    def look(self) -> str:
        """What it waits for; empty: it runs. Raises CannotLook if it never will, or has ended."""

    def exec(self, command: Sequence[str]) -> ExecStream: ...

    def remove(self) -> None: ...


class AgentPod:
    """A pod of our own on a node."""

    def __init__(
        self, client: Client, terms: AgentPodOptions, run: str, number: int, node: str
    ) -> None:
        self._client, self._terms, self._node = client, terms, node
        self._manifest = pod(terms, run, number, node)
        self._begun = False
        self.name = f"{terms.namespace}/{self._manifest['metadata']['name']}"
        self.rights = MORE_RIGHTS[terms.profile]

    @property
    def _path(self) -> str:
        return path("pods", self._terms.namespace, self._manifest["metadata"]["name"])

    def create(self) -> None:
        self._begun = True
        try:
            self._client.post(path("pods", self._terms.namespace), self._manifest)
        except ApiError as refusal:
            self._begun = refusal.code >= 500  # else there is none, and nothing to remove
            raise admission_error(refusal, self._terms.namespace) from None

    def look(self) -> str:
        try:
            pod_object = decoded(self._client.get(self._path))
        except ApiError as refusal:
            if refusal.code == 404:
                raise AgentError(f"the agent's pod {self.name} was deleted by somebody") from None
            raise
        return state(pod_object, self.name, self._node, self._terms.image)

    def exec(self, command: Sequence[str]) -> ExecStream:
        return self._client.exec(self._path, CONTAINER, command)

    def remove(self) -> None:
        if not self._begun or self._terms.keep:
            return
        try:
            self._client.delete(self._path)
        except ApiError as refusal:
            if refusal.code != 404:
                raise


class EphemeralAgentContainer:
    """A container of ours in a pod that is there already: it shares the pod's network namespace and
    sees nothing else of the node.
    """

    def __init__(self, client: Client, terms: AgentPodOptions, run: str, key: str) -> None:
        """``key``: of the pod, ``namespace/name``."""
        self._client, self._terms, self.name = client, terms, key
        self.rights = "only an agent's own pod on the node has it"
        self._container = ephemeral(terms, run)
        self._path = path("pods", *key.split("/", 1))
        self._channel: ExecStream | None = None

    def create(self) -> None:
        added = {"spec": {"ephemeralContainers": [self._container]}}
        try:
            self._client.patch(f"{self._path}/ephemeralcontainers", added)
        except ApiError as refusal:
            namespace = self.name.partition("/")[0]
            raise admission_error(refusal, namespace, f"a container in pod {self.name}") from None

    def look(self) -> str:
        pod_object = decoded(self._client.get(self._path))
        for status_item in pod_object.get("status", {}).get("ephemeralContainerStatuses") or ():
            if status_item.get("name") == self._container["name"]:
                status = {"phase": "Running", "containerStatuses": [status_item]}
                if status_item.get("state", {}).get("terminated"):
                    status["phase"] = "Failed"
                alone = {"metadata": pod_object.get("metadata", {}), "status": status}
                node = pod_object.get("spec", {}).get("nodeName", "")
                return state(alone, self.name, node, self._terms.image)
        return "the kubelet has not taken it up"

    def exec(self, command: Sequence[str]) -> ExecStream:
        self._channel = self._client.exec(self._path, self._container["name"], command)
        return self._channel

    def remove(self) -> None:
        """What waits in it ends; that it was there the pod's status goes on telling."""
        if self._channel is None:
            return
        kill = ("python3", "-c", "import os; os.kill(1, 15)")
        channel = self._client.exec(self._path, self._container["name"], kill)
        for _ in channel.frames():
            pass
        channel.close()


def state(pod_object: dict[str, Any], name: str, node: str, image: str) -> str:
    """What the pod still waits for; empty: it runs."""
    metadata, status = pod_object.get("metadata", {}), pod_object.get("status", {})
    if metadata.get("deletionTimestamp"):
        raise AgentError(f"the agent's pod {name} is being deleted by somebody")
    if status.get("phase") in ("Failed", "Succeeded"):
        raise _ended(status, name, node, image)
    for status_item in status.get("containerStatuses", ()):
        waiting = status_item.get("state", {}).get("waiting")
        if waiting:
            return _waiting(waiting, name, node, image)
        if status_item.get("state", {}).get("running"):
            return ""
    return _unready(status) or "the kubelet has not taken it up"


def _unready(status: dict[str, Any]) -> str:
    for status_item in status.get("conditions", ()):
        if status_item.get("type") == "PodScheduled" and status_item.get("status") != "True":
            return str(status_item.get("message", ""))
    return ""


def _waiting(waiting: dict[str, str], name: str, node: str, image: str) -> str:
    reason, message = waiting.get("reason", ""), waiting.get("message", "")
    if reason in _HOPELESS:
        text = f"the image {image} {_HOPELESS[reason]} on {node}"
        raise UnsupportedError(f"{text}: {message}" if message else text, OTHER_IMAGE)
    if reason in _BROKEN:
        raise UnsupportedError(
            f"the agent's pod {name} cannot start: {message or reason}", OTHER_IMAGE
        )
    return reason


def _ended(status: dict[str, Any], name: str, node: str, image: str) -> ObservationError:
    reason, message = status.get("reason", ""), status.get("message", "")
    if reason == "Evicted":
        return AgentError(
            f"the agent's pod {name} was evicted from {node}: {message}",
            "the node is short of something: see `kubectl describe node " + node + "`",
        )
    if reason == "DeadlineExceeded":
        return AgentError(f"the agent's pod {name} came to its deadline and ended")
    for status_item in status.get("containerStatuses", ()):
        ended = status_item.get("state", {}).get("terminated") or {}
        if ended.get("reason") in ("StartError", "ContainerCannotRun"):
            return UnsupportedError(
                f"the image {image} has no program `sleep`: {ended.get('message', '')}", OTHER_IMAGE
            )
        if ended:
            message = message or f"{ended.get('reason', '')} (exit code {ended.get('exitCode')})"
            if ended.get("reason") == "OOMKilled":
                message = "it needed more memory than its limit"
    return AgentError(f"the agent's pod {name} ended on {node}: {message or reason or 'no word'}")


def admission_error(
    refusal: ApiError, namespace: str, what: str = "the agent's pod"
) -> ObservationError:
    """Why the API server does not take a pod; a lack of permissions stays a Refusal."""
    violated = _VIOLATES.search(str(refusal))
    if violated:
        why = _DETAILS.sub("", str(refusal).partition(": ")[2])
        return PermissionDeniedError(
            f"Pod Security of namespace {namespace} refuses {what}: {why}",
            "choose a namespace that allows it, as in --agent-namespace kube-system; or let this "
            f"one: kubectl label namespace {namespace} "
            "pod-security.kubernetes.io/enforce=privileged --overwrite",
        )
    if refusal.code == 404:
        return NotFoundError(
            f"no namespace {namespace} to start agents in",
            "name one that there is: --agent-namespace NAME",
        )
    if refusal.code == 403 and not is_rbac_denial(refusal):
        return PermissionDeniedError(f"the API server refuses {what}: {refusal}")
    return refusal
