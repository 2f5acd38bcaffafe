"""``nft list ruleset`` text gives the same rules as the JSON of the same ruleset."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest

from kptrace.model.errors import ParseError
from kptrace.rules.model.expressions import (
    Comparison,
    Const,
    Count,
    Dnat,
    Field,
    NoEffect,
    RandomMatch,
    UnknownStatement,
    Verdict,
)
from kptrace.rules.model.ruleset import Chain, Rule, Table
from kptrace.rules.nftables.json_ruleset import NftRuleset
from kptrace.rules.nftables.text_ruleset import looks_like, read_nft_text

FORMS = Path(__file__).parent / "forms"  # nft 1.0.6 listed one ruleset twice


def read(path: Path) -> str:
    compressed = path.with_name(path.name + ".gz")
    return path.read_text() if path.is_file() else gzip.decompress(compressed.read_bytes()).decode()


def is_listed_by_name_only(rule: Rule) -> bool:
    """A rule of iptables-nft, of which the JSON lacks what it matches and does."""
    return '"xt"' in repr(rule.body) or "xt comment" in repr(rule.body)


def assert_same(text: NftRuleset, listed: NftRuleset, counters: bool = True) -> int:
    """Compare all chains, rules and sets; return the number of rules."""
    assert set(text.tables()) == set(listed.tables())
    count = 0
    for table in listed.tables():
        assert set(text.chain_names(table)) == set(listed.chain_names(table))
        assert set(text.set_names(table)) == set(listed.set_names(table))
        for name in listed.chain_names(table):
            chain, expected = text.chain(table, name), listed.chain(table, name)
            assert chain is not None
            assert expected is not None
            assert head(chain) == head(expected), name
            assert len(chain.rules) == len(expected.rules), name
            for rule, wanted_rule in zip(chain.rules, expected.rules, strict=True):
                if not is_listed_by_name_only(wanted_rule):
                    assert rule.body == wanted_rule.body, wanted_rule.text
                    assert rule.comment == wanted_rule.comment
                    assert not counters or rule.text == wanted_rule.text
                    assert not counters or rule.packets == wanted_rule.packets
                    count += 1
        for name in listed.set_names(table):
            actual, wanted_set = text.set(table, name), listed.set(table, name)
            assert actual is not None
            assert wanted_set is not None
            assert (actual.kind, actual.type, actual.flags, actual.timeout, actual.comment) == (
                wanted_set.kind,
                wanted_set.type,
                wanted_set.flags,
                wanted_set.timeout,
                wanted_set.comment,
            )
            assert list(actual.members) == list(wanted_set.members), name
    return count


def head(chain: Chain) -> tuple[str | int, ...]:
    return chain.hook, chain.priority, chain.policy, chain.type, chain.device


def test_everything_that_nft_can_say() -> None:
    text = read_nft_text((FORMS / "list-ruleset.txt").read_text(), "nft-ruleset.txt")
    listed = NftRuleset((FORMS / "list-ruleset.json").read_text(), "nft-ruleset.json")
    assert assert_same(text, listed) == 350


def test_real_rulesets(dumps: Path) -> None:
    """Also with handles, as ``nft -a`` prints them."""
    checked = 0
    for path in sorted(dumps.glob("*/node-*/nft-ruleset.txt")):
        listed = NftRuleset(read(path.with_name("nft-ruleset.json")), "json")
        for name in ("nft-ruleset.txt", "nft-ruleset-handles.txt"):
            text = read_nft_text(read(path.with_name(name)), name)
            assert assert_same(text, listed) >= 19
            checked += 1
    assert checked >= 8


def test_handles_give_the_age_of_chains(dumps: Path) -> None:
    path = dumps / "nftables-default" / "node-a" / "nft-ruleset-handles.txt"
    listed = NftRuleset(read(path.with_name("nft-ruleset.json")), "json")
    assert read_nft_text(read(path), "text").ages == listed.ages


# --- single forms -----------------------------------------------------------------------------


def rules(text: str, table: str = "ip t", name: str = "c") -> list[Rule]:
    family, _, table_name = table.partition(" ")
    source = read_nft_text(f"table {table} {{\n\tchain {name} {{\n{text}\n\t}}\n}}\n", "pasted")
    chain = source.chain(Table(backend="nft", family=family, name=table_name), name)
    assert chain is not None
    return list(chain.rules)


def test_a_chain_with_its_hook() -> None:
    source = read_nft_text(
        "table inet f {\n\tchain in { # handle 7\n"
        "\t\ttype filter hook input priority filter - 5; policy drop;\n"
        '\t\tiifname "lo" accept # handle 9\n\t}\n}\n',
        "pasted",
    )
    table = Table(backend="nft", family="inet", name="f")
    (chain,) = source.base_chains(table)
    assert (chain.name, chain.hook, chain.priority, chain.policy) == ("in", "input", -5, "drop")
    (rule,) = chain.rules
    assert rule.handle == 9
    assert rule.body == (
        Comparison(left=Field(key="meta iifname"), op="==", right=Const(value="lo")),
        Verdict(kind="accept"),
    )


def test_a_dormant_table_has_no_base_chains() -> None:
    text = (
        "table ip f {\n\tflags dormant\n\tchain in {\n"
        "\t\ttype filter hook input priority 0; policy drop;\n\t}\n}\n"
    )
    table = Table(backend="nft", family="ip", name="f")
    assert read_nft_text(text, "pasted").base_chains(table) == ()


def test_a_stateless_list_has_no_counters() -> None:
    (rule,) = rules("counter accept")
    assert rule.body == (Count(), Verdict(kind="accept"))
    assert rule.packets is None


def test_an_iptables_rule_is_listed_in_words_of_nft() -> None:
    """nft translates what it can; of a comment only the blanks around it are left."""
    (rule,) = rules(
        "meta l4proto tcp   counter packets 0 bytes 0 dnat to 10.244.2.11:8080", "ip nat"
    )
    assert rule.body == (
        Comparison(left=Field(key="meta l4proto"), op="==", right=Const(value="tcp")),
        NoEffect(text="xt comment"),
        Count(),
        Dnat(addr=Const(value="10.244.2.11"), port=Const(value=8080)),
    )


def test_a_random_choice_of_iptables() -> None:
    (rule,) = rules("meta random & 2147483647 < 715827883 jump X", "ip nat")
    (match, _) = rule.body
    assert isinstance(match, RandomMatch)
    assert abs(match.probability - 1 / 3) < 1e-6


@pytest.mark.parametrize(
    ("text", "unknown", "verdict"),
    [
        ("ip saddr 10.0.0.1 frobnicate the packet drop", "frobnicate the packet", "drop"),
        ("ipsec in reqid 1 accept", "ipsec in reqid 1", "accept"),
        ("frobnicate { 1, 2 } jump c", "frobnicate { 1, 2 }", "jump"),
        ("frobnicate", "frobnicate", ""),
    ],
)
def test_a_statement_that_is_not_understood_stays_open(
    text: str, unknown: str, verdict: str
) -> None:
    (rule,) = rules(text)
    parts = [part for part in rule.body if isinstance(part, UnknownStatement)]
    assert [part.match for part in parts] == [True]
    assert unknown in parts[0].text
    last = rule.body[-1]
    assert last.kind == verdict if isinstance(last, Verdict) else not verdict


def test_blanks_instead_of_tabs_and_comments() -> None:
    source = read_nft_text(
        "# Warning: table ip nat is managed by iptables-nft, do not touch!\n"
        "table ip t {\n  set s {\n    type ipv4_addr\n    elements = { 10.0.0.1,\n"
        "                 10.0.0.2 }\n  }\n\n  chain c { ip saddr @s drop; }\n}\n",
        "pasted",
    )
    table = Table(backend="nft", family="ip", name="t")
    actual = source.set(table, "s")
    assert actual is not None
    assert actual.members.lookup(("10.0.0.2",)) is not None
    chain = source.chain(table, "c")
    assert chain is not None
    assert len(chain.rules) == 1


@pytest.mark.parametrize(
    ("text", "line", "said"),
    [
        ("table ip t {\n\tchain c {\n\t\taccept\n", 4, "the text is cut off"),
        ("table ip t {\n\tset s {\n\t\telements = { 1, 2\n\t}\n", 5, "the text is cut off"),
        ("chain c {\n}\n", 1, "'chain' instead of 'table'"),
        ("table ip t {\n\tfrob x\n}\n", 2, "'frob' in a table"),
        ("# nothing\n", 0, "no table in it"),
    ],
)
def test_broken_text_is_named_with_its_line(text: str, line: int, said: str) -> None:
    with pytest.raises(ParseError) as raised:
        read_nft_text(text, "pasted")
    assert str(raised.value).startswith(f"pasted:{line}:" if line else "pasted:")
    assert said in str(raised.value)


def test_which_form_it_is() -> None:
    assert looks_like("table ip kube-proxy {\n}\n")
    assert looks_like("table inet x { # handle 3\n}\n")
    assert not looks_like('{"nftables": []}')
    assert not looks_like("*nat\n:PREROUTING ACCEPT [0:0]\nCOMMIT\n")
