"""kube-router: bridge ``kube-bridge``, its own IPVS on ``kube-dummy-if``, policies a pod chain.

Routes come by BGP; nodes of another subnet are reached by ``tun-*`` IPIP devices.
"""

from __future__ import annotations

from collections.abc import Mapping

from kptrace.cni import Recognised
from kptrace.walk.snapshot import Snapshot
from kptrace_plugins import signs

name = "kube-router"

CHAINS = ("KUBE-ROUTER-FORWARD", "KUBE-ROUTER-INPUT", "KUBE-NWPLCY-DEFAULT")


def wants() -> tuple[str, ...]:
    return ()


def detect(node: Snapshot, files: Mapping[str, str]) -> Recognised | None:
    bridge = signs.links(node, "kube-bridge")
    service = signs.links(node, "kube-dummy-if")
    chain = signs.chain(node, *CHAINS)
    if not bridge and not service and not chain:
        return None
    seen = [f"device {link.name}" for link in (*bridge, *service)]
    return Recognised(
        name="kube-router",
        sure=0.9 if bridge or service else 0.6,
        signal=", ".join([*seen, *([f"chain {chain}"] if chain else [])]),
        proxy="kube-router (IPVS)" if service else "",
    )
