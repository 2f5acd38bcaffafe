"""A node: containerd, the kubelet, flanneld and kube-proxy, each started as on a real one.

Its files lie where a real node has them: ``/etc/cni/net.d``, ``/opt/cni/bin``,
``/var/lib/kubelet``, ``/run/containerd/containerd.sock``, ``/run/flannel/subnet.env``.
``notes`` on what a machine without all capabilities needs:

- runc cannot lower ``oom_score_adj`` without CAP_SYS_RESOURCE: ``restrict_oom_score_adj``
- conntrack's table size cannot be set in a network namespace: kube-proxy is told to leave it
- memory that looks like a disk is small: the kubelet must not evict for it
"""

from __future__ import annotations

import json
from collections.abc import Callable

from cluster.ground import certificates
from cluster.ground.machine import BIN, CLUSTER, Machine
from cluster.ground.plan import DNS_SERVICE, POD_NETWORK, Backend, NodePlan, Plan, Proxy

PKI = f"{CLUSTER}/pki"
SOCKET = "/run/containerd/containerd.sock"
PAUSE_IMAGE = "localhost/kptrace/pause:test"
CNI_PLUGINS = "/usr/lib/cni"
FLANNEL_HEALTH = 10245

CONTAINERD = f"""\
version = 2
root = "/var/lib/containerd"
state = "/run/containerd"
disabled_plugins = [
  "io.containerd.internal.v1.opt", "io.containerd.snapshotter.v1.btrfs",
  "io.containerd.snapshotter.v1.zfs", "io.containerd.snapshotter.v1.aufs",
  "io.containerd.snapshotter.v1.devmapper", "io.containerd.tracing.processor.v1.otlp",
]
[grpc]
  address = "{SOCKET}"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{PAUSE_IMAGE}"
  disable_apparmor = true
  restrict_oom_score_adj = true
  [plugins."io.containerd.grpc.v1.cri".containerd]
    snapshotter = "overlayfs"
    default_runtime_name = "runc"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
      runtime_type = "io.containerd.runc.v2"
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "/opt/cni/bin"
    conf_dir = "/etc/cni/net.d"
"""
# kube-flannel.yml's
CNI = {
    "name": "cbr0",
    "cniVersion": "0.3.1",
    "plugins": [
        {"type": "flannel", "delegate": {"hairpinMode": True, "isDefaultGateway": True}},
        {"type": "portmap", "capabilities": {"portMappings": True}},
    ],
}
XTABLES = (
    "iptables",
    "iptables-save",
    "iptables-restore",
    "ip6tables",
    "ip6tables-save",
    "ip6tables-restore",
)
# /usr/sbin/iptables is a link to /etc/alternatives/iptables, as `update-alternatives` sets it
CHOOSE = """\
set -e
variant=$1; shift
for name; do
    family=${name%%tables*}tables
    ln -sfn "/usr/sbin/$family-$variant${name#"$family"}" "/etc/alternatives/$name"
done
"""


