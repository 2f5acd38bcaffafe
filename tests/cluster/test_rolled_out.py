"""A Service whose pods are replaced, one after the other and again and again, while one looks.

Nothing is broken then: pods that go take no trace along, and rules that kube-proxy is about to
write are not called missing or stale.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator

import pytest
from cluster.cli import Cli
from cluster.ground.cluster import Cluster

TIMES = 3
RESTART = ("rollout", "restart", "-n", "shop", "deployment/web", "deployment/echo")
RACED = {"stale-dnat", "endpoint-missing", "proxy-rules-missing"}


@pytest.fixture
def rolling(cluster: Cluster) -> Iterator[None]:
    over = threading.Event()

    def restart() -> None:
        while not over.is_set():
            cluster.kubectl(*RESTART)
            over.wait(2)

    restarting = threading.Thread(target=restart)
    restarting.start()
    try:
        yield
    finally:
        over.set()
        restarting.join()
        for name in ("web", "echo"):
            cluster.kubectl("rollout", "status", "-n", "shop", f"deployment/{name}")


def test_traces_come_to_an_end(cli: Cli, rolling: None) -> None:
    """With an answer, whichever pod they met: what they cannot see any more is said in it."""
    for _ in range(TIMES):
        told = cli("svc/web", "-n", "shop", "--from", "pod/client", "-o", "json")
        assert told.code in (0, 1, 4), told.err
        made = json.loads(told.out)
        assert made["kind"] == "Trace"
        assert made["hops"]


def test_what_is_about_to_be_written_is_not_missing(cli: Cli, rolling: None) -> None:
    for words in (("explain", "svc/web", "-n", "shop"), ("check",)):
        told = cli(*words, "-o", "json")
        assert told.code in (0, 1), told.err
        errors = [one for one in json.loads(told.out)["findings"] if one["severity"] == "error"]
        assert not RACED & {one["cause"] for one in errors}, errors
