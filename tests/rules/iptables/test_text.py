"""Every textual form of one ruleset gives the same rules as its save.

The files in forms/ were printed by iptables-nft 1.8.9 for one ruleset.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from kptrace.model.errors import ParseError
from kptrace.rules.iptables.save import IptablesSave
from kptrace.rules.iptables.text import read_iptables
from kptrace.rules.model.expressions import Part, UnknownStatement, Verdict
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


def texts(source: IptablesSave) -> dict[tuple[str, str], list[str]]:
    return {
        (table.name, name): [rule.text for rule in chain.rules]
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
            found = listed[table, chain][number]
            unknown = [part for part in found if isinstance(part, UnknownStatement)]
            if chain.startswith("KUBE-") and name == "list-brief.txt":
                assert found == body
            elif not chain.startswith("KUBE-") and "KUBE-" not in repr(body):
                assert UnknownStatement(text="-m interfaces --not-listed") in unknown


def test_counters_of_the_exact_list() -> None:
    source = read("list-exact.txt")
    nat = Table(backend="nft", family="ip", name="nat")
    chain = source.chain(nat, "KUBE-SERVICES")
    assert chain is not None
    assert (chain.rules[0].packets, chain.rules[0].bytes) == (0, 0)


# --- one chain, single lines, what is left out --------------------------------------------------

SERVICE = """\
-A KUBE-SERVICES -d 10.96.0.10/32 -p tcp -m comment --comment "default/web cluster IP" -m tcp --dport 80 -j KUBE-SVC-AAAAAAAAAAAAAAAA
-A KUBE-SVC-AAAAAAAAAAAAAAAA -m comment --comment "default/web -> 10.244.0.5:8080" -m statistic --mode random --probability 0.50000000000 -j KUBE-SEP-AAAAAAAAAAAAAAAA
-A KUBE-SVC-AAAAAAAAAAAAAAAA -m comment --comment "default/web -> 10.244.0.6:8080" -j KUBE-SEP-BBBBBBBBBBBBBBBB
-A KUBE-SEP-AAAAAAAAAAAAAAAA -p tcp -m tcp -j DNAT --to-destination 10.244.0.5:8080
"""  # noqa: E501
LISTED = """\
Chain KUBE-SVC-AAAAAAAAAAAAAAAA (2 references)
target     prot opt source               destination
KUBE-SEP-AAAAAAAAAAAAAAAA  all  --  anywhere  anywhere  /* default/web */ statistic mode random probability 0.50000000000
KUBE-SEP-BBBBBBBBBBBBBBBB  all  --  anywhere  anywhere  /* default/web */
"""  # noqa: E501


def source_of(text: str) -> IptablesSave:
    return read_iptables(text, "pasted", "legacy", "ip")


NAT = Table(backend="legacy", family="ip", name="nat")
FILTER = Table(backend="legacy", family="ip", name="filter")


def test_lines_without_their_table() -> None:
    source = source_of(SERVICE)
    assert source.tables() == (NAT,)
    assert source.excerpt is not None
    assert source.excerpt.whole == frozenset()
    chain = source.chain(NAT, "KUBE-SVC-AAAAAAAAAAAAAAAA")
    assert chain is not None
    assert [rule.number for rule in chain.rules] == [1, 2]


def test_a_chain_that_is_not_in_the_text_is_jumped_to_all_the_same() -> None:
    source = source_of("-A KUBE-SVC-AAAAAAAAAAAAAAAA -j KUBE-SEP-BBBBBBBBBBBBBBBB\n")
    assert source.excerpt is not None
    assert source.excerpt.absent == {"nat": frozenset({"KUBE-SEP-BBBBBBBBBBBBBBBB"})}
    assert source.chain(NAT, "KUBE-SEP-BBBBBBBBBBBBBBBB") is None
    chain = source.chain(NAT, "KUBE-SVC-AAAAAAAAAAAAAAAA")
    assert chain is not None
    assert chain.rules[0].body == (Verdict(kind="jump", chain="KUBE-SEP-BBBBBBBBBBBBBBBB"),)


def test_an_endpoint_whose_chain_is_missing_is_known_by_the_comment() -> None:
    source = source_of(SERVICE)
    assert texts(source)["nat", "KUBE-SEP-BBBBBBBBBBBBBBBB"] == [
        "-s 10.244.0.6/32 -j KUBE-MARK-MASQ",
        "-j DNAT --to-destination 10.244.0.6:8080",
    ]
    assert source.excerpt is not None
    assert "nat KUBE-SEP-BBBBBBBBBBBBBBBB -j DNAT --to-destination 10.244.0.6:8080" in (
        source.excerpt.assumed
    )


def test_the_chains_that_masquerade_are_assumed() -> None:
    found = texts(source_of("-A KUBE-SEP-AAAAAAAAAAAAAAAA -s 10.244.0.5/32 -j KUBE-MARK-MASQ\n"))
    assert found["nat", "KUBE-MARK-MASQ"] == ["-j MARK --set-xmark 0x4000/0x4000"]
    assert found["nat", "KUBE-POSTROUTING"][0] == "-m mark ! --mark 0x4000/0x4000 -j RETURN"
    assert found["nat", "POSTROUTING"] == [
        '-m comment --comment "kubernetes postrouting rules" -j KUBE-POSTROUTING'
    ]


def test_the_rules_that_lead_to_the_services_are_assumed() -> None:
    """kube-proxy writes them on every node, and who pastes KUBE-SERVICES leaves them out."""
    source = source_of(SERVICE)
    entries = {chain.name: [rule.text for rule in chain.rules] for chain in source.base_chains(NAT)}
    jump = '-m comment --comment "kubernetes service portals" -j KUBE-SERVICES'
    assert entries["PREROUTING"] == entries["OUTPUT"] == [jump]


def test_the_chain_of_a_service_alone() -> None:
    """Its first rule names the ClusterIP, with the comment and port of KUBE-SERVICES."""
    masquerade = (
        "-A KUBE-SVC-AAAAAAAAAAAAAAAA ! -s 10.244.0.0/16 -d 10.96.0.10/32 -p tcp -m comment "
        '--comment "default/web:http cluster IP" -m tcp --dport 80 -j KUBE-MARK-MASQ\n'
    )
    source = source_of(masquerade + "".join(SERVICE.splitlines(keepends=True)[1:]))
    chain = source.chain(NAT, "KUBE-SERVICES")
    assert chain is not None
    assert [rule.text for rule in chain.rules] == [
        '-d 10.96.0.10/32 -p tcp -m comment --comment "default/web:http cluster IP" '
        "-m tcp --dport 80 -j KUBE-SVC-AAAAAAAAAAAAAAAA"
    ]
    names = [chain.name for chain in source.base_chains(NAT)]
    assert names == ["PREROUTING", "OUTPUT", "POSTROUTING"]


@pytest.mark.parametrize(
    "prefix", ["", "12:", "iptables-save.txt:", "./node/save.txt:12:", "12-", "[4:240] "]
)
def test_lines_as_grep_prints_them(prefix: str) -> None:
    text = "".join(f"{prefix}{line}\n" for line in SERVICE.splitlines())
    assert texts(source_of(text)) == texts(source_of(SERVICE))


def test_one_chain_of_a_list() -> None:
    source = source_of(LISTED)
    assert source.tables() == (NAT,)
    assert source.excerpt is not None
    assert source.excerpt.absent["nat"] == {
        "KUBE-SEP-AAAAAAAAAAAAAAAA",
        "KUBE-SEP-BBBBBBBBBBBBBBBB",
    }


MIXED = """\
-A KUBE-SERVICES -d 10.96.0.10/32 -p tcp -m tcp --dport 80 -j KUBE-SVC-AAAAAAAAAAAAAAAA
-A KUBE-SERVICES -d 10.96.0.11/32 -p tcp -m tcp --dport 80 -j REJECT --reject-with icmp-port-unreachable
-A FORWARD -m conntrack --ctstate NEW -m comment --comment "kubernetes service portals" -j KUBE-SERVICES
-A PREROUTING -m comment --comment "kubernetes service portals" -j KUBE-SERVICES
-A KUBE-FORWARD -m mark --mark 0x4000/0x4000 -j ACCEPT
-A MINE -j KUBE-SVC-AAAAAAAAAAAAAAAA
-A PREROUTING -d 169.254.20.10/32 -p udp -m udp --dport 53 -j NOTRACK
"""  # noqa: E501


def test_each_line_goes_to_the_table_of_its_target() -> None:
    assert texts(source_of(MIXED)) == {
        ("nat", "PREROUTING"): [
            '-m comment --comment "kubernetes service portals" -j KUBE-SERVICES'
        ],
        ("nat", "OUTPUT"): ['-m comment --comment "kubernetes service portals" -j KUBE-SERVICES'],
        ("nat", "KUBE-SERVICES"): [
            "-d 10.96.0.10/32 -p tcp -m tcp --dport 80 -j KUBE-SVC-AAAAAAAAAAAAAAAA"
        ],
        ("nat", "MINE"): ["-j KUBE-SVC-AAAAAAAAAAAAAAAA"],
        ("filter", "FORWARD"): [
            "-m conntrack --ctstate NEW -m comment --comment "
            '"kubernetes service portals" -j KUBE-SERVICES'
        ],
        ("filter", "OUTPUT"): [
            "-m conntrack --ctstate NEW -m comment --comment "
            '"kubernetes service portals" -j KUBE-SERVICES'
        ],
        ("filter", "KUBE-SERVICES"): [
            "-d 10.96.0.11/32 -p tcp -m tcp --dport 80 -j REJECT "
            "--reject-with icmp-port-unreachable"
        ],
        ("filter", "KUBE-FORWARD"): ["-m mark --mark 0x4000/0x4000 -j ACCEPT"],
        ("raw", "PREROUTING"): ["-d 169.254.20.10/32 -p udp -m udp --dport 53 -j NOTRACK"],
    }


@pytest.mark.parametrize("mark", ["...", "…", "# ...", "[...]", "<snip>", "(more rules)"])
def test_lines_that_were_left_out_leave_a_chain_open(mark: str) -> None:
    first, second = SERVICE.splitlines()[1:3]
    source = source_of(
        f"*nat\n:KUBE-SVC-AAAAAAAAAAAAAAAA - [0:0]\n{first}\n{mark}\n{second}\nCOMMIT\n"
    )
    assert source.excerpt is not None
    assert "nat" not in source.excerpt.whole
    chain = source.chain(NAT, "KUBE-SVC-AAAAAAAAAAAAAAAA")
    assert chain is not None
    assert chain.rules[1].body == (UnknownStatement(text="..."),)
    assert len(chain.rules) == 3


def test_the_input_of_iptables_restore() -> None:
    """As kube-proxy gives it: its own chains only, and those that it deletes."""
    text = f"""\
