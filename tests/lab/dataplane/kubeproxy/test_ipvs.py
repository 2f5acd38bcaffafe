"""The lab's IPVS objects are those of a real kube-proxy 1.36: services, sets, rules, addresses.

Order is compared where it means something: the rules of a chain. Sets, virtual services and bound
addresses are compared as sets; the hash seed of an ipset (``initval``) is chance.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from kptrace.kube.objects.cluster_state import ClusterState, read_folder
from kptrace.lab.dataplane.kubeproxy import ipvs
from kptrace.lab.dataplane.kubeproxy.service_port import ProxyNode
from kptrace.model.family import Family

DUMPS = [
    ("ipvs-rr-default", "node-a", "rr"),
    ("ipvs-rr-default", "node-b", "rr"),
    ("ipvs-sh", "node-a", "sh"),
]


def api_folder(dump: Path) -> Path:
    link = dump / "api"
    return link if link.is_dir() else dump / link.read_text().strip()


def own_addresses(folder: Path) -> tuple[str, ...]:
    """What the node has itself, from the kernel's list: kube-proxy serves NodePorts on these."""
    return tuple(
        one["local"]
        for link in json.loads((folder / "ip-addr.json").read_text())
        if link.get("ifname") not in ("lo", "kube-ipvs0")
        for one in link.get("addr_info", ())
        if one["scope"] == "global"
    )


def rendered(folder: Path, documents: ClusterState, family: Family, scheduler: str) -> ipvs.Ipvs:
    node = documents.node(folder.name)
    assert node
    proxy_node = ProxyNode(
        name=node.name,
        addresses=node.addresses,
        zone=node.zone,
        cluster_cidrs=("10.244.0.0/16", "fd00:10:244::/48"),
        node_port_addresses=own_addresses(folder),
    )
    return ipvs.render(
        documents.services, documents.endpoints, proxy_node, family, scheduler=scheduler
    )


def rules(save: str) -> dict[tuple[str, str], list[str]]:
    found: dict[tuple[str, str], list[str]] = {}
    table = ""
    for line in save.splitlines():
        if line.startswith("*"):
            table = line[1:]
        elif line.startswith(":KUBE-"):
            found[table, line[1:].split()[0]] = []
        elif line.startswith("-A "):
            _, chain, rule = line.split(" ", 2)
            found.setdefault((table, chain), []).append(rule)
    return found


@pytest.mark.parametrize(("dump", "node", "scheduler"), DUMPS)
def test_every_object_of_a_real_node(dumps: Path, dump: str, node: str, scheduler: str) -> None:
    folder = dumps / dump / node
    documents = read_folder(api_folder(dumps / dump))
    both = [rendered(folder, documents, family, scheduler) for family in ("ip", "ip6")]
    assert rules(both[0].rules) == rules((folder / "iptables-save.txt").read_text())
    if dump != "ipvs-rr-default":  # its IPv6 tables were taken while kube-proxy was still at work
        assert rules(both[1].rules) == rules((folder / "ip6tables-save.txt").read_text())
    services = "".join(one.services for one in both).splitlines()
    assert sorted(services) == sorted((folder / "ipvsadm-Sn.txt").read_text().splitlines())
    sets = "".join(one.ipsets for one in both).splitlines()
    real = (folder / "ipset-save.txt").read_text().splitlines()
    assert sorted(sets) == sorted(line.partition(" initval")[0] for line in real)


@pytest.mark.parametrize(("dump", "node", "scheduler"), DUMPS)
def test_every_bound_address(dumps: Path, dump: str, node: str, scheduler: str) -> None:
    folder = dumps / dump / node
    documents = read_folder(api_folder(dumps / dump))
    bound = {
        entry.address.partition("/")[0]
        for family in ("ip", "ip6")
        for entry in rendered(folder, documents, family, scheduler).addresses
    }
    links = json.loads((folder / "ip-addr.json").read_text())
    device = next(link for link in links if link.get("ifname") == "kube-ipvs0")
    assert bound == {one["local"] for one in device["addr_info"]}


def test_maglev_hashes_the_port_too(dumps: Path) -> None:
    folder = dumps / "ipvs-sh" / "node-a"
    text = rendered(folder, read_folder(api_folder(dumps / "ipvs-sh")), "ip", "mh").services
    assert "-A -t 10.96.1.1:80 -s mh -b mh-port\n" in text
