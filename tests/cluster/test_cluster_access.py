"""Who may do what: RBAC and Pod Security decide, as later tests of permissions assume."""

from __future__ import annotations

import json

from cluster.ground.cluster import Cluster
from cluster.ground.workloads import Kubectl

ROLE = {
    "apiVersion": "rbac.authorization.k8s.io/v1",
    "kind": "Role",
    "metadata": {"name": "reader", "namespace": "shop"},
    "rules": [{"apiGroups": [""], "resources": ["services"], "verbs": ["get"]}],
}


def test_a_user_may_do_what_a_role_says_and_no_more(cluster: Cluster) -> None:
    reader = Kubectl(cluster.binaries, cluster.user("reader"))
    refused = reader.attempt("get", "service", "web")
    assert refused.returncode == 1
    assert 'User "reader" cannot get resource "services"' in refused.stderr
    cluster.kubectl("apply", "-f", "-", given=json.dumps(ROLE))
    binding = ("rolebinding", "reader", "-n", "shop")
    cluster.kubectl("create", *binding, "--role=reader", "--user=reader")
    try:
        assert reader.json("get", "service", "web")["metadata"]["name"] == "web"
        assert reader.attempt("get", "services").returncode == 1
    finally:
        cluster.kubectl("delete", *binding)
        cluster.kubectl("delete", "role", "reader", "-n", "shop")


def test_a_namespace_can_refuse_privileged_pods(cluster: Cluster) -> None:
    name = "guarded"
    cluster.kubectl("create", "namespace", name)
    try:
        cluster.kubectl("label", "namespace", name, "pod-security.kubernetes.io/enforce=baseline")
        refused = cluster.kubectl.attempt(
            *("run", "wide-open", "-n", name, "--privileged"),
            "--image=localhost/kptrace/client:test",
        )
        assert refused.returncode == 1
        assert 'violates PodSecurity "baseline:latest"' in refused.stderr
    finally:
        cluster.kubectl("delete", "namespace", name, "--wait=false")