*filter
:KUBE-FORWARD - [0:0]
-A KUBE-FORWARD -m conntrack --ctstate INVALID -j DROP
COMMIT
*nat
:KUBE-SERVICES - [0:0]
:KUBE-SVC-AAAAAAAAAAAAAAAA - [0:0]
:KUBE-SEP-AAAAAAAAAAAAAAAA - [0:0]
:KUBE-SEP-GONE - [0:0]
:KUBE-MARK-MASQ - [0:0]
{SERVICE}-A KUBE-MARK-MASQ -j MARK --or-mark 0x4000
-X KUBE-SEP-GONE
COMMIT
"""
    source = source_of(text)
    assert source.excerpt is not None
    assert source.excerpt.whole == frozenset()
    assert source.chain(NAT, "KUBE-SEP-GONE") is None
    mark = source.chain(NAT, "KUBE-MARK-MASQ")
    saved = source_of("-A KUBE-MARK-MASQ -j MARK --set-xmark 0x4000/0x4000\n")
    expected = saved.chain(NAT, "KUBE-MARK-MASQ")
    assert mark is not None
    assert expected is not None
    assert mark.rules[0].body == expected.rules[0].body
    forward = [chain for chain in source.base_chains(FILTER) if chain.name == "FORWARD"]
    assert "-j KUBE-FORWARD" in forward[0].rules[0].text


def test_a_script() -> None:
    source = source_of(
        "#!/bin/sh\n"
        "sudo iptables -t nat -A POSTROUTING -s 10.0.0.0/8 -j MASQUERADE\n"
        "iptables -P FORWARD DROP\n"
        "iptables -w 5 -A FORWARD -j ACCEPT\n"
        "iptables -I FORWARD 1 -p tcp --dport 22 -j DROP\n"
        "iptables -I FORWARD 1 -p tcp --dport 23 -j DROP\n"
        "iptables -D FORWARD -p tcp --dport 23 -j DROP\n"
    )
    assert texts(source) == {
        ("nat", "POSTROUTING"): ["-s 10.0.0.0/8 -j MASQUERADE"],
        ("filter", "FORWARD"): ["-p tcp --dport 22 -j DROP", "-j ACCEPT"],
    }
    assert [chain.policy for chain in source.base_chains(FILTER)] == ["drop"]


def test_a_line_that_is_no_rule_is_named() -> None:
    with pytest.raises(ParseError, match="pasted:2: 'and here is the rest' is no iptables rule"):
        source_of("-A FORWARD -j ACCEPT\nand here is the rest\n")


def test_an_error_names_the_line_of_the_original() -> None:
    source = source_of('\n\n-A FORWARD -j ACCEPT\n-A FORWARD -m comment --comment "x -j DROP\n')
    chain = source.chain(FILTER, "FORWARD")
    assert chain is not None
    with pytest.raises(ParseError, match="pasted:4: a quote that does not close"):
        list(chain.rules)


def test_a_save_that_is_cut_off_is_refused() -> None:
    with pytest.raises(ParseError, match="has no COMMIT"):
        source_of("*nat\n:PREROUTING ACCEPT [0:0]\n-A PREROUTING -j ACCEPT\n")
