"""NetworkPolicies as Felix writes them: the lines below are those of real nodes, but for names.

Old: a GKE node of 2020 and a node of Calico 3.27; new: a node of Calico 3.31.
"""

from __future__ import annotations

import re

import pytest

from kptrace.lab import network_policy
from kptrace.lab.address_plan import Plan, plan
from kptrace.lab.dataplane.calico import rules as felix
from kptrace.lab.dataplane.calico.policy import NEW, OLD, FelixRelease, shape
from kptrace.lab.network_policy import CLIENT_QUARANTINE, REMOTE_CLOSED


def text(made: Plan, node: str, *more: network_policy.Policy, family: int = 0) -> str:
    """Without Felix's signatures and with the chains of hashes under one name."""
    policies = (*network_policy.healthy(made), *more)
    rules = felix.pod_rules(made, made.node(node), family, policies)
    unsigned = re.sub(r'-m comment --comment "cali:[^"]*" ', "", rules)
    return re.sub(r"(cali-p[io])-_\S{19}", r"\1-X", unsigned)


def chain(rules: str, name: str) -> list[str]:
    start = f"-A {name} "
    return [
        line.removeprefix(start).strip() for line in rules.splitlines() if line.startswith(start)
    ]


def test_a_closed_pod_of_an_older_release() -> None:
    made = plan(network="calico-direct")
    rules = text(made, "node-b", REMOTE_CLOSED)
    pod = made.pod("shop/remote-1").interface
    assert chain(rules, f"cali-tw-{pod}") == [
        "-m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT",
        "-m conntrack --ctstate INVALID -j DROP",
        "-j MARK --set-xmark 0x0/0x30000",
        '-m comment --comment "Start of policies" -j MARK --set-xmark 0x0/0x20000',
        "-m mark --mark 0x0/0x20000 -j cali-pi-X",
        '-m comment --comment "Return if policy accepted" -m mark --mark 0x10000/0x10000 -j RETURN',
        '-m comment --comment "Drop if no policies passed packet" -m mark --mark 0x0/0x20000'
        " -j DROP",
        "-j cali-pri-kns.shop",
        '-m comment --comment "Return if profile accepted" -m mark --mark 0x10000/0x10000'
        " -j RETURN",
        '-m comment --comment "Drop if no profiles matched" -j DROP',
    ]
    why = '-m comment --comment "Policy shop/knp.default.remote-closed ingress"'
    assert why in chain(rules, "cali-pi-X")


def test_tiers_and_kinds_of_a_newer_release() -> None:
    made = plan(network="calico-vxlan")
    rules = text(made, "node-a", CLIENT_QUARANTINE)
    lines = chain(rules, f"cali-fw-{made.pod('shop/client').interface}")
    tiers = (re.search("(Start|End) of tier [a-z]+", line) for line in lines)
    assert [found[0] for found in tiers if found] == [
        "Start of tier security",
        "End of tier security",
        "Start of tier default",
        "End of tier default",
    ]
    why = '-m comment --comment "NetworkPolicy shop/client-quarantine egress"'
    deny, drop, mark = (line for line in chain(rules, "cali-po-X")[-3:])
    assert re.fullmatch(
        rf"-p tcp {why} -m set --match-set cali40s:\S{{23}} dst -j MARK --set-xmark 0x40000/0x40000"
        rf"|{why} -p tcp -m set --match-set cali40s:\S{{23}} dst"
        r" -j MARK --set-xmark 0x40000/0x40000",
        deny,
    )
    assert drop == "-m mark --mark 0x40000/0x40000 -j DROP"
    assert mark == "-j MARK --set-xmark 0x20000/0x20000"


@pytest.mark.parametrize("made", [OLD, NEW])
def test_no_bit_means_two_things(made: FelixRelease) -> None:
    bits = [made.accept, made.passed, made.drop, made.scratch0, made.scratch1, made.endpoints]
    assert sum(bits) == 0xFFFF0000
    assert made.endpoints % made.stranger == 0


def test_networks_of_the_other_family_are_left_out() -> None:
    made = plan(network="calico-vxlan")
    assert "10.244." not in text(made, "node-a", family=1)
    assert "fd00:" not in text(made, "node-a", family=0)


def test_a_node_has_the_policies_of_its_own_pods_alone() -> None:
    made = plan(network="calico-vxlan")
    assert "client-to-cluster" in text(made, "node-a")
    assert "client-to-cluster" not in text(made, "node-b")


def test_one_network_has_the_newer_shape() -> None:
    networks = ("calico-ipip", "calico-crosssubnet", "calico-direct", "calico-vxlan")
    assert [shape(plan(network=one)) for one in networks] == [OLD, OLD, OLD, NEW]
