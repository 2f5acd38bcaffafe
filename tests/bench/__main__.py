"""The whole table of costs as Markdown; minutes, and for the live rows root.

    make bench                 BENCH='--rounds 5 --only live' for some of it

Nothing is asserted: the table is for people. ``KPTRACE_DUMPS`` says where the state of real nodes
is. Bytecode is cached, as an installed kptrace has it.
"""

from __future__ import annotations

import argparse
import os
import shutil
import tempfile
from itertools import chain
from pathlib import Path

import bench_explain
import bench_live
from cost import table

ROOT = Path(__file__).parents[2]
DUMPS = Path(os.environ.get("KPTRACE_DUMPS", ROOT.parent / "shared" / "dumps"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rounds", type=int, default=3, help="of live rows; five times of saved")
    parser.add_argument("--dumps", type=Path, default=DUMPS)
    parser.add_argument("--only", choices=["saved", "live", *(r.name for r in bench_live.RULES)])
    given = parser.parse_args()
    bytecode = tempfile.mkdtemp(prefix=f"kptrace-bytecode-{os.getpid()}-")
    environ = {**os.environ, "PYTHONPYCACHEPREFIX": bytecode, "PYTHONPATH": str(ROOT)}
    environ.pop("PYTHONDONTWRITEBYTECODE", None)
    saved = bench_explain.rows(given.dumps, 5 * given.rounds, environ)
    only = "" if given.only in (None, "live") else given.only
    live = bench_live.rows(given.dumps, given.rounds, environ, only)
    try:
        wanted = chain(
            saved if given.only in (None, "saved") else (),
            live if given.only != "saved" and os.geteuid() == 0 else (),
        )
        print(table(list(wanted)))
    finally:
        shutil.rmtree(bytecode)
    print(f"\nload average {os.getloadavg()[0]:.1f} on {os.cpu_count()} processors")


if __name__ == "__main__":
    main()
