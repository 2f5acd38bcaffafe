"""Explaining one of 10,000 Services from saved rules, whole process, against what reading costs.

    python tests/bench/bench_explain.py [--rounds 15]

Each round runs the pieces one after the other, so that they share the machine's mood; the ratio is
taken inside a round and the median of the rounds is told. The measure is ``wc -l`` on the saved
rules plus a Python that does nothing. Nothing is asserted. ``KPTRACE_DUMPS`` says where the state
of real nodes is (tests/conftest.py); bytecode is cached, as an installed kptrace has it.
"""

from __future__ import annotations

import argparse
import gzip
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]
DUMPS = Path(os.environ.get("KPTRACE_DUMPS", ROOT.parent / "shared" / "dumps"))
SERVICE, NAMESPACE = "svc/svc-05000", "load-0"
PARTS = {
    "iptables-save": ("scale-iptables-legacy-10k/iptables-save.txt.gz", "iptables-save.txt"),
    "nft -j": ("scale-nftables-10k/nft-ruleset.json.gz", "nft-ruleset.json"),
}
API = {
    "_api-scale-10k/services-10k.json.gz": "services.json",
    "_api-scale-10k/endpointslices-10k.json.gz": "endpointslices.json",
    "_api-matrix/nodes.json": "nodes.json",
}


class Ran(NamedTuple):
    seconds: float
    megabytes: float


def run(argv: list[str], environ: dict[str, str]) -> Ran:
    began = time.perf_counter()
    process = subprocess.Popen(argv, stdout=subprocess.DEVNULL, env=environ)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{' '.join(argv)} ended with {process.returncode}")
    return Ran(time.perf_counter() - began, usage.ru_maxrss / 1024)


def bundle(folder: Path, source: str, name: str, api: bool) -> Path:
    """A bundle of one node; returns the file with its rules."""
    rules = folder / "node-a" / name
    rules.parent.mkdir(parents=True)
    rules.write_bytes(gzip.decompress((DUMPS / source).read_bytes()))
    if api:
        (folder / "api").mkdir()
        for path, target in API.items():
            content = (DUMPS / path).read_bytes()
            content = gzip.decompress(content) if path.endswith(".gz") else content
            (folder / "api" / target).write_bytes(content)
    return rules


def measure(name: str, folder: Path, rules: Path, rounds: int, environ: dict[str, str]) -> None:
    python = sys.executable
    explain = [python, "-m", "kptrace", "explain", SERVICE, "-n", NAMESPACE]
    explain += ["--bundle", str(folder)]
    run(explain, environ)  # the bytecode cache and the page cache
    floors, ours = list[Ran](), list[Ran]()
    for _ in range(rounds):
        lines = run(["wc", "-l", str(rules)], environ)
        nothing = run([python, "-c", "pass"], environ)
        floors.append(Ran(lines.seconds + nothing.seconds, nothing.megabytes))
        ours.append(run(explain, environ))
    ratios = [our.seconds / floor.seconds for our, floor in zip(ours, floors, strict=True)]
    print(
        f"{name:32} {statistics.median(one.seconds for one in ours) * 1000:7.0f} ms"
        f" {statistics.median(one.seconds for one in floors) * 1000:7.1f} ms"
        f" {statistics.median(ratios):6.1f} ({min(ratios):.1f} to {max(ratios):.1f})"
        f" {max(one.megabytes for one in ours):6.0f} MB"
    )


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=15)
    rounds = parser.parse_args().rounds
    home = Path(tempfile.mkdtemp(prefix="kptrace-bench-"))
    environ = {**os.environ, "PYTHONPYCACHEPREFIX": str(home / "bytecode"), "PYTHONPATH": str(ROOT)}
    environ.pop("PYTHONDONTWRITEBYTECODE", None)
    print(
        f"{'explain one of 10,000 Services':32} {'explain':>10} {'floor':>10} times the floor, peak"
    )
    try:
        for name, (source, file) in PARTS.items():
            for api in (True, False):
                said = f"{name}, {'with' if api else 'without'} the API"
                folder = home / said.replace(" ", "-")
                measure(said, folder, bundle(folder, source, file, api), rounds, environ)
    finally:
        shutil.rmtree(home)


if __name__ == "__main__":
    main()
