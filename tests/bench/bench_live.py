"""What explaining one Service of many costs on a live node, beside the tool that reads everything.

    python tests/bench/bench_live.py [--rounds N] [--dumps DIR]        (root; takes minutes)

Loads the rules that real kube-proxies wrote for 10,000 Services into namespaces of its own, and for
1,000 those that the lab writes in the same form. Each round times, one after the other, a whole
process from its start to its printed answer; rounds are paired, so that a busy machine slows both.
Memory is the largest resident size of kptrace and its agent (VmHWM), whichever is larger. Nothing
is asserted: the table is for people. What is made is removed, also after Ctrl-C.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from kptrace.kube.documents import Documents, read_documents
from kptrace.lab.proxy import iptables, nftables
from kptrace.lab.proxy.port import ProxyNode

DUMPS = Path(os.environ.get("KPTRACE_DUMPS", Path(__file__).parents[3] / "shared" / "dumps"))
FEW, MANY = 1_000, 10_000
NODE = ProxyNode(
    name="node-a",
    addresses=("172.30.0.11",),
    zone="zone-a",
    cluster_cidrs=("10.200.0.0/14",),
    service_cidrs=("10.96.0.0/12",),
)


class Row(NamedTuple):
    """One ruleset: how it is loaded, what reads all of it, and the goal in times that."""

    name: str
    load: tuple[str, ...]
    text: Callable[[Path], str]
    rendered: Callable[[Documents], str]
    other: tuple[str, ...]
    goal: float


def _unzipped(folder: str, file: str) -> Callable[[Path], str]:
    return lambda dumps: gzip.decompress((dumps / folder / file).read_bytes()).decode()


def _rendered(render: Callable[..., str]) -> Callable[[Documents], str]:
    def write(documents: Documents) -> str:
        return render(documents.services[:FEW], documents.endpoints, NODE, "ip")

    return write


def _without_accounts(text: Callable[[Path], str]) -> Callable[[Path], str]:
    """The kernel may lack kube-proxy's nfacct objects."""

    def read(dumps: Path) -> str:
        return "".join(line for line in text(dumps).splitlines(True) if "nfacct" not in line)

    return read


ROWS = (
    Row(
        "iptables-nft",
        ("iptables-nft-restore",),
        _unzipped("scale-iptables-nft-10k", "iptables-save-restored-no-nfacct.txt.gz"),
        _rendered(iptables.render),
        ("iptables-nft-save", "-t", "nat"),
        1 / 100,
    ),
    Row(
        "nftables",
        ("nft", "-f", "-"),
        _unzipped("scale-nftables-10k", "nft-ruleset.txt.gz"),
        _rendered(nftables.render),
        ("nft", "-j", "list", "ruleset"),
        1 / 20,
    ),
    Row(
        "iptables-legacy",
        ("iptables-legacy-restore",),
        _without_accounts(_unzipped("scale-iptables-legacy-10k", "iptables-save.txt.gz")),
        _rendered(iptables.render),
        ("iptables-legacy-save", "-t", "nat"),
        1.3,
    ),
)


class Cost(NamedTuple):
    seconds: float
    mebibytes: float


@contextmanager
def namespace(name: str) -> Iterator[str]:
    subprocess.run(["ip", "netns", "add", name], check=True)
    try:
        yield name
    finally:
        subprocess.run(["ip", "netns", "del", name], check=False)


# A process begins with its parent's peak of memory, so it gets a small parent.
_LAUNCHER = """
import json, os, subprocess, sys, time
start = time.perf_counter()
process = subprocess.Popen(sys.argv[1:], stdout=subprocess.DEVNULL)
_, status, usage = os.wait4(process.pid, 0)
seconds = time.perf_counter() - start
print(json.dumps([os.waitstatus_to_exitcode(status), seconds, usage.ru_maxrss / 1024]))
"""


def run(inside: str, words: Sequence[str]) -> Cost:
    """A whole process; its memory is its own or that of the largest that it waited for."""
    launcher = (sys.executable, "-S", "-c", _LAUNCHER)
    done = subprocess.run(
        ["ip", "netns", "exec", inside, *launcher, *words], capture_output=True, text=True
    )
    code, seconds, mebibytes = json.loads(done.stdout)
    if code not in (0, 1):
        raise SystemExit(f"{' '.join(words)}: {done.stderr}")
    return Cost(seconds, mebibytes)


def explain(service: str, namespace: str) -> tuple[str, ...]:
    words = ("explain", f"svc/{service}", "-n", namespace, "--offline")
    return (sys.executable, "-m", "kptrace", *words)


def load(inside: str, row: Row, text: str) -> None:
    start = time.perf_counter()
    words = ["ip", "netns", "exec", inside, *row.load]
    subprocess.run(words, input=text, text=True, check=True)
    print(f"  loaded in {time.perf_counter() - start:.1f} s", file=sys.stderr)


def middle(costs: Sequence[Cost]) -> Cost:
    seconds = statistics.median(cost.seconds for cost in costs)
    return Cost(seconds, max(cost.mebibytes for cost in costs))


def measure(row: Row, dumps: Path, documents: Documents, rounds: int) -> str:
    print(row.name, file=sys.stderr)
    few, many = (f"kptrace-bench-{os.getpid()}-{count}" for count in (FEW, MANY))
    words = explain(documents.services[FEW // 2].name, documents.services[FEW // 2].namespace)
    with namespace(few), namespace(many):
        load(few, row, row.rendered(documents))
        load(many, row, row.text(dumps))
        small, ours, theirs = [], [], []
        for turn in range(rounds):
            small.append(run(few, words))
            ours.append(run(many, words))
            theirs.append(run(many, row.other))
            shown = f"{ours[-1].seconds:.2f} s, {theirs[-1].seconds:.2f} s"
            print(f"  round {turn + 1}: {shown}", file=sys.stderr)
    one, other, less = middle(ours), middle(theirs), middle(small)
    ratio = statistics.median(a.seconds / b.seconds for a, b in zip(ours, theirs, strict=True))
    cells = (
        f"live, {row.name}",
        f"`{' '.join(row.other)}`",
        f"{one.seconds:.2f} s",
        f"{other.seconds:.2f} s",
        _times(ratio),
        f"at most {_times(row.goal)}",
        f"{one.mebibytes:.0f} MiB",
        f"{(one.seconds / less.seconds - 1) * 100:+.0f} %",
    )
    return f"| {' | '.join(cells)} |"


def _times(ratio: float) -> str:
    return f"1/{1 / ratio:.0f}" if ratio < 0.5 else f"{ratio:.2f} times"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--dumps", type=Path, default=DUMPS)
    parser.add_argument("--only", choices=[row.name for row in ROWS], action="append")
    given = parser.parse_args()
    scale = given.dumps / "_api-scale-10k"
    documents = read_documents(
        {
            f"{name}.json": gzip.decompress((scale / f"{name}-10k.json.gz").read_bytes())
            for name in ("services", "endpointslices")
        }
    )
    rows = [row for row in ROWS if not given.only or row.name in given.only]
    table = [measure(row, given.dumps, documents, given.rounds) for row in rows]
    head = ("explain one of 10,000", "against", "kptrace", "it", "ratio", "goal", "memory")
    print(f"| {' | '.join((*head, 'against 1,000'))} |")
    print(f"|{' --- |' * (len(head) + 1)}")
    print("\n".join(table))
    print(f"\nload average {os.getloadavg()[0]:.1f} on {os.cpu_count()} processors")


if __name__ == "__main__":
    main()
