"""The roles that are shipped, given to somebody who may nothing else."""

from __future__ import annotations

from pathlib import Path

from cluster.cli import ROOT, Cli
from cluster.ground.cluster import Cluster

RBAC = Path(ROOT, "plugins", "kubectl", "rbac.yaml")


def test_who_has_the_two_roles_can_trace(cluster: Cluster) -> None:
    kubectl = cluster.kubectl
    user = Cli(cluster, cluster.user("oncall"))
    kubectl("apply", "-f", RBAC)
    try:
        role = ("--clusterrole=kptrace-read", "--user=oncall")
        kubectl("create", "clusterrolebinding", "oncall", *role)
        told = user("svc/remote", "-n", "shop", "--from", "pod/client")
        assert (told.code, told.err) == (4, "")
        words = " ".join(told.out.split())
        assert "oncall is not allowed to: create pods in namespace shop" in words
        assert "get services" not in words
        assert "not allowed to read them" not in words  # whatever the API alone can tell is read
        role = ("--clusterrole=kptrace-act", "--user=oncall")
        kubectl("create", "rolebinding", "-n", "shop", "oncall", *role)
        told = user("svc/remote", "-n", "shop", "--from", "pod/client")
        assert told.code == 0, told.err
        assert Cli(cluster).left() == []
    finally:
        kubectl("delete", "clusterrolebinding", "oncall", "--ignore-not-found")
        kubectl("delete", "rolebinding", "-n", "shop", "oncall", "--ignore-not-found")
        kubectl("delete", "-f", RBAC)
