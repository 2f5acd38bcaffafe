"""Both judges at one bench: rules loaded and read back, packets sent and walked, compared.

In: rules by loader, and packets. Out: a Verdict for each pair of ruleset and packet.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager

from differential import verdicts
from differential.ground import Ground
from differential.observation import NotSent, Observation
from differential.packets import Sent
from differential.plan import with_rules, world_of
from differential.verdicts import Judgement, Way
from differential.witness import ICMP_MARKER, Witness

from kptrace.agent.state.rule_queries import RuleReader
from kptrace.model import Netns, Value
from kptrace.rules.model.ruleset import Ruleset
from kptrace.simulate.topology import Topology


class Verdict(Value):
    """One pair. ``ways``: what the walk said; ``seen``: what the kernel did; ``reader``: by which
    the walk had the rules, ``texts`` or ``kernel``.
    """

    sent: Sent
    judgement: Judgement
    seen: Observation
    ways: tuple[Way, ...]
    reader: str = "texts"

    def words(self) -> str:
        lines = [f"{self.judgement} ({self.reader}): {self.sent}", f"  kernel {self.seen.there}"]
        lines += [f"    back {self.seen.back}"] if self.seen.back else []
        for way in self.ways[:6]:
            lines.append(f"  walk {way.weight:.3f} {way.words} (certain: {way.certain})")
            lines += [f"    {one}" for one in verdicts.differences(way, self.seen)[:4]]
        return "\n".join(lines)


class Bench:
    """``with bench() as it``: a ground with its witness, for many rulesets."""

    def __init__(self, ground: Ground, witness: Witness) -> None:
        self.ground, self.witness = ground, witness
        self.state = ground.state()
        self._bare = world_of(self.state)
        self._world = self._bare
        self._rules = RuleReader(ground.path())
        self._lengths: dict[tuple[str, str, str], int] = {}
        self.files: dict[str, str] = {}

    def load(self, rules: Mapping[str, str], whole: bool = False) -> dict[str, str]:
        """Load them and read them back; what of them was loaded."""
        self.witness.disarm()
        marked = {**rules, "nft": rules.get("nft", "") + ICMP_MARKER}
        loaded = self.ground.load(marked, whole)
        loaded["nft"] = loaded["nft"].replace(ICMP_MARKER, "")
        self.files = self.ground.saved()
        self.witness.arm()
        self._world = with_rules(self._bare, self.files)
        self._rules.close()
        self._rules = RuleReader(self.ground.path())
        self._lengths = _legacy_lengths(self.ruleset)
        return {loader: text for loader, text in loaded.items() if text}

    @property
    def world(self) -> Topology:
        return self._world

    @property
    def ruleset(self) -> Ruleset:
        return self._world.snapshots[self.ground.place].ruleset

    def compare(self, packets: Iterable[Sent]) -> Iterator[Verdict]:
        """Packets that the router's own stack would not send are left out.

        The walk reads every other time what the tools listed, else what the kernel itself tells.
        """
        live = with_rules(self._bare, Asking(self._rules, self.ground.place))
        for number, sent in enumerate(packets):
            try:
                seen = self.observe(sent)
            except NotSent:
                continue
            reader, world = (("texts", self._world), ("kernel", live))[number % 2]
            ways = tuple(verdicts.ways(sent, world))
            judgement = "not judged" if seen.lost else verdicts.judge(ways, seen)
            yield Verdict(sent=sent, judgement=judgement, seen=seen, ways=ways, reader=reader)

    def observe(self, sent: Sent) -> Observation:
        return self.witness.watch(sent, self._lengths)


class Asking(Mapping[str, str]):
    """The facts about rules, as an agent reads them, asked for when they are looked up."""

    def __init__(self, rules: RuleReader, place: Netns) -> None:
        self._rules, self._place = rules, place

    def get_many(self, names: Sequence[str]) -> Mapping[str, str]:
        facts = self._rules.facts(1, self._place, names)
        return {fact.file: fact.text for fact in facts if not fact.unavailable}

    def __getitem__(self, name: str) -> str:
        return self.get_many([name])[name]

    def __contains__(self, name: object) -> bool:
        return name in self.get_many([str(name)])

    def __iter__(self) -> Iterator[str]:
        return iter(())

    def __len__(self) -> int:
        return 0


def _legacy_lengths(ruleset: Ruleset) -> dict[tuple[str, str, str], int]:
    lengths = {}
    for table in ruleset.tables():
        for name in ruleset.chain_names(table) if table.backend == "legacy" else ():
            chain = ruleset.chain(table, name)
            lengths[table.family, table.name, name] = len(chain.rules) if chain else 0
    return lengths


@contextmanager
def bench() -> Iterator[Bench]:
    """Keeps the process to one processor meanwhile (witness.py says why)."""
    before = os.sched_getaffinity(0)
    with ExitStack() as stack:
        os.sched_setaffinity(0, {min(before)})
        stack.callback(os.sched_setaffinity, 0, before)
        ground = stack.enter_context(Ground())
        witness = Witness(ground)
        stack.callback(witness.close)
        yield Bench(ground, witness)
