"""Round after round: a random ruleset, its packets, the score; and what to do about a disagreement.

In: seeds. Out: the Score, and for each disagreement a case (cases.py), made small.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field

from differential import cases, generator, shrink
from differential.bench import Bench, Verdict, bench
from differential.ground import Refused
from differential.observation import NotSent
from differential.packets import Sent

# legacy tables stay in a namespace for ever, so it is left for a new one now and then
_ROUNDS_OF_A_GROUND = 12
_TRIES = 4  # of a packet whose way is a matter of chance
_SMALL_CASES = 2  # disagreements of one ruleset that are worth a case


@dataclass
class Score:
    rulesets: int = 0
    judged: Counter[str] = field(default_factory=Counter)
    by_chance: int = 0
    lines: int = 0

    @property
    def pairs(self) -> int:
        return self.judged.total()

    @property
    def disagreed(self) -> int:
        return self.judged["disagreed"]

    def __str__(self) -> str:
        share = 100 * self.judged["not judged"] / max(1, self.pairs)
        return (
            f"{self.pairs} pairs of {self.rulesets} rulesets compared, {self.disagreed} disagreed, "
            f"{self.judged['not judged']} ({share:.1f} %) not judged, "
            f"{self.by_chance} of several ways"
        )


class Campaign:
    """``with Campaign(30) as it: it.round(seed)``; ``tell``: called with words for people."""

    def __init__(
        self, packets: int, write: bool = False, tell: Callable[[str], object] = lambda _: None
    ) -> None:
        self.score = Score()
        self._packets, self._write, self._tell = packets, write, tell
        self._stack = ExitStack()
        self._bench: Bench | None = None
        self._rounds = 0

    def __enter__(self) -> Campaign:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    @property
    def bench(self) -> Bench:
        if self._bench is None or self._rounds >= _ROUNDS_OF_A_GROUND:
            self._stack.close()
            self._rounds = 0
            self._bench = self._stack.enter_context(bench())
        return self._bench

    def round(self, seed: int) -> list[Verdict]:
        """One ruleset with its packets; the disagreements."""
        rules, versions = generator.rules(seed)
        here = self.bench
        self._rounds += 1
        loaded = here.load(rules)
        self.score.rulesets += 1
        self.score.lines += sum(text.count("\n") for text in loaded.values())
        bad = []
        for verdict in here.compare(generator.packets(seed, versions, self._packets)):
            self.score.judged[verdict.judgement] += 1
            self.score.by_chance += len(verdict.ways) > 1
            if verdict.judgement == "disagreed":
                bad.append(verdict)
        for number, verdict in enumerate(bad[:_SMALL_CASES]):
            self._tell(f"seed {seed}: {verdict.words()}")
            if self._write:
                self._keep(f"seed-{seed}-{number}", loaded, verdict.sent)
        return bad

    # --- a disagreement -----------------------------------------------------------------------

    def _keep(self, name: str, loaded: dict[str, str], sent: Sent) -> None:
        here = self.bench
        rules = shrink.shrink(loaded, lambda fewer: self._disagreement(fewer, sent) is not None)
        verdict = self._disagreement(rules, sent)
        if verdict is None:
            self._tell(f"{name}: seen once and not again")
            return
        case = cases.Case(
            name=name, rules=rules, saved=here.files, sent=sent, expected=verdict.seen
        )
        folder = cases.write(case, here.state)
        self._tell(f"{folder}:\n{''.join(rules.values())}{verdict.words()}")

    def _disagreement(self, rules: dict[str, str], sent: Sent) -> Verdict | None:
        here = self.bench
        try:
            here.load(rules, whole=True)
            verdicts = here.compare([sent] * _TRIES)
            return next((one for one in verdicts if one.judgement == "disagreed"), None)
        except (Refused, NotSent):
            return None
