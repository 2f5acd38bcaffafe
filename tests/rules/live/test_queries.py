"""Questions about rules, and the names of the files that answer them."""

from __future__ import annotations

import pytest

from kptrace.rules.live.queries import TABLES, RuleQuery, in_ipset, in_table, is_query, parse_query
from kptrace.rules.model.ruleset import Table

NAT = Table(backend="nft", family="ip", name="nat")
PROXY = Table(backend="nft", family="ip", name="kube-proxy")


@pytest.mark.parametrize(
    ("query", "file"),
    [
        (RuleQuery(kind="tables"), TABLES),
        (in_table(NAT, "chains"), "rules/nft/ip/nat/chains.json"),
        (in_table(NAT, "chain", "KUBE-SERVICES"), "rules/nft/ip/nat/chain/KUBE-SERVICES.json"),
        (
            in_table(PROXY, "chain", "service-AB-default/web/tcp/http"),
            "rules/nft/ip/kube-proxy/chain/service-AB-default%2Fweb%2Ftcp%2Fhttp.json",
        ),
        (
            in_table(NAT, "chain", "X").part_query("by-destination", "fd00::1"),
            "rules/nft/ip/nat/chain/X/by-destination/fd00%3A%3A1.json",
        ),
        (
            in_table(NAT, "chain", "X").part_query("containing", "default/web"),
            "rules/nft/ip/nat/chain/X/containing/default%2Fweb.json",
        ),
        (
            in_table(PROXY, "set", "service-ips").part_query("key-pattern", "........0a600001"),
            "rules/nft/ip/kube-proxy/set/service-ips/key-pattern/%2E%2E%2E%2E%2E%2E%2E%2E0a600001.json",
        ),
        (in_ipset("set", "KUBE-CLUSTER-IP"), "rules/ipset/set/KUBE-CLUSTER-IP.json"),
        (in_ipset("number", "3"), "rules/ipset/number/3.json"),
        (in_ipset("sets"), "rules/ipset/sets.json"),
    ],
)
def test_a_question_is_the_name_of_its_file(query: RuleQuery, file: str) -> None:
    assert query.file == file
    assert parse_query(file) == query


@pytest.mark.parametrize("name", ["..", ".", "a/../../b", "/etc/passwd", "%2e", "ü\n\0", "a b"])
def test_a_name_never_leaves_its_folder(name: str) -> None:
    query = in_table(NAT, "chain", name)
    parts = query.file.split("/")
    assert parts[:5] == ["rules", "nft", "ip", "nat", "chain"]
    assert len(parts) == 6
    assert not {".", ".."} & {part.removesuffix(".json") for part in parts}
    assert parse_query(query.file) == query


@pytest.mark.parametrize(
    "file",
    [
        "ip-link.json",
        "rules/nft/ip/nat.json",
        "rules/nft/ip/nat/chain.json",
        "rules/nft/ip/nat/chains/X.json",
        "rules/nft/ip/nat/chain/X/other/y.json",
        "rules/nft/ip/nat/chain/X/by-destination/y/z.json",
        "rules/other/ip/nat/chain/X.json",
        "rules/.json",
    ],
)
def test_what_is_no_question(file: str) -> None:
    assert parse_query(file) is None


def test_which_files_are_questions() -> None:
    assert is_query(TABLES)
    assert not is_query("iptables-save.txt")
