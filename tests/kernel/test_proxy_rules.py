"""The lab's proxy rules, loaded into a kernel: nftables rules against real nodes', iptables back.

nftables: the rendered text is loaded and what ``nft -j`` lists is compared with what it listed on
a node where a real kube-proxy 1.36 had written: every chain, rule, set and map of both families.
Handles are the kernel's numbers and left out; elements of named sets and maps are compared as
sorted lists (a hash has no order). The named exceptions are ``EXCEPTIONS``; there is one.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from kptrace.kube.objects.cluster_state import ClusterState, read_folder
from kptrace.lab.dataplane.kubeproxy import iptables
from kptrace.lab.dataplane.kubeproxy.load import Mode, loads
from kptrace.lab.dataplane.kubeproxy.service_port import ProxyNode
from kptrace.model import Endpoint, Service, ServicePort

pytestmark = pytest.mark.kernel

NODES = ("node-a", "node-b")
Objects = dict[tuple[str, ...], Any]

# an affinity set learns its clients from traffic: the dump was taken after some
EXCEPTIONS = {"affinity-": "elem"}


@pytest.fixture
def namespace() -> Iterator[str]:
    name = f"kptrace-proxy-{os.getpid()}"
    subprocess.run(["ip", "netns", "add", name], check=True)
    yield name
    subprocess.run(["ip", "netns", "del", name], check=True)


def run(namespace: str, command: Sequence[str], text: str = "") -> str:
    done = subprocess.run(
        ["ip", "netns", "exec", namespace, *command], input=text, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def proxy_node(documents: ClusterState, name: str) -> ProxyNode:
    node = documents.node(name)
    assert node
    return ProxyNode(
        name=name,
        addresses=node.addresses,
        zone=node.zone,
        cluster_cidrs=("10.244.0.0/16", "fd00:10:244::/48"),
        service_cidrs=documents.service_cidrs,
    )


def load(namespace: str, mode: Mode, api: Path, node: str, *, again: bool = False) -> None:
    documents = read_folder(api)
    proxied = proxy_node(documents, node)
    for one in loads(mode, documents.services, documents.endpoints, proxied, again=again):
        run(namespace, one.command, one.text)


def objects(text: str) -> Objects:
    """By family, kind and name; the rules of a chain as one list in their order."""
    found: Objects = {}
    for item in json.loads(text)["nftables"]:
        ((kind, value),) = item.items()
        value.pop("handle", None)
        if kind == "metainfo":
            continue
        if kind == "rule":
            found.setdefault((value["family"], "rules", value["chain"]), []).append(value)
            continue
        for prefix, member in EXCEPTIONS.items():
            if value["name"].startswith(prefix):
                value.pop(member, None)
        if "elem" in value:
            value["elem"] = sorted(value["elem"], key=json.dumps)
        found[value["family"], kind, value["name"]] = value
    return found


def compare(namespace: str, api: Path, ruleset: Path) -> None:
    load(namespace, "nftables", api, ruleset.parent.name)
    written = objects(run(namespace, ["nft", "-j", "list", "ruleset"]))
    real = objects(ruleset.read_text())
    differing = {key: (written.get(key), value) for key, value in real.items()}
    assert {key: pair for key, pair in differing.items() if pair[0] != pair[1]} == {}
    assert written.keys() == real.keys()


@pytest.mark.parametrize("node", NODES)
def test_every_nftables_object_of_a_real_node(namespace: str, dumps: Path, node: str) -> None:
    ruleset = dumps / "nftables-default" / node / "nft-ruleset.json"
    compare(namespace, dumps / "_api-matrix", ruleset)


@pytest.mark.parametrize("node", NODES)
def test_every_nftables_object_of_the_committed_case(
    namespace: str, cases: Path, node: str
) -> None:
    case = cases / "kube-proxy"
    compare(namespace, case / "api", case / node / "nft-ruleset.json")


def test_a_second_load_replaces_the_table(namespace: str, cases: Path) -> None:
    case = cases / "kube-proxy"
    load(namespace, "nftables", case / "api", "node-a")
    compare(namespace, case / "api", case / "node-b" / "nft-ruleset.json")


BACKENDS: dict[Mode, tuple[str, str]] = {
    "iptables": ("iptables-nft-save", "ip6tables-nft-save"),
    "iptables-legacy": ("iptables-legacy-save", "ip6tables-legacy-save"),
}


@pytest.mark.parametrize("mode", BACKENDS)
def test_the_kernel_saves_iptables_rules_as_they_were_written(
    namespace: str, cases: Path, mode: Mode
) -> None:
    """Written in the form of iptables-save, so what comes back is the text itself, line by line."""
    api = cases / "kube-proxy" / "api"
    load(namespace, mode, api, "node-a")
    documents = read_folder(api)
    node = proxy_node(documents, "node-a")
    for family, command in zip(("ip", "ip6"), BACKENDS[mode], strict=True):
        text = iptables.render(documents.services, documents.endpoints, node, family)
        assert rules_of(run(namespace, [command])) == rules_of(text)


@pytest.mark.parametrize("mode", BACKENDS)
def test_loading_again_keeps_policies_others_rules_and_single_jumps(
    namespace: str, cases: Path, mode: Mode
) -> None:
    api = cases / "kube-proxy" / "api"
    tool, save = BACKENDS[mode][0].removesuffix("-save"), BACKENDS[mode][0]
    run(namespace, [tool, "-P", "FORWARD", "DROP"])
    run(namespace, [tool, "-A", "FORWARD", "-s", "10.244.0.0/16", "-j", "ACCEPT"])
    load(namespace, mode, api, "node-a")
    before = run(namespace, [save])
    load(namespace, mode, api, "node-a", again=True)
    after = run(namespace, [save])
    assert rules_of(after) == rules_of(before)
    assert ":FORWARD DROP" in after
    assert "-A FORWARD -s 10.244.0.0/16 -j ACCEPT" in after


def everything(protocol: str) -> Service:
    """A Service of every kind at once, in both families: more than the dumps have of IPv6."""
    return Service(
        namespace="shop",
        name=f"all-{protocol}",
        type="LoadBalancer",
        cluster_ips=("10.96.0.50", "fd00:10:96::50"),
        external_ips=("192.0.2.50", "2001:db8::50"),
        load_balancer_ips=("192.0.2.60", "2001:db8::60"),
        source_ranges=("172.30.0.0/24", "fd00:30::/64"),
        ports=(
            ServicePort(name="p", protocol=protocol, port=80, target_port="8080", node_port=30080),
        ),
        affinity_seconds=300,
        external_policy="Local",
        health_check_node_port=31000,
    )


@pytest.mark.parametrize("mode", ["iptables", "iptables-legacy", "nftables"])
def test_a_service_of_every_kind_at_once_loads(namespace: str, mode: Mode) -> None:
    services = [everything(protocol) for protocol in ("tcp", "udp", "sctp")]
    pods = {
        one.key: [
            Endpoint(
                address=address,
                port=8080,
                protocol=one.ports[0].protocol,
                port_name="p",
                node="node-a",
            )
            for address in ("10.244.1.5", "10.244.1.6", "fd00:10:244:1::5", "fd00:10:244:1::6")
        ]
        for one in services
    }
    node = ProxyNode(
        name="node-a",
        addresses=("172.30.0.11", "fd00:30::11"),
        cluster_cidrs=("10.244.0.0/16", "fd00:10:244::/48"),
        service_cidrs=("10.96.0.0/12", "fd00:10:96::/112"),
    )
    for one in loads(mode, services, pods, node):
        run(namespace, one.command, one.text)
    if mode != "nftables":
        for family, command in zip(("ip", "ip6"), BACKENDS[mode], strict=True):
            text = iptables.render(services, pods, node, family)
            assert rules_of(run(namespace, [command])) == rules_of(text)


def rules_of(save: str) -> dict[str, list[str]]:
    """Rules in order, by table."""
    found: dict[str, list[str]] = {}
    table = ""
    for line in save.splitlines():
        if line.startswith("*"):
            table = line
        elif line.startswith("-A "):
            found.setdefault(table, []).append(line)
    return found
