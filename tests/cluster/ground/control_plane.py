"""etcd, the API server, the controllers and the scheduler, on a machine of their own.

As a kubeadm cluster has them: the Node authorizer and RBAC decide, NodeRestriction and Pod Security
admit, every component has its own certificate. etcd's data lies in memory with the rest of
``/var/lib``: what would be lost is made anew in seconds. The API server writes down who asked for
what in ``log/control/audit.log``: from it tests learn what kptrace reads.
"""

from __future__ import annotations

import json
import ssl
import time
import urllib.request
from collections.abc import Callable

from cluster.ground import certificates
from cluster.ground.home import Home
from cluster.ground.machine import BIN, CLUSTER, Machine
from cluster.ground.plan import API_PORT, POD_NETWORK, SERVICE_NETWORK, NotPossible, Plan

PKI = f"{CLUSTER}/pki"
ETCD = "http://127.0.0.1:2379"
READY_SECONDS = 120
SERVICES = ",".join(SERVICE_NETWORK)
PODS = ",".join(POD_NETWORK)
AUDIT = {
    "apiVersion": "audit.k8s.io/v1",
    "kind": "Policy",
    "omitStages": ["RequestReceived"],
    "rules": [
        {"level": "None", "userGroups": ["system:nodes", "system:serviceaccounts:kube-system"]},
        {"level": "None", "users": [*(f"system:{name}" for name in (
            "apiserver", "kube-controller-manager", "kube-scheduler", "kube-proxy"))]},
        {"level": "None", "users": ["flannel", "kube-apiserver"]},
        {"level": "Metadata"},
    ],
}  # fmt: skip
# what the cluster's resolver asks for names that are not the cluster's
UPSTREAM = """\
.:53 {{
    errors
    hosts {{
        {outside} outside.example.com
        fallthrough
    }}
}}
"""


class ControlPlane:
    def __init__(self, plan: Plan, home: Home, machine: Machine) -> None:
        self.plan = plan
        self.home = home
        self.machine = machine
        self.starters: dict[str, Callable[[], None]] = {
            "etcd": self._etcd,
            "kube-apiserver": self._api_server,
            "kube-controller-manager": self._controllers,
            "kube-scheduler": self._scheduler,
            "coredns": self._upstream,
            "server": self._outside,
        }

    def up(self) -> None:
        """What has an identity of its own comes when the API server has made its roles."""
        first = ("etcd", "kube-apiserver", "coredns", "server")
        for name in first:
            self.start(name)
        self.wait()
        for name in self.starters.keys() - first:
            self.start(name)

    def start(self, name: str) -> None:
        """One of its daemons; it must not run."""
        self.starters[name]()

    def wait(self) -> None:
        """Until the API server says that it is ready."""
        until = time.monotonic() + READY_SECONDS
        while (why := self._not_ready()) is not None:
            if time.monotonic() > until or not self.machine.runs("kube-apiserver"):
                said = self.machine.log("kube-apiserver")
                raise NotPossible(f"the API server does not get ready: {why}\n{said}")
            time.sleep(0.2)

    def _not_ready(self) -> str | None:
        trust = ssl.create_default_context(cafile=str(self.home.pki / "ca.crt"))
        trust.load_cert_chain(self.home.pki / "admin.crt", self.home.pki / "admin.key")
        try:
            with urllib.request.urlopen(
                f"{self.plan.server}/readyz", timeout=5, context=trust
            ) as answer:
                answer.read()
        except OSError as error:
            return str(error)
        return None

    def _etcd(self) -> None:
        self.machine.daemon(
            "etcd",
            [
                "/usr/bin/etcd",
                "--data-dir=/var/lib/etcd",
                f"--listen-client-urls={ETCD}",
                f"--advertise-client-urls={ETCD}",
                "--listen-peer-urls=http://127.0.0.1:2380",
            ],
        )

    def _api_server(self) -> None:
        log = self.home.log("control")
        (log / "audit-policy.json").write_text(json.dumps(AUDIT))
        own, client = f"{PKI}/apiserver", f"{PKI}/{certificates.API_SERVER_AS_CLIENT.file}"
        self.machine.daemon(
            "kube-apiserver",
            [
                f"{BIN}/kube-apiserver",
                f"--etcd-servers={ETCD}",
                f"--secure-port={API_PORT}",
                f"--advertise-address={self.plan.control.addresses[0]}",
                f"--service-cluster-ip-range={SERVICES}",
                "--allow-privileged=true",
                "--authorization-mode=Node,RBAC",
                "--enable-admission-plugins=NodeRestriction,PodSecurity",
                f"--client-ca-file={PKI}/ca.crt",
                f"--tls-cert-file={own}.crt",
                f"--tls-private-key-file={own}.key",
                "--service-account-issuer=https://kubernetes.default.svc.cluster.local",
                f"--service-account-key-file={PKI}/service-accounts.pub",
                f"--service-account-signing-key-file={PKI}/service-accounts.key",
                f"--kubelet-client-certificate={client}.crt",
                f"--kubelet-client-key={client}.key",
                "--kubelet-preferred-address-types=InternalIP",
                # Debian's etcd 3.4 cannot tell what it asks for
                "--feature-gates=SizeBasedListCostEstimate=false",
                f"--audit-policy-file={CLUSTER}/log/control/audit-policy.json",
                f"--audit-log-path={CLUSTER}/log/control/audit.log",
            ],
        )

    def _controllers(self) -> None:
        known = f"{PKI}/{certificates.CONTROLLERS.file}.kubeconfig"
        self.machine.daemon(
            "kube-controller-manager",
            [
                f"{BIN}/kube-controller-manager",
                f"--kubeconfig={known}",
                f"--authentication-kubeconfig={known}",
                f"--authorization-kubeconfig={known}",
                "--leader-elect=false",
                f"--cluster-cidr={PODS}",
                f"--service-cluster-ip-range={SERVICES}",
                "--use-service-account-credentials=true",
                f"--service-account-private-key-file={PKI}/service-accounts.key",
                f"--root-ca-file={PKI}/ca.crt",
                "--node-monitor-grace-period=30s",
            ],
        )

    def _scheduler(self) -> None:
        known = f"{PKI}/{certificates.SCHEDULER.file}.kubeconfig"
        self.machine.daemon(
            "kube-scheduler",
            [
                f"{BIN}/kube-scheduler",
                f"--kubeconfig={known}",
                f"--authentication-kubeconfig={known}",
                f"--authorization-kubeconfig={known}",
                "--leader-elect=false",
            ],
        )

    def _upstream(self) -> None:
        """The DNS server of the network that the cluster stands in."""
        text = UPSTREAM.format(outside=self.plan.control.addresses[0])
        self.machine.write("/run/upstream/Corefile", text)
        self.machine.daemon("coredns", [f"{BIN}/coredns", "-conf", "/run/upstream/Corefile"])

    def _outside(self) -> None:
        """A server that is no pod, at ``outside.example.com:80``; for the Services without one."""
        self.machine.daemon("server", [f"{BIN}/server", "-http", ":80"], {"POD": "outside"})
