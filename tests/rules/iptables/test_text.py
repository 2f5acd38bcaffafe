"""Every textual form of one ruleset gives the same rules as its save.

The files in forms/ were printed by iptables-nft 1.8.9 for one ruleset.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from support.pasted_rules import source_of, texts

from kptrace.model.errors import ParseError
from kptrace.rules.iptables.save import IptablesSave
from kptrace.rules.iptables.text import read_iptables
from kptrace.rules.model.expressions import Part, UnknownStatement
from kptrace.rules.model.ruleset import Table

FORMS = Path(__file__).parent / "forms"
WHOLE = frozenset({"filter", "nat", "mangle", "raw"})
Body = tuple[Part, ...]


def read(name: str) -> IptablesSave:
    return read_iptables((FORMS / name).read_text(), name, "nft", "ip")


def bodies(source: IptablesSave) -> dict[tuple[str, str], list[Body]]:
    return {
        (table.name, name): [rule.body for rule in chain.rules]
        for table in source.tables()
        for name in source.chain_names(table)
        if (chain := source.chain(table, name))
    }


@pytest.fixture(scope="module")
def saved() -> IptablesSave:
    return IptablesSave((FORMS / "save.txt").read_text(), "save.txt", "nft", "ip")


@pytest.mark.parametrize(
    "name", ["list-rules.txt", "list-rules-bare.txt", "list-rules-verbose.txt"]
)
def test_list_rules(name: str, saved: IptablesSave) -> None:
    source = read(name)
    assert texts(source) == texts(saved)
    assert bodies(source) == bodies(saved)
    assert source.excerpt is not None
    assert source.excerpt.whole == WHOLE


@pytest.mark.parametrize("name", ["list.txt", "list-exact.txt"])
def test_list_with_interfaces(name: str, saved: IptablesSave) -> None:
    source = read(name)
    assert bodies(source) == bodies(saved)
    assert source.excerpt is not None
    assert source.excerpt.whole == WHOLE


@pytest.mark.parametrize("name", ["list-brief.txt", "list-names.txt"])
def test_list_without_interfaces_leaves_open_whether_a_rule_matches(
    name: str, saved: IptablesSave
) -> None:
    """But for rules of kube-proxy, which have no interface."""
    listed = bodies(read(name))
    for (table, chain), rules in bodies(saved).items():
        for number, body in enumerate(rules):
            listed_body = listed[table, chain][number]
            unknown = [part for part in listed_body if isinstance(part, UnknownStatement)]
            if chain.startswith("KUBE-") and name == "list-brief.txt":
                assert listed_body == body
            elif not chain.startswith("KUBE-") and "KUBE-" not in repr(body):
                assert UnknownStatement(text="-m interfaces --not-listed") in unknown


def test_counters_of_the_exact_list() -> None:
    source = read("list-exact.txt")
    nat = Table(backend="nft", family="ip", name="nat")
    chain = source.chain(nat, "KUBE-SERVICES")
    assert chain is not None
    assert (chain.rules[0].packets, chain.rules[0].bytes) == (0, 0)


def test_a_save_that_is_cut_off_is_refused() -> None:
    with pytest.raises(ParseError, match="has no COMMIT"):
        source_of("*nat\n:PREROUTING ACCEPT [0:0]\n-A PREROUTING -j ACCEPT\n")
