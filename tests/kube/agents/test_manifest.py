"""The agent's pod, read as a security review would read it."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from kptrace.kube.agents.dry_run import dry_run
from kptrace.kube.agents.manifest import AgentPodOptions, pod
from kptrace.kube.client.permissions import to_act, to_read
from kptrace.model import Netns

TERMS = AgentPodOptions(namespace="tools", image="registry.example/kptrace:1")


@pytest.fixture
def made() -> dict[str, Any]:
    return pod(TERMS, "0a1b2c3d", 1, "node-a")


def test_it_runs_on_that_node_whatever_its_taints(made: dict[str, Any]) -> None:
    assert made["spec"]["nodeName"] == "node-a"
    assert made["spec"]["tolerations"] == [{"operator": "Exists"}]
    assert made["spec"]["hostNetwork"] is made["spec"]["hostPID"] is True


def test_it_has_no_more_rights_than_it_needs(made: dict[str, Any]) -> None:
    (container,) = made["spec"]["containers"]
    rights = container["securityContext"]
    assert "privileged" not in rights
    assert rights["capabilities"]["drop"] == ["ALL"]
    assert set(rights["capabilities"]["add"]) == {
        *("NET_ADMIN", "NET_RAW", "SYS_ADMIN", "SYS_PTRACE", "SYS_CHROOT", "BPF", "PERFMON")
    }
    assert made["spec"]["automountServiceAccountToken"] is False
    assert not {"volumes", "hostIPC", "serviceAccountName"} & set(made["spec"])
    assert not {"volumeMounts", "ports", "livenessProbe", "readinessProbe"} & set(container)


def test_it_ends_by_itself(made: dict[str, Any]) -> None:
    assert made["spec"]["activeDeadlineSeconds"] == 300
    assert made["spec"]["restartPolicy"] == "Never"
    assert made["spec"]["terminationGracePeriodSeconds"] == 2


def test_it_is_found_again(made: dict[str, Any]) -> None:
    labels = made["metadata"]["labels"]
    assert labels["app.kubernetes.io/managed-by"] == "kptrace"
    assert labels["kptrace.io/run"] == "0a1b2c3d"
    assert made["metadata"]["name"] == "kptrace-0a1b2c3d-1"


def test_it_asks_for_little_and_is_limited(made: dict[str, Any]) -> None:
    resources = made["spec"]["containers"][0]["resources"]
    assert resources["requests"] == {"cpu": "10m", "memory": "64Mi"}
    assert resources["limits"] == {"memory": "192Mi"}


def test_privileged_only_when_asked_for() -> None:
    made = pod(AgentPodOptions(namespace="tools", profile="sysadmin"), "r", 1, "a")
    assert made["spec"]["containers"][0]["securityContext"]["privileged"] is True


def test_a_dry_run_is_manifests() -> None:
    near = Netns(node="a", pod="shop/client")
    needs = (*to_read(["shop"]), *to_act("tools"))
    text = dry_run(TERMS, near, ("b", "c", "a"), needs)
    pages = list(yaml.safe_load_all(text))
    assert [page["kind"] for page in pages] == ["Pod", "Pod", "ClusterRole", "Role", "Role"]
    assert [page["spec"]["nodeName"] for page in pages[:2]] == ["a", "b"]
    assert "one of b, c" in text


def test_the_roles_hold_what_is_needed() -> None:
    pages = list(yaml.safe_load_all(dry_run(TERMS, Netns(node="a"), (), to_act("tools"))))
    assert pages[-1]["metadata"] == {"name": "kptrace", "namespace": "tools"}
    assert {"apiGroups": [""], "resources": ["pods/exec"], "verbs": ["create", "get"]} in pages[-1][
        "rules"
    ]
