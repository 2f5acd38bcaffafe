"""What explaining one Service of many costs on a live node, beside the tool that reads everything.

Loads the rules that real kube-proxies wrote for 10,000 Services into namespaces of its own, and for
1,000 those that the lab writes in the same form. What is made is removed, also after Ctrl-C.
"""

from __future__ import annotations

import gzip
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from cost import Cost, Row, run

from kptrace.kube.objects.cluster_state import ClusterState, read_cluster_state
from kptrace.lab.dataplane.kubeproxy import iptables, nftables
from kptrace.lab.dataplane.kubeproxy.service_port import ProxyNode

FEW, MANY = 1_000, 10_000
NODE = ProxyNode(
    name="node-a",
    addresses=("172.30.0.11",),
    zone="zone-a",
    cluster_cidrs=("10.200.0.0/14",),
    service_cidrs=("10.96.0.0/12",),
)


class Rules(NamedTuple):
    """One ruleset: how it is loaded, what reads all of it, and the goal in times that."""

    name: str
    load: tuple[str, ...]
    text: Callable[[Path], str]
    rendered: Callable[[ClusterState], str]
    other: tuple[str, ...]
    goal: float


def _unzipped(folder: str, file: str) -> Callable[[Path], str]:
    return lambda dumps: gzip.decompress((dumps / folder / file).read_bytes()).decode()


def _rendered(render: Callable[..., str]) -> Callable[[ClusterState], str]:
    def write(documents: ClusterState) -> str:
        return render(documents.services[:FEW], documents.endpoints, NODE, "ip")

    return write


def _without_accounts(text: Callable[[Path], str]) -> Callable[[Path], str]:
    """The kernel may lack kube-proxy's nfacct objects."""

    def read(dumps: Path) -> str:
        return "".join(line for line in text(dumps).splitlines(True) if "nfacct" not in line)

    return read


RULES = (
    Rules(
        "iptables-nft",
        ("iptables-nft-restore",),
        _unzipped("scale-iptables-nft-10k", "iptables-save-restored-no-nfacct.txt.gz"),
        _rendered(iptables.render),
        ("iptables-nft-save", "-t", "nat"),
        1 / 100,
    ),
    Rules(
        "nftables",
        ("nft", "-f", "-"),
        _unzipped("scale-nftables-10k", "nft-ruleset.txt.gz"),
        _rendered(nftables.render),
        ("nft", "-j", "list", "ruleset"),
        1 / 20,
    ),
    Rules(
        "iptables-legacy",
        ("iptables-legacy-restore",),
        _without_accounts(_unzipped("scale-iptables-legacy-10k", "iptables-save.txt.gz")),
        _rendered(iptables.render),
        ("iptables-legacy-save", "-t", "nat"),
        1.3,
    ),
)


@contextmanager
def namespace(name: str) -> Iterator[str]:
    subprocess.run(["ip", "netns", "add", name], check=True)
    try:
        yield name
    finally:
        subprocess.run(["ip", "netns", "del", name], check=False)


def explain(service: str, namespace: str) -> tuple[str, ...]:
    words = ("explain", f"svc/{service}", "-n", namespace, "--offline")
    return (sys.executable, "-m", "kptrace", *words)


def load(inside: str, rules: Rules, text: str) -> None:
    start = time.perf_counter()
    words = ["ip", "netns", "exec", inside, *rules.load]
    subprocess.run(words, input=text, text=True, check=True)
    print(f"  loaded in {time.perf_counter() - start:.1f} s", file=sys.stderr)


def measure(
    rules: Rules, dumps: Path, documents: ClusterState, rounds: int, environ: Mapping[str, str]
) -> Row:
    print(f"live, {rules.name}", file=sys.stderr)
    few, many = (f"kptrace-bench-{os.getpid()}-{count}" for count in (FEW, MANY))
    words = explain(documents.services[FEW // 2].name, documents.services[FEW // 2].namespace)
    with namespace(few), namespace(many):
        load(few, rules, rules.rendered(documents))
        load(many, rules, rules.text(dumps))
        small, ours, theirs = list[Cost](), list[Cost](), list[Cost]()
        run(words, environ, few)  # the bytecode cache
        for turn in range(rounds):
            small.append(run(words, environ, few))
            ours.append(run(words, environ, many))
            theirs.append(run(rules.other, environ, many))
            shown = f"{ours[-1].seconds:.2f} s, {theirs[-1].seconds:.2f} s"
            print(f"  round {turn + 1}: {shown}", file=sys.stderr)
    growing = () if rules.name == "iptables-legacy" else small  # the kernel tells all of it at once
    return Row(f"live, {rules.name}", " ".join(rules.other), rules.goal, ours, theirs, growing)


def rows(dumps: Path, rounds: int, environ: Mapping[str, str], only: str = "") -> Iterator[Row]:
    scale = dumps / "_api-scale-10k"
    documents = read_cluster_state(
        {
            f"{name}.json": gzip.decompress((scale / f"{name}-10k.json.gz").read_bytes())
            for name in ("services", "endpointslices")
        }
    )
    for rules in RULES:
        if only in ("", rules.name):
            yield measure(rules, dumps, documents, rounds, environ)
