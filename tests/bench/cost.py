"""What a whole process costs, and a row of the table of costs.

Time is told twice: by the clock, and the processor's (of the process and all that it waited for),
which other work on the machine blurs less. Ratios are taken inside a round, in which both run one
after the other, and their median is told. Memory is the largest resident size (VmHWM) of any.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
from collections.abc import Mapping, Sequence
from typing import NamedTuple

HEAD = ("explain one of 10,000 Services", "against", "kptrace", "it", "times, by the clock")
HEAD += ("by the processor", "goal", "met", "peak memory", "against 1,000 Services, by both")
MOST_MEBIBYTES = 120
MOST_GROWTH = 0.2

# A process begins with its parent's peak of memory, so it gets a small parent.
_LAUNCHER = """
import json, os, subprocess, sys, time
start = time.perf_counter()
process = subprocess.Popen(sys.argv[1:], stdout=subprocess.DEVNULL)
_, status, usage = os.wait4(process.pid, 0)
seconds = time.perf_counter() - start
processor = usage.ru_utime + usage.ru_stime
print(json.dumps([os.waitstatus_to_exitcode(status), seconds, processor, usage.ru_maxrss / 1024]))
"""


class Cost(NamedTuple):
    seconds: float
    processor: float
    mebibytes: float

    def __or__(self, other: Cost) -> Cost:
        """One after the other."""
        peak = max(self.mebibytes, other.mebibytes)
        return Cost(self.seconds + other.seconds, self.processor + other.processor, peak)


def run(words: Sequence[str], environ: Mapping[str, str], inside: str = "") -> Cost:
    """``inside``: a network namespace. Exit codes of kptrace's own findings are no failure."""
    enter = ("ip", "netns", "exec", inside) if inside else ()
    launcher = (sys.executable, "-S", "-c", _LAUNCHER)
    done = subprocess.run(
        [*enter, *launcher, *words], capture_output=True, text=True, env=dict(environ)
    )
    if done.returncode:
        raise SystemExit(f"{' '.join(words)}: {done.stderr}")
    code, *cost = json.loads(done.stdout)
    if code not in (0, 1):
        raise SystemExit(f"{' '.join(words)} ended with {code}: {done.stderr}")
    return Cost(*cost)


class Row(NamedTuple):
    """``small``: the same of 1,000 Services, where that was measured."""

    name: str
    against: str
    goal: float | None
    ours: Sequence[Cost]
    theirs: Sequence[Cost]
    small: Sequence[Cost] = ()

    def cells(self) -> tuple[str, ...]:
        clock, processor = self._ratio(0), self._ratio(1)
        peak = max(cost.mebibytes for cost in self.ours)
        growth = [_middle(self.ours, each) / _middle(self.small, each) - 1 for each in self._grown]
        lean = peak <= MOST_MEBIBYTES and all(each <= MOST_GROWTH for each in growth)
        met = tuple(self.goal is None or ratio <= self.goal for ratio in (clock, processor))
        return (
            self.name,
            f"`{self.against}`",
            _seconds(_middle(self.ours, 0)),
            _seconds(_middle(self.theirs, 0)),
            _times(clock),
            _times(processor),
            f"at most {_times(self.goal)}" if self.goal else "",
            _MET[met] if lean else "no",
            f"{peak:.0f} MiB",
            ", ".join(f"{each * 100:+.0f} %" for each in growth),
        )

    @property
    def _grown(self) -> tuple[int, ...]:
        return (0, 1) if self.small else ()

    def _ratio(self, field: int) -> float:
        pairs = zip(self.ours, self.theirs, strict=True)
        return statistics.median(our[field] / their[field] for our, their in pairs)


def table(rows: Sequence[Row]) -> str:
    lines = [HEAD, ("---",) * len(HEAD), *(row.cells() for row in rows)]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


_MET = {
    (True, True): "yes",
    (True, False): "by the clock",
    (False, True): "by the processor",
    (False, False): "no",
}


def _middle(costs: Sequence[Cost], field: int) -> float:
    return statistics.median(cost[field] for cost in costs)


def _times(ratio: float) -> str:
    return f"1/{1 / ratio:.0f}" if ratio < 0.5 else f"{ratio:.3g}"


def _seconds(seconds: float) -> str:
    return f"{seconds:.2f} s" if seconds >= 1 else f"{seconds * 1000:.0f} ms"