class Node:
    def __init__(self, plan: Plan, node: NodePlan, machine: Machine) -> None:
        self.plan = plan
        self.node = node
        self.machine = machine
        self.name = node.role
        self.starters: dict[str, Callable[[], None]] = {
            "containerd": self._containerd,
            "kubelet": self._kubelet,
            "flanneld": self._flanneld,
            "kube-proxy": self._kube_proxy,
        }

    def prepare(self) -> None:
        """What lies on its disk before anything runs."""
        self.machine.run(
            *("sh", "-c", 'mkdir -p /opt/cni/bin && ln -s "$1"/* "$2"/flannel /opt/cni/bin/'),
            *("sh", CNI_PLUGINS, BIN),
        )
        self.machine.write("/etc/cni/net.d/10-flannel.conflist", json.dumps(CNI))
        self.machine.write("/etc/containerd/config.toml", CONTAINERD)
        self.machine.write("/var/lib/kubelet/config.yaml", json.dumps(self._kubelet_settings()))

    def start(self, name: str) -> None:
        """One of its daemons; it must not run."""
        self.starters[name]()

    def stop(self, name: str) -> None:
        self.machine.stop(name)

    def choose(self, proxy: Proxy, backend: Backend) -> None:
        """Write down how kube-proxy and flanneld are to work when they start next."""
        variant = "legacy" if proxy == "iptables-legacy" else "nft"
        self.machine.run("sh", "-c", CHOOSE, "sh", variant, *XTABLES)
        mode = "nftables" if proxy == "nftables" else "iptables"
        self.machine.write("/var/lib/kube-proxy/config.conf", json.dumps(self._proxy(mode)))
        self.machine.write("/etc/kube-flannel/net-conf.json", json.dumps(_flannel(backend)))

    def _containerd(self) -> None:
        self.machine.daemon(
            "containerd", ["/usr/bin/containerd", "--config", "/etc/containerd/config.toml"]
        )

    def _kubelet(self) -> None:
        addresses = ",".join(self.node.addresses)
        self.machine.daemon(
            "kubelet",
            [
                f"{BIN}/kubelet",
                "--config=/var/lib/kubelet/config.yaml",
                f"--kubeconfig={PKI}/{certificates.kubelet(self.name).file}.kubeconfig",
                f"--hostname-override={self.name}",
                f"--node-ip={addresses}",
            ],
        )

    def _flanneld(self) -> None:
        self.machine.daemon(
            "flanneld",
            [
                f"{BIN}/flanneld",
                "--kube-subnet-mgr",
                f"--kubeconfig-file={PKI}/{certificates.FLANNEL.file}.kubeconfig",
                "--net-config-path=/etc/kube-flannel/net-conf.json",
                "--iface=eth0",
                "--ip-masq",
                "--healthz-ip=127.0.0.1",
                f"--healthz-port={FLANNEL_HEALTH}",
            ],
            {"NODE_NAME": self.name},
        )

    def _kube_proxy(self) -> None:
        self.machine.daemon(
            "kube-proxy", [f"{BIN}/kube-proxy", "--config=/var/lib/kube-proxy/config.conf"]
        )

    def _kubelet_settings(self) -> dict[str, object]:
        return {
            "apiVersion": "kubelet.config.k8s.io/v1beta1",
            "kind": "KubeletConfiguration",
            "authentication": {
                "anonymous": {"enabled": False},
                "webhook": {"enabled": True},
                "x509": {"clientCAFile": f"{PKI}/ca.crt"},
            },
            "authorization": {"mode": "Webhook"},
            "cgroupDriver": "cgroupfs",
            "cgroupRoot": f"/{self.node.cgroup}",
            "clusterDNS": [DNS_SERVICE],
            "clusterDomain": "cluster.local",
            "containerRuntimeEndpoint": f"unix://{SOCKET}",
            "enforceNodeAllocatable": [],
            "evictionHard": {"memory.available": "1Mi", "nodefs.available": "1%"},
            "failCgroupV1": False,
            "failSwapOn": False,
            "imageGCHighThresholdPercent": 100,
            "localStorageCapacityIsolation": False,
            "nodeLeaseDurationSeconds": 20,
            "nodeStatusUpdateFrequency": "5s",
            "resolvConf": "/etc/resolv.conf",
        }

    def _proxy(self, mode: str) -> dict[str, object]:
        return {
            "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
            "kind": "KubeProxyConfiguration",
            "mode": mode,
            "hostnameOverride": self.name,
            "clusterCIDR": ",".join(POD_NETWORK),
            "clientConnection": {
                "kubeconfig": f"{PKI}/{certificates.PROXY.file}.kubeconfig",
            },
            "conntrack": {
                "maxPerCore": 0,
                "tcpEstablishedTimeout": "0s",
                "tcpCloseWaitTimeout": "0s",
            },
        }


def _flannel(backend: Backend) -> dict[str, object]:
    return {
        "Network": POD_NETWORK[0],
        "IPv6Network": POD_NETWORK[1],
        "EnableIPv6": True,
        "EnableNFTables": False,
        "Backend": {"Type": backend},
    }
