"""From Enter to the verdict, beside what a pod that does nothing takes on the same cluster.

What comes out is told at the end of the run. No time is asserted: how busy the machine is decides
more than either program. That each run did what it should is.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

from cluster.cli import Cli
from cluster.ground.cluster import Cluster

ROUNDS = 5
TRACED = ("web", "remote")  # three pods, on both nodes; one pod, on the other node
SAID = "from Enter to verdict, median of {rounds}, proxy {proxy}: {told}; {idle} {base:.2f} s"


def test_the_time_to_a_verdict_beside_that_of_a_trivial_pod(
    cluster: Cluster, tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    kubectl = Cli(cluster).as_plugin(tmp_path)
    client = cluster.kubectl.json("get", "pod", "client", "-n", "shop")
    image = client["spec"]["containers"][0]["image"]

    def trace(name: str, _: int) -> None:
        told = kubectl("kptrace", f"svc/{name}", "-n", "shop", "--from", "pod/client")
        assert told.code == 0, told.err
        assert "DELIVERED" in told.out

    def idle(_: str, turn: int) -> None:
        words = ("--rm", "-i", "--restart=Never", f"--image={image}", "--image-pull-policy=Never")
        pod = f"idle-{os.getpid()}-{turn}"
        told = kubectl("run", pod, "-n", "shop", *words, "--command", "--", "true")
        assert told.code == 0, told.err

    ways = {**dict.fromkeys(TRACED, trace), "": idle}
    taken: dict[str, list[float]] = {name: [] for name in ways}
    for turn in range(ROUNDS):
        for name, run in ways.items():  # in turns: what else the machine does slows all of them
            begun = time.monotonic()
            run(name, turn)
            taken[name].append(time.monotonic() - begun)
    base = median(taken[""])
    told = ", ".join(
        f"kubectl kptrace svc/{name} {median(taken[name]):.2f} s "
        f"({median(taken[name]) / base:.2f} times)"
        for name in TRACED
    )
    said = SAID.format(
        rounds=ROUNDS, proxy=cluster.proxy, told=told, idle="kubectl run --rm", base=base
    )
    record_property("told", said)
    assert Cli(cluster).left() == []
