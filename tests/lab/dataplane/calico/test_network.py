"""What Calico leaves on a node of the lab: names, routes and rules as its sources have them."""

from __future__ import annotations

from ipaddress import ip_address, ip_network

import pytest

from kptrace.lab import network_policy, topology
from kptrace.lab.address_plan import plan
from kptrace.lab.dataplane.calico import network as calico
from kptrace.lab.dataplane.calico import rules
from kptrace.lab.network_objects import AddRoute, SetLink
from kptrace.rules.iptables.save import IptablesSave
from kptrace.rules.model.expressions import UnknownStatement
from kptrace.rules.model.ruleset import Table

CALICO = ("calico-ipip", "calico-crosssubnet", "calico-vxlan", "calico-direct")


def test_a_pods_device_is_named_by_the_hash_of_its_name() -> None:
    """printf shop.client | sha1sum begins with aa50613ef2d."""
    assert plan(network="calico-ipip").pod("shop/client").interface == "caliaa50613ef2d"


@pytest.mark.parametrize("network", CALICO)
def test_blocks_hold_every_pod_and_are_of_calicos_size(network: str) -> None:
    lab_plan = plan(network=network)
    for pod in lab_plan.pods:
        node = lab_plan.node(pod.node)
        for family, length in enumerate((26, 122)):
            blocks = [ip_network(one) for one in lab_plan.blocks(node, family)]
            assert all(block.prefixlen == length for block in blocks)
            assert any(ip_address(pod.addresses[family]) in block for block in blocks)


def test_the_routes_of_ipip() -> None:
    lab_plan = plan(network="calico-ipip")
    objects = topology.node_setup(lab_plan, lab_plan.node("node-a")).objects
    assert AddRoute(destination="10.244.1.0/26", kind="blackhole", protocol=12) in objects
    route = AddRoute(
        destination="10.244.2.0/26",
        gateway="172.30.0.12",
        device="tunl0",
        onlink=True,
        protocol=12,
    )
    assert route in objects
    assert SetLink(name="tunl0", mtu=1480, up=True) in objects
    assert not any("cni0" in str(item) for item in objects)


def test_cross_subnet_has_a_second_subnet_and_tunnels_only_to_it() -> None:
    lab_plan = plan(network="calico-crosssubnet", nodes=3)
    a, b, c = lab_plan.nodes
    assert (b.addresses[0], c.addresses[0]) == ("172.30.0.12", "172.30.1.13")
    assert not calico.tunnels(lab_plan, a, b)
    assert calico.tunnels(lab_plan, a, c)
    assert calico.tunnels(lab_plan, c, b)


@pytest.mark.parametrize("proxy", ["ipvs", "iptables-legacy"])
@pytest.mark.parametrize("network", CALICO)
@pytest.mark.parametrize(("number", "family"), [(0, "ip"), (1, "ip6")])
def test_every_rule_of_felix_is_understood(
    proxy: str, network: str, number: int, family: str
) -> None:
    """No part of it is opaque, so the walk is certain; the texts are in iptables-save's form."""
    lab_plan = plan(network=network, proxy=proxy)
    text = rules.rules(lab_plan, lab_plan.node("node-a"), number, network_policy.healthy(lab_plan))
    inserted = text.replace("FORWARD 1 ", "FORWARD ").replace("INPUT 1 ", "INPUT ")
    inserted = inserted.replace("PUT 1 ", "PUT ").replace("ROUTING 1 ", "ROUTING ")
    builtin = ":PREROUTING ACCEPT [0:0]\n:INPUT ACCEPT [0:0]\n:FORWARD ACCEPT [0:0]\n"
    builtin += ":OUTPUT ACCEPT [0:0]\n:POSTROUTING ACCEPT [0:0]\n"
    lines: list[str] = []
    for line in inserted.replace("-I ", "-A ").splitlines():
        lines.append(line)
        if line.startswith("*"):
            lines += builtin.splitlines()
    save = IptablesSave("\n".join(lines) + "\n", "felix", "legacy", family, lambda name: None)
    read = 0
    for table in ("raw", "mangle", "nat", "filter"):
        for name in {line[1:].split()[0] for line in lines if line.startswith(":")}:
            chain = save.chain(Table(backend="legacy", family=family, name=table), name)
            for rule in chain.rules if chain else ():
                read += 1
                opaque = [part for part in rule.body if isinstance(part, UnknownStatement)]
                assert not opaque, rule.text
    assert read > 60
