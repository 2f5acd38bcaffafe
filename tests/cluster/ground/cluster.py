"""A whole cluster: up, found again, changed, down."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from cluster.ground import build, dataplane, image_set, leftovers, underlay, workloads
from cluster.ground.certificates import Authority, User
from cluster.ground.control_plane import ControlPlane
from cluster.ground.home import DEFAULT, Home, State
from cluster.ground.machine import Machine
from cluster.ground.node import SOCKET, Node
from cluster.ground.plan import Backend, NotPossible, Plan, Proxy
from cluster.ground.workloads import Kubectl

CTR = ("ctr", "--address", SOCKET, "--namespace", "k8s.io")


class Cluster:
    """``proxy`` and ``backend``: as they are now."""

    def __init__(self, home: Home, state: State) -> None:
        self.home = home
        self.plan = Plan(home.name, state.number)
        self.proxy: Proxy = state.proxy
        self.backend: Backend = state.backend
        self.binaries = Path(state.binaries)
        self.kubectl = Kubectl(self.binaries, home.kubeconfig)
        self.authority = Authority(home, self.plan)
        self.control = ControlPlane(self.plan, home, Machine(self.plan.control, home))
        self.nodes = {
            node.role: Node(self.plan, node, Machine(node, home)) for node in self.plan.nodes
        }

    # --- its life ---

    @classmethod
    def up(
        cls,
        name: str = DEFAULT,
        proxy: Proxy = "iptables",
        backend: Backend = "vxlan",
        keep: bool = False,
    ) -> Cluster:
        """A running cluster with its workloads ready; on an error nothing of it stays, unless it
        is to be looked at (``keep``)."""
        binaries = build.binaries()
        archives = image_set.build(binaries)
        home = Home(name)
        plan = home.begin(proxy, backend, binaries)
        try:
            cluster = cls(home, State(plan.number, proxy, backend, str(binaries)))
            cluster._start(archives)
        except BaseException:
            if not keep:
                leftovers.remove(name)
            raise
        return cluster

    @classmethod
    def found(cls, name: str = DEFAULT) -> Cluster:
        home = Home(name)
        state = home.state()
        if state is None:
            raise NotPossible(f"no cluster {name} is up: make cluster")
        return cls(home, state)

    def down(self) -> None:
        leftovers.remove(self.home.name)

    # --- what can be done to it ---

    def change(self, proxy: Proxy | None = None, backend: Backend | None = None) -> None:
        """Another mode of kube-proxy, another backend of flannel; pods stay, or are made anew
        when the backend changes, because its MTU is that of their interfaces."""
        before = self.backend
        self.proxy, self.backend = proxy or self.proxy, backend or self.backend
        self.home.write(State(self.plan.number, self.proxy, self.backend, str(self.binaries)))
        self._on_each_node(lambda node: dataplane.change(node, self.proxy, self.backend))
        self._on_each_node(lambda node: dataplane.wait(node, self.proxy, self.backend))
        if self.backend != before:
            workloads.renew(self.kubectl, self.home, self.plan)

    def check(self) -> None:
        """Every daemon runs, or one that does not is named with its last words."""
        parts: list[ControlPlane | Node] = [self.control, *self.nodes.values()]
        for part in parts:
            for daemon in part.starters:
                if not part.machine.runs(daemon):
                    said = part.machine.log(daemon)
                    raise NotPossible(f"{part.machine.role}: {daemon} has ended\n{said}")

    def load(self, archive: Path) -> None:
        """Give an image to each node: ``docker save``'s form or OCI's."""
        told = archive.read_bytes()
        self._on_each_node(
            lambda node: node.machine.run(*CTR, "images", "import", "-", given=told, seconds=300)
        )

    def user(self, name: str, groups: tuple[str, ...] = (), namespace: str = "shop") -> Path:
        """A kubeconfig of someone who may do only what RBAC says."""
        return self.authority.user(User(f"user-{name}", name, groups), namespace)

    # --- how it starts ---

    def _start(self, archives: list[Path]) -> None:
        self.authority.begin()
        underlay.up(self.plan)
        resolver = self.plan.control.addresses[0]
        for machine in (self.control.machine, *(node.machine for node in self.nodes.values())):
            machine.start(self.binaries, resolver)
        with ThreadPoolExecutor() as side:
            ready = [side.submit(self._containers, node, archives) for node in self.nodes.values()]
            self.control.up()
            workloads.register(self.kubectl, self.plan)
            for one in ready:
                one.result()
        workloads.apply(self.kubectl, self.plan)
        self._on_each_node(self._join)
        workloads.wait(self.kubectl, self.home)
        self.check()

    def _containers(self, node: Node, archives: list[Path]) -> None:
        node.prepare()
        node.start("containerd")
        node.machine.run(
            *("sh", "-c", 'until "$@" version >/dev/null 2>&1; do sleep 0.1; done', "sh", *CTR),
            seconds=60,
        )
        for archive in archives:
            node.machine.run(
                *(*CTR, "images", "import", "-"), given=archive.read_bytes(), seconds=300
            )

    def _join(self, node: Node) -> None:
        node.start("kubelet")
        dataplane.start(node, self.proxy, self.backend)
        dataplane.wait(node, self.proxy, self.backend)

    def _on_each_node(self, what: Callable[[Node], object]) -> None:
        with ThreadPoolExecutor() as side:
            list(side.map(what, self.nodes.values()))
