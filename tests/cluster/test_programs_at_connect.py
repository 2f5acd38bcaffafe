"""A program on a pod's own cgroup chooses the backend at connect(): the probe meets it, too.

What a program in that pod meets is the judge.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from cluster.cli import Cli
from cluster.ground.cluster import Cluster
from support.reroute import reroute

from kptrace.agent.cgroup import mounted

NOWHERE = "192.0.2.1"  # RFC 5737


@pytest.fixture
def client(cluster: Cluster) -> Iterator[str]:
    """As pod client, with a program on its cgroup that goes with it."""
    top = mounted(Path("/proc/self/mountinfo").read_text())
    if not top:
        pytest.skip("this machine has no cgroup2")
    like = cluster.kubectl.json("get", "pod", "client", "-n", "shop")["spec"]
    container = {key: like["containers"][0][key] for key in ("name", "image", "imagePullPolicy")}
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "rerouted", "namespace": "shop"},
        "spec": {
            "nodeName": "node-a",
            "terminationGracePeriodSeconds": 0,
            "containers": [{**container, "command": ["sleep", "600"]}],
        },
    }
    cluster.kubectl("apply", "-f", "-", given=json.dumps(pod))
    try:
        cluster.kubectl("wait", "-n", "shop", "pod/rerouted", "--for=condition=Ready")
        made = cluster.kubectl.json("get", "pod", "rerouted", "-n", "shop")
        (group,) = Path(top).glob(
            f"{cluster.plan.nodes[0].cgroup}/kubepods/*/pod{made['metadata']['uid']}"
        )
        service = cluster.kubectl.json("get", "svc", "remote", "-n", "shop")
        reroute(group, NOWHERE, service["spec"]["clusterIP"])
        yield "rerouted"
    finally:
        cluster.kubectl("delete", "pod", "rerouted", "-n", "shop", "--wait=false")


def test_the_probe_meets_what_the_pod_meets(cluster: Cluster, client: str) -> None:
    try:
        met = cluster.kubectl(
            *("exec", "-n", "shop", client, "--"), *("curl", "-s", "-m", "5", f"http://{NOWHERE}")
        )
    except subprocess.CalledProcessError as error:
        pytest.fail(f"the program does not work: {error}")
    assert "pod=remote-" in met
    told = Cli(cluster)(f"{NOWHERE}:80", "-n", "shop", "--from", f"pod/{client}", "-o", "json")
    assert told.code == 0, told.err
    trace = told.trace
    assert trace["outcome"] == "delivered"
    assert not [one for one in trace["evidence"]["sources"] if one["unavailable"]]
    other = Cli(cluster)(
        *(f"{NOWHERE}:80", "-n", "shop", "--from", "pod/client", "--timeout", "1"), "-o", "json"
    )
    assert other.trace["outcome"] != "delivered"  # in that one no program is
