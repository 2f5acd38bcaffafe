"""kube-router: bridge ``kube-bridge``, its own IPVS on ``kube-dummy-if``, policies a pod chain.

Routes come by BGP; nodes of another subnet are reached by ``tun-*`` IPIP devices. Its chains alone
(``KUBE-ROUTER-*``, ``KUBE-NWPLCY-*``) tell nothing of the network: k3s has them on Flannel.
"""

from __future__ import annotations

from collections.abc import Mapping

from kptrace.plugins.registry import DetectedCni
from kptrace.simulate.snapshot.snapshot import Snapshot
from kptrace_plugins import signs

name = "kube-router"

LIMITS = (
    "routes come by BGP: why one is missing, only its peers know (`gobgp global rib` in its pod)",
    "Services with DSR (kube-router.io/service.dsr): the pod answers by itself, past this node",
)


def wants() -> tuple[str, ...]:
    return ()


def detect(node: Snapshot, files: Mapping[str, str]) -> DetectedCni | None:
    bridge = signs.links(node, "kube-bridge")
    service = signs.links(node, "kube-dummy-if")
    if not bridge and not service:
        return None
    return DetectedCni(
        name="kube-router",
        sure=0.9,
        signal=", ".join(f"device {link.name}" for link in (*bridge, *service)),
        proxy="kube-router (IPVS)" if service else "",
        limits=LIMITS,
    )
