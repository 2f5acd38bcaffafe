"""Which labs the kernel tier makes: every proxy mode and every network that this kernel can have.

Not the full product: a proxy mode and a network meet in NAT and nowhere else, so each mode has a
tunnel of Flannel's, and each other network one or two modes. IPVS, IPIP and the rest of the product
are User Mode Linux's (tests/uml), Cilium's networks stand in test_cilium.py.
"""

from __future__ import annotations

from support.rows import row

PAIRS = (
    ("iptables", "vxlan"),
    ("iptables-legacy", "vxlan"),
    ("nftables", "vxlan"),
    ("iptables-legacy", "host-gw"),
    ("iptables", "calico-vxlan"),
    ("nftables", "calico-vxlan"),
    ("iptables-legacy", "calico-direct"),
    ("nftables", "bridge"),
)
LABS = [row(*pair) for pair in PAIRS]
BRIDGED = ("vxlan", "host-gw", "bridge")
# the device that carries IPv4 to another node
TUNNELS = {"vxlan": "flannel.1", "calico-vxlan": "vxlan.calico"}
