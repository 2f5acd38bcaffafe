"""Every kind of Service, and what a plain connection to it must come to, by hand.

The Services ``remote-*`` have one pod, on node-b: ``client-b`` asks from the same node, ``client``
from the other one. Sources of what is not obvious:

- ``internalTrafficPolicy: Local`` drops where the node has no pod of its own, it does not refuse
  (proxy/topology.go; "no local endpoints" in the iptables and nftables proxiers)
- a pod that asks its own node's port is within the cluster, so ``externalTrafficPolicy: Local``
  does not hold for it (KUBE-EXT: "pod traffic for ... external destinations"); at another node's
  port it arrives with its own node's address, as from outside, and the policy holds
- a Service without endpoints is rejected with an ICMP error, which a program sees as refused
"""

from __future__ import annotations

from dataclasses import dataclass

from cluster.ground.connection import Outcome

NODE_A, NODE_B = "NODE-A", "NODE-B"  # become the nodes' addresses
EVERYWHERE = ("node-a", "node-b")
OTHER, SAME = "client", "client-b"


@dataclass(frozen=True)
class Row:
    """``nodes``: where whoever answers may be; the outside has none."""

    url: str
    source: str
    outcome: Outcome = "answered"
    nodes: tuple[str, ...] = ("node-b",)

    def __str__(self) -> str:
        return f"{self.url.partition('://')[2]} from {self.source}"


def both(url: str, nodes: tuple[str, ...] = ("node-b",)) -> list[Row]:
    return [Row(url, SAME, nodes=nodes), Row(url, OTHER, nodes=nodes)]


ROWS = [
    *both("http://remote"),
    *both("http://remote-headless:8080"),
    *both("http://remote-sticky"),
    *both(f"http://{NODE_A}:30082"),
    *both(f"http://{NODE_B}:30082"),
    Row(f"http://{NODE_A}:30083", OTHER),
    Row(f"http://{NODE_A}:30083", SAME, "timed out"),
    *both(f"http://{NODE_B}:30083"),
    *both("http://203.0.113.11"),
    *both("http://remote6"),
    *both("http://remote-dual"),
    *both("udp://remote-echo:7"),
    *both(f"udp://{NODE_A}:30084"),
    *both(f"udp://{NODE_B}:30084"),
    Row("http://remote-local", SAME),
    Row("http://remote-local", OTHER, "timed out"),
    *both("http://web", EVERYWHERE),
    *both("http://web:9090", EVERYWHERE),
    *both("http://near", ("node-a",)),
    *both("udp://echo:7", EVERYWHERE),
    Row("http://local", SAME, nodes=("node-b",)),
    Row("http://local", OTHER, nodes=("node-a",)),
    Row("http://self", OTHER, nodes=("node-a",)),
    Row("http://self", SAME, nodes=("node-a",)),
    Row("http://empty", SAME, "refused"),
    Row("http://empty", OTHER, "refused"),
    *both("http://no-selector", ("",)),
    *both("http://elsewhere", ("",)),
    Row("http://nobody", OTHER, "unresolved"),
    Row(f"http://{NODE_A}:30080", "outside", nodes=EVERYWHERE),
    Row(f"http://{NODE_A}:30082", "outside"),
    Row(f"udp://{NODE_A}:30084", "outside"),
    Row(f"http://{NODE_B}:30083", "outside"),
    Row(f"http://{NODE_A}:30083", "outside", "timed out"),
    Row("http://203.0.113.10", "outside", nodes=EVERYWHERE),
]
