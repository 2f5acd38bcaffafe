"""kube-proxy's mode and flannel's backend: chosen at the start, changed while the cluster runs.

A change is what an administrator would do: stop the daemon, let kube-proxy take its own rules away
(``--cleanup``), remove what flannel and the others wrote with the variant of iptables that is no
longer in use, and start the daemon with its new settings. Kubelet's and flannel's rules come back
by themselves; those of the portmap plugin come back with the next pod.
"""

from __future__ import annotations

import time

from cluster.ground.machine import BIN
from cluster.ground.node import FLANNEL_HEALTH, Node
from cluster.ground.plan import Backend, NotPossible, Proxy

SECONDS = 60
TABLES = ("filter", "nat", "mangle", "raw")
FLUSH = """\
for family in iptables ip6tables; do
    for table in $(cat "/proc/net/${family%%tables}_tables_names"); do
        $family-legacy -t $table -F && $family-legacy -t $table -X
        $family-legacy -t $table -S | sed -n 's/^-P \\([A-Z]*\\) .*/\\1/p' |
            while read -r chain; do $family-legacy -t $table -P "$chain" ACCEPT; done
    done
done
nft flush ruleset
"""


def start(node: Node, proxy: Proxy, backend: Backend) -> None:
    node.choose(proxy, backend)
    for daemon in ("flanneld", "kube-proxy"):
        node.start(daemon)


def change(node: Node, proxy: Proxy, backend: Backend) -> None:
    """The node with the other mode; its pods stay as they are."""
    for daemon in ("kube-proxy", "flanneld"):
        node.stop(daemon)
    node.machine.attempt(f"{BIN}/kube-proxy", "--cleanup")
    node.machine.run("sh", "-c", FLUSH)
    for link in ("flannel.1", "flannel-v6.1"):
        node.machine.attempt("ip", "link", "delete", link)
    # host-gw's routes stand on the underlay's interface and outlive it
    for family, network in (("-4", "10.244.0.0/16"), ("-6", "fd00:10:244::/48")):
        node.machine.attempt("ip", family, "route", "flush", "root", network, "dev", "eth0")
    node.machine.run("rm", "-f", "/run/flannel/subnet.env")
    start(node, proxy, backend)


def wait(node: Node, proxy: Proxy, backend: Backend) -> None:
    """Until flanneld says that it is ready and kube-proxy has written its rules."""
    until = time.monotonic() + SECONDS
    while missing := _missing(node, proxy, backend):
        daemon, what = missing
        if time.monotonic() > until or not node.machine.runs(daemon):
            said = node.machine.log(daemon)
            raise NotPossible(f"{node.name}: {daemon} has not {what}\n{said}")
        time.sleep(0.2)


def _missing(node: Node, proxy: Proxy, backend: Backend) -> tuple[str, str] | None:
    ready = node.machine.attempt("curl", "-sf", f"http://127.0.0.1:{FLANNEL_HEALTH}/readyz")
    if ready.returncode:
        return "flanneld", f"made a network of {backend}"
    rules = "nft list tables" if proxy == "nftables" else "iptables-save -t nat"
    sign = "kube-proxy" if proxy == "nftables" else "KUBE-SERVICES"
    if sign not in node.machine.attempt(*rules.split()).stdout:
        return "kube-proxy", f"written its rules for {proxy}"
    return None
