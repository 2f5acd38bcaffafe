"""The cluster tier: a real Kubernetes, built and started when the first test asks for it.

``KPTRACE_CLUSTER=dev`` takes a cluster that is up (``make cluster``) and leaves it so: what was
changed in it is then there after the tests. Otherwise a session has its own, and a session that was
killed is cleaned up after by the next one.

A tier that cannot run must not look like one that passed: without root, or where the ground cannot
be made, its tests are skipped with the reason; with ``CI=true`` they fail.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from cluster.cli import LABEL, Cli
from cluster.ground import home, leftovers, packages
from cluster.ground.cluster import Cluster
from cluster.ground.plan import PROXIES, Backend, NotPossible, Proxy

HERE = Path(__file__).parent
OURS = "test-"
TEST_SECONDS = 300


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.cluster)
            if item.get_closest_marker("timeout") is None:
                # the first test's fixture builds Kubernetes
                item.add_marker(pytest.mark.timeout(TEST_SECONDS, func_only=True))


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    """With kube-proxy in iptables mode on nft, flannel with VXLAN, and the shop's pods ready."""
    chosen = os.environ.get("KPTRACE_CLUSTER")
    try:
        if chosen:
            yield Cluster.found(chosen)
            return
        clear_abandoned()
        packages.install()
        made = Cluster.up(f"{OURS}{os.getpid()}")
    except NotPossible as error:
        cannot(str(error))
    try:
        yield made
    finally:
        made.down()


@pytest.fixture
def cli(cluster: Cluster) -> Iterator[Cli]:
    """It leaves nothing in the cluster."""
    made = Cli(cluster)
    yield made
    left = made.left()
    cluster.kubectl("delete", "pods", "-A", "-l", LABEL, "--wait=false")
    assert left == []


def cannot(why: str) -> None:
    said = f"no cluster can stand here: {why}"
    if os.environ.get("CI") == "true":
        pytest.fail(said, pytrace=False)
    pytest.skip(said)


def clear_abandoned() -> None:
    """Take down the clusters of sessions that were killed."""
    for name in home.known():
        owner = name.removeprefix(OURS).split("-")[0]
        if name.startswith(OURS) and owner.isdigit() and not Path("/proc", owner).exists():
            with suppress(NotPossible):
                leftovers.remove(name)


@pytest.fixture(scope="session")
def begun(cluster: Cluster) -> tuple[Proxy, Backend]:
    return cluster.proxy, cluster.backend


@pytest.fixture(scope="module", autouse=True)
def as_begun(cluster: Cluster, begun: tuple[Proxy, Backend]) -> None:
    """No module finds the mode in which another has left the cluster."""
    if (cluster.proxy, cluster.backend) != begun:
        cluster.change(*begun)


@pytest.fixture(scope="module", params=PROXIES)
def proxied(request: pytest.FixtureRequest, cluster: Cluster, as_begun: None) -> Cluster:
    """The cluster with each mode of kube-proxy in turn."""
    if cluster.proxy != request.param:
        cluster.change(request.param)
    return cluster
