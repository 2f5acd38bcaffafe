"""A plain connection, as an application would make it: where from and where to in, what came of it
out. What a trace says is measured by this.

``curl`` and ``nc`` make it, in a pod or on a machine; the servers answer who they are.
"""

from __future__ import annotations

import re
import subprocess
from dataclasses import dataclass
from typing import Literal

from cluster.ground.cluster import Cluster

Outcome = Literal["answered", "refused", "timed out", "unresolved"]
SECONDS = "3"
# curl(1), EXIT CODES
CURL: dict[int, Outcome] = {0: "answered", 6: "unresolved", 7: "refused", 28: "timed out"}
TOLD = re.compile(r"pod=(?P<pod>\S*) node=(?P<node>\S*) from=(?P<source>\S+)(?: (?P<said>.*))?")
# nc ends well, and silently, whether there was an answer or not
UDP = 'printf "%s" ask | nc -u -w "$3" -W 1 "$1" "$2"'


@dataclass(frozen=True)
class Answer:
    """``pod`` and ``node``: who answered; ``source``: where the question came from, as it saw."""

    outcome: Outcome
    pod: str = ""
    node: str = ""
    source: str = ""


def from_pod(cluster: Cluster, pod: str, url: str, namespace: str = "shop") -> Answer:
    """``http://HOST[:PORT]`` or ``udp://HOST:PORT``, as the pod's resolver knows HOST."""
    exec_in = ("exec", "-n", namespace, pod, "--", *command(url))
    return _answer(url, cluster.kubectl.attempt(*exec_in))


def from_outside(cluster: Cluster, url: str) -> Answer:
    """From the network that the nodes stand in, on no node."""
    return _answer(url, cluster.control.machine.attempt(*command(url)))


def from_node(cluster: Cluster, node: str, url: str) -> Answer:
    return _answer(url, cluster.nodes[node].machine.attempt(*command(url)))


def command(url: str) -> tuple[str, ...]:
    scheme, _, where = url.partition("://")
    if scheme == "udp":
        host, _, port = where.rpartition(":")
        return ("sh", "-c", UDP, "sh", host.strip("[]"), port, SECONDS)
    return ("curl", "-sS", "--max-time", SECONDS, url)


def _answer(url: str, ended: subprocess.CompletedProcess[str]) -> Answer:
    told = TOLD.match(ended.stdout)
    if told:
        return Answer("answered", told["pod"], told["node"], told["source"])
    if url.startswith("udp:"):
        return Answer("timed out")
    outcome = CURL.get(ended.returncode)
    if outcome is None or outcome == "answered":
        said = ended.stderr or ended.stdout
        raise AssertionError(f"{url}: curl ended with {ended.returncode}: {said}")
    return Answer(outcome)
