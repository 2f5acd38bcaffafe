"""One Ruleset over several sources, and the kernel's order of base chains."""

from __future__ import annotations

from kptrace.rules.model.expressions import Const, SetRef, Verdict
from kptrace.rules.model.ruleset import Chain, InMemorySource, Rule, Rules, Ruleset, Table
from kptrace.rules.model.sets import Element, Set, SetElements

LEGACY = Table(backend="legacy", family="ip", name="filter")
NFT = Table(backend="nft", family="ip", name="filter")
INET = Table(backend="nft", family="inet", name="mine")


def base(
    table: Table,
    name: str,
    priority: int,
    age: tuple[int, int] = (0, 0),
    hook: str = "input",
) -> Chain:
    return Chain(table=table, name=name, hook=hook, priority=priority, type="filter", age=age)


def test_base_chains_by_priority_and_the_newest_first_among_equals() -> None:
    """nf_hook_entries_grow puts a new hook before those of its own priority."""
    ruleset = Ruleset(
        [
            InMemorySource([base(LEGACY, "INPUT", 0)]),
            InMemorySource(
                [
                    base(NFT, "old", 0, (3, 1)),
                    base(NFT, "new", 0, (3, 5)),
                    base(INET, "newest", 0, (8, 1)),
                    base(INET, "early", -300, (8, 2)),
                    base(INET, "elsewhere", 0, hook="output"),
                ]
            ),
        ]
    )
    met = [chain.name for chain in ruleset.base_chains("ip", "input")]
    assert met == ["early", "newest", "new", "old", "INPUT"]
    assert [chain.name for chain in ruleset.base_chains("ip6", "input")] == ["early", "newest"]
    assert ruleset.base_chains("bridge", "input") == ()


def test_the_first_source_of_a_table_is_believed() -> None:
    rule = Rule(table=NFT, chain="c", number=1, text="drop", body=(Verdict(kind="drop"),))
    known = InMemorySource([Chain(table=NFT, name="c", rules=Rules([rule]))])
    lossy = InMemorySource([Chain(table=NFT, name="c"), Chain(table=INET, name="d")])
    ruleset = Ruleset([known, lossy])
    assert ruleset.tables() == (NFT, INET)
    chain = ruleset.chain(NFT, "c")
    assert chain is not None
    assert list(chain.rules) == [rule]
    assert ruleset.chain_names(INET) == ("d",)
    assert ruleset.chain(LEGACY, "c") is None
    assert ruleset.chain_names(LEGACY) == ()


def test_a_reference_means_the_rules_own_table_or_an_ipset() -> None:
    def named(text: str) -> Set:
        members = SetElements([Element(key=Const(value=text))])
        return Set(name="s", kind="set", type=("ipv4_addr",), members=members)

    own, ipset = named("own"), named("ipset")
    ruleset = Ruleset(
        [
            InMemorySource([Chain(table=NFT, name="c")], {NFT: [own]}),
            InMemorySource((), {None: [ipset]}),
        ]
    )
    rule = Rule(table=NFT, chain="c", number=1, text="")
    assert ruleset.referenced_set(rule, SetRef(name="s")) == own
    assert ruleset.referenced_set(rule, SetRef(name="s", ipset=True)) == ipset
    assert ruleset.referenced_set(rule, SetRef(name="x")) is None
    assert ruleset.set_names(NFT) == ("s",)
    assert ruleset.set_names(INET) == ()


def test_a_chain_is_asked_for_once() -> None:
    class Counting(InMemorySource):
        asked = 0

        def chain(self, table: Table, name: str) -> Chain | None:
            self.asked += 1
            return super().chain(table, name)

    source = Counting([Chain(table=NFT, name="c")])
    ruleset = Ruleset([source])
    assert ruleset.chain(NFT, "c") is ruleset.chain(NFT, "c")
    assert source.asked == 1


def test_a_rule_refers_to_itself_as_reports_do() -> None:
    rule = Rule(table=LEGACY, chain="INPUT", number=3, text="-j DROP")
    ref = rule.ref("drops it")
    assert (ref.backend, ref.family, ref.table, ref.chain, ref.number) == (
        "legacy",
        "ip",
        "filter",
        "INPUT",
        3,
    )
    assert (ref.text, ref.description) == ("-j DROP", "drops it")
