"""Who is who: one authority, a key and certificate for each component, kubeconfigs for them.

As kubeadm has it: the certificate's common name is the user, its organisations are the groups, and
RBAC and the Node authorizer do the rest. ``openssl`` makes them; everything lies in the cluster's
folder.
"""

from __future__ import annotations

import json
from base64 import b64encode
from dataclasses import dataclass
from pathlib import Path

from cluster.ground.home import Home
from cluster.ground.plan import API_SERVICE, Plan
from cluster.ground.shell import run

DAYS = "30"
KEY = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes")
# openssl wants a configuration; the machine's own would add extensions of its own
CONFIG = "[req]\ndistinguished_name = name\n[name]\n"


@dataclass(frozen=True)
class User:
    """``file``: the name of its files."""

    file: str
    name: str
    groups: tuple[str, ...] = ()


ADMIN = User("admin", "kubernetes-admin", ("system:masters",))
CONTROLLERS = User("controller-manager", "system:kube-controller-manager")
SCHEDULER = User("scheduler", "system:kube-scheduler")
PROXY = User("kube-proxy", "system:kube-proxy")
FLANNEL = User("flannel", "flannel")
API_SERVER_AS_CLIENT = User("apiserver-kubelet-client", "kube-apiserver", ("system:masters",))


def kubelet(node: str) -> User:
    return User(node, f"system:node:{node}", ("system:nodes",))


class Authority:
    """The cluster's own; the one thing that makes a user of a name."""

    def __init__(self, home: Home, plan: Plan) -> None:
        self.home = home
        self.plan = plan

    @property
    def certificate(self) -> Path:
        return self.home.pki / "ca.crt"

    def begin(self) -> None:
        self.home.pki.mkdir(mode=0o700)
        (self.home.pki / "openssl.cnf").write_text(CONFIG)
        self._request("ca", "/CN=kptrace-test", "basicConstraints=critical,CA:TRUE")
        run(
            *("openssl", "genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256"),
            *("-out", self.home.pki / "service-accounts.key"),
        )
        run(
            *("openssl", "pkey", "-pubout", "-in", self.home.pki / "service-accounts.key"),
            *("-out", self.home.pki / "service-accounts.pub"),
        )
        self._serving()
        for user in (API_SERVER_AS_CLIENT, CONTROLLERS, SCHEDULER, PROXY, FLANNEL):
            self.user(user)
        for node in self.plan.nodes:
            self.user(kubelet(node.role))
        self.user(ADMIN).rename(self.home.kubeconfig)

    def user(self, user: User, namespace: str = "default") -> Path:
        """A kubeconfig by which the API server knows its holder as this user."""
        subject = "".join(f"/O={group}" for group in user.groups) + f"/CN={user.name}"
        self._signed(user.file, subject, "extendedKeyUsage=clientAuth")
        path = self.home.pki / f"{user.file}.kubeconfig"
        path.write_text(self._kubeconfig(user, namespace))
        path.chmod(0o600)
        return path

    def _serving(self) -> None:
        addresses = (*self.plan.control.addresses, *API_SERVICE, "127.0.0.1", "::1")
        service = ("kubernetes", "default", "svc", "cluster.local")
        names = ("localhost", *(".".join(service[:length]) for length in range(1, 5)))
        known_as = ",".join((*(f"IP:{a}" for a in addresses), *(f"DNS:{n}" for n in names)))
        self._signed(
            "apiserver",
            "/CN=kube-apiserver",
            "extendedKeyUsage=serverAuth",
            f"subjectAltName={known_as}",
        )

    def _signed(self, name: str, subject: str, *extensions: str) -> None:
        by = ("-CA", str(self.certificate), "-CAkey", str(self.home.pki / "ca.key"))
        self._request(name, subject, "basicConstraints=critical,CA:FALSE", *extensions, by=by)

    def _request(self, name: str, subject: str, *extensions: str, by: tuple[str, ...] = ()) -> None:
        pki = self.home.pki
        files: tuple[str | Path, ...] = (
            "-keyout",
            pki / f"{name}.key",
            "-out",
            pki / f"{name}.crt",
        )
        run(
            *("openssl", "req", "-x509", "-config", pki / "openssl.cnf", *KEY, "-days", DAYS),
            *("-subj", subject, *files, *by),
            *(word for extension in extensions for word in ("-addext", extension)),
        )

    def _kubeconfig(self, user: User, namespace: str) -> str:
        """JSON is YAML; everything is in the file, so that it can be used from any place."""
        pki = self.home.pki
        cluster = {"server": self.plan.server, "certificate-authority-data": _data(pki / "ca.crt")}
        proof = {
            "client-certificate-data": _data(pki / f"{user.file}.crt"),
            "client-key-data": _data(pki / f"{user.file}.key"),
        }
        name = f"kptrace-{self.plan.name}"
        context = {"cluster": name, "user": user.name, "namespace": namespace}
        document = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": name, "cluster": cluster}],
            "users": [{"name": user.name, "user": proof}],
            "contexts": [{"name": name, "context": context}],
            "current-context": name,
        }
        return json.dumps(document, indent=1) + "\n"


def _data(path: Path) -> str:
    return b64encode(path.read_bytes()).decode()
