"""Explaining one of 10,000 Services from saved rules, whole process, against what reading costs.

The measure is ``wc -l`` on the saved rules plus a Python that does nothing. Only iptables-save text
without the API's documents has a goal; the others are told beside it.
"""

from __future__ import annotations

import gzip
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

from cost import Cost, Row, run

ROOT = Path(__file__).parents[2]
SERVICE, NAMESPACE = "svc/svc-05000", "load-0"
GOAL = 8.0
PARTS = {
    "iptables-save": ("scale-iptables-legacy-10k/iptables-save.txt.gz", "iptables-save.txt"),
    "nft -j": ("scale-nftables-10k/nft-ruleset.json.gz", "nft-ruleset.json"),
}
API = {
    "_api-scale-10k/services-10k.json.gz": "services.json",
    "_api-scale-10k/endpointslices-10k.json.gz": "endpointslices.json",
    "_api-matrix/nodes.json": "nodes.json",
}


def bundle(folder: Path, dumps: Path, source: str, name: str, api: bool) -> Path:
    """A bundle of one node; returns the file with its rules."""
    rules = folder / "node-a" / name
    rules.parent.mkdir(parents=True)
    rules.write_bytes(gzip.decompress((dumps / source).read_bytes()))
    if api:
        (folder / "api").mkdir()
        for path, target in API.items():
            content = (dumps / path).read_bytes()
            content = gzip.decompress(content) if path.endswith(".gz") else content
            (folder / "api" / target).write_bytes(content)
    return rules


def measure(
    name: str,
    folder: Path,
    rules: Path,
    goal: float | None,
    rounds: int,
    environ: Mapping[str, str],
) -> Row:
    python = sys.executable
    words = ("explain", SERVICE, "-n", NAMESPACE, "--bundle", str(folder))
    explain = (python, "-m", "kptrace", *words)
    run(explain, environ)  # the bytecode cache and the page cache
    ours, floors = list[Cost](), list[Cost]()
    for _ in range(rounds):
        lines = run(("wc", "-l", str(rules)), environ)
        floors.append(lines | run((python, "-c", "pass"), environ))
        ours.append(run(explain, environ))
    return Row(name, "wc -l` + `python -c pass", goal, ours, floors)


def rows(dumps: Path, rounds: int, environ: Mapping[str, str]) -> Iterator[Row]:
    home = Path(tempfile.mkdtemp(prefix=f"kptrace-bench-{os.getpid()}-"))
    try:
        for api in (False, True):
            for name, (source, file) in PARTS.items():
                said = f"saved, `{name}`{' and the API' if api else ''}"
                folder = home / f"{file}-{api}"
                rules = bundle(folder, dumps, source, file, api)
                print(said, file=sys.stderr)
                goal = None if api or name != "iptables-save" else GOAL
                yield measure(said, folder, rules, goal, rounds, environ)
    finally:
        shutil.rmtree(home)
