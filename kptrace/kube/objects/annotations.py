"""What a node's annotations tell of its network, where nothing of the node itself was read. Pure.

In: a Node. Out: the Network as a report names it, or None. The programs of these networks write
such annotations for each other (Flannel pkg/subnet/kube, Calico's node startup, Cilium
pkg/annotation, OVN-Kubernetes pkg/util, kube-router pkg/controllers/routing), and leave them when
they go: so it is said what was seen.
"""

from __future__ import annotations

from kptrace.model import DetectedNetwork, Node

FLANNEL = "flannel.alpha.coreos.com/backend-type"
SIGNS = (
    (FLANNEL, "Flannel"),
    ("projectcalico.org/", "Calico"),
    ("network.cilium.io/", "Cilium"),
    ("io.cilium.network.", "Cilium"),
    ("k8s.ovn.org/", "OVN-Kubernetes"),
    ("kube-router.io/", "kube-router"),
    ("node.antrea.io/", "Antrea"),
)
_BACKENDS = {"vxlan": "VXLAN", "ipip": "IPIP", "wireguard": "WireGuard", "udp": "UDP"}


def network_of(node: Node) -> DetectedNetwork | None:
    for prefix, name in SIGNS:
        for key, value in node.annotations:
            if key.startswith(prefix):
                backend = f" ({_BACKENDS.get(value, value)})" if prefix == FLANNEL else ""
                return DetectedNetwork(
                    node=node.name, name=f"{name}{backend}", signal=f"annotation {key}"
                )
    return None
