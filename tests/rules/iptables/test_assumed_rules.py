"""kube-proxy's fixed rules, where a text lacks them."""

from __future__ import annotations

from support.pasted_rules import NAT, SERVICE, source_of, texts


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
    rules = texts(source_of("-A KUBE-SEP-AAAAAAAAAAAAAAAA -s 10.244.0.5/32 -j KUBE-MARK-MASQ\n"))
    assert rules["nat", "KUBE-MARK-MASQ"] == ["-j MARK --set-xmark 0x4000/0x4000"]
    assert rules["nat", "KUBE-POSTROUTING"][0] == "-m mark ! --mark 0x4000/0x4000 -j RETURN"
    assert rules["nat", "POSTROUTING"] == [
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
