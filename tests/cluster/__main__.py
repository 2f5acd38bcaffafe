"""The test cluster from the command line: ``make cluster``, ``make cluster-down``.

python -m cluster up [--name NAME] [--proxy MODE] [--backend BACKEND]
python -m cluster change [--name NAME] [--proxy MODE] [--backend BACKEND]
python -m cluster load FILE [--name NAME]     give an image to the nodes
python -m cluster enter NODE [COMMAND...]     run in a node's namespaces; a shell by default
python -m cluster user WHO [--group GROUP]    print a kubeconfig that may nothing yet
python -m cluster stop|start NODE DAEMON      one daemon; NODE may be control
python -m cluster down [--name NAME]
python -m cluster list
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
from pathlib import Path

from cluster.ground import home, leftovers, packages
from cluster.ground.cluster import Cluster
from cluster.ground.machine import Machine
from cluster.ground.plan import BACKENDS, PROXIES, NotPossible

USE = """\
cluster {name}: Kubernetes {version}, kube-proxy {proxy}, flannel {backend}, nodes {nodes}

    export KUBECONFIG={kubeconfig}
    export PATH={binaries}:$PATH
    kubectl get pods -n shop -o wide
    kubectl exec -n shop client -- curl -s http://web

logs: {logs}
inside a node: PYTHONPATH=tests .venv/bin/python -m cluster enter node-a --name {name}
away with it:  make cluster-down{option}
"""


def main() -> int:
    given = _arguments().parse_args()
    for ended in (signal.SIGTERM, signal.SIGINT):  # a background job ignores the second
        signal.signal(ended, signal.default_int_handler)
    try:
        return int(COMMANDS[given.command](given) or 0)
    except NotPossible as error:
        print(f"cluster: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


def up(given: argparse.Namespace) -> None:
    packages.install()
    cluster = Cluster.up(
        given.name, given.proxy or "iptables", given.backend or "vxlan", given.keep
    )
    print(told(cluster), end="")


def told(cluster: Cluster) -> str:
    name = cluster.home.name
    return USE.format(
        name=name,
        version=cluster.kubectl.json("version")["serverVersion"]["gitVersion"],
        proxy=cluster.proxy,
        backend=cluster.backend,
        nodes=", ".join(cluster.nodes),
        kubeconfig=cluster.home.kubeconfig,
        binaries=cluster.binaries,
        logs=cluster.home.path / "log",
        option="" if name == home.DEFAULT else f" NAME={name}",
    )


def change(given: argparse.Namespace) -> None:
    cluster = Cluster.found(given.name)
    cluster.change(given.proxy, given.backend)
    print(f"kube-proxy {cluster.proxy}, flannel {cluster.backend}")


def load(given: argparse.Namespace) -> None:
    Cluster.found(given.name).load(given.file)


def enter(given: argparse.Namespace) -> None:
    machine = _machine(given)
    words = machine.enter(*(given.words or ["/bin/bash"]))
    os.execvp(words[0], words)


def user(given: argparse.Namespace) -> None:
    print(Cluster.found(given.name).user(given.who, tuple(given.group)))


def stop(given: argparse.Namespace) -> None:
    _machine(given).stop(given.daemon)


def start(given: argparse.Namespace) -> None:
    cluster = Cluster.found(given.name)
    where = cluster.control if given.node == "control" else cluster.nodes.get(given.node)
    if where is None or given.daemon not in where.starters:
        raise NotPossible(f"no {given.daemon} on {given.node}")
    where.start(given.daemon)


def down(given: argparse.Namespace) -> int:
    leftovers.remove(given.name)
    left = leftovers.find(given.name)
    for one in left:
        print(f"cluster: still there: {one}", file=sys.stderr)
    return 1 if left else 0


def list_(_: argparse.Namespace) -> None:
    for name in home.known():
        print(name)


def _machine(given: argparse.Namespace) -> Machine:
    cluster = Cluster.found(given.name)
    if given.node == "control":
        return cluster.control.machine
    if given.node not in cluster.nodes:
        raise NotPossible(f"no node {given.node}: {', '.join(('control', *cluster.nodes))}")
    return cluster.nodes[given.node].machine


COMMANDS = {
    "up": up,
    "change": change,
    "load": load,
    "enter": enter,
    "user": user,
    "stop": stop,
    "start": start,
    "down": down,
    "list": list_,
}


def _arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="cluster", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    made = {name: commands.add_parser(name) for name in COMMANDS}
    for name, one in made.items():
        if name != "list":
            one.add_argument("--name", default=home.DEFAULT)
    for name in ("up", "change"):
        made[name].add_argument("--proxy", choices=PROXIES)
        made[name].add_argument("--backend", choices=BACKENDS)
    made["up"].add_argument("--keep", action="store_true", help="leave a cluster that failed")
    made["load"].add_argument("file", type=Path)
    made["user"].add_argument("who")
    made["user"].add_argument("--group", action="append", default=[])
    for name in ("enter", "stop", "start"):
        made[name].add_argument("node")
    for name in ("stop", "start"):
        made[name].add_argument("daemon")
    made["enter"].add_argument("words", nargs=argparse.REMAINDER)
    return parser


if __name__ == "__main__":
    sys.exit(main())
