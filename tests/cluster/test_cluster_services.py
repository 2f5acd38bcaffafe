"""The ground itself: every kind of Service does, by each kube-proxy, what Kubernetes promises."""

from __future__ import annotations

import pytest
from cluster.ground.cluster import Cluster
from cluster.ground.connection import Answer, from_outside, from_pod
from cluster.kinds import NODE_A, NODE_B, ROWS, Row


def ask(cluster: Cluster, row: Row) -> Answer:
    first, second = cluster.plan.nodes
    url = row.url.replace(NODE_A, first.addresses[0]).replace(NODE_B, second.addresses[0])
    if row.source == "outside":
        return from_outside(cluster, url)
    return from_pod(cluster, row.source, url)


@pytest.mark.parametrize("row", ROWS, ids=str)
def test_a_plain_connection(proxied: Cluster, row: Row) -> None:
    answer = ask(proxied, row)
    assert answer.outcome == row.outcome
    if row.outcome == "answered":
        assert answer.node in row.nodes
