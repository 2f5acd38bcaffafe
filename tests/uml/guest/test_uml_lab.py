"""Schedulers and networks that the service rows do not go through, and what a lab leaves behind."""

from __future__ import annotations

import os
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from kptrace.agent.netns import run_in_netns
from kptrace.lab import cluster, host_commands, load_rules
from kptrace.lab.address_plan import plan
from kptrace.lab.faults import inject
from kptrace.lab.state import NETNS, Lab


@contextmanager
def made(proxy: str, network: str, scheduler: str = "rr", nodes: int = 2) -> Iterator[Lab]:
    name = f"lab-{os.getpid()}"
    try:
        yield cluster.up(plan(name, nodes, proxy, network, scheduler))
    finally:
        cluster.down(name)


def answers(lab: Lab, where: str, address: str, times: int) -> list[str]:
    def work() -> str:
        with socket.create_connection((address, 80), timeout=5) as line:
            return line.makefile("rb").read().decode().rpartition("\r\n\r\n")[2].strip()

    return [run_in_netns(str(NETNS / f"kpt-{lab.name}-{where}"), work) for _ in range(times)]


@pytest.mark.parametrize("scheduler", ["wrr", "wlc", "dh", "sh", "mh"])
def test_a_scheduler_of_kube_proxy(scheduler: str) -> None:
    """sh and dh hash addresses, so one client keeps one server; mh hashes the port as well."""
    with made("ipvs", "vxlan", scheduler) as lab:
        seen = set(answers(lab, "shop.client", "10.96.1.1", 24))
        wanted = {"dh": 1, "sh": 1}.get(scheduler, 3)
        assert len(seen) == wanted
        listed = host_commands.run(("ipvsadm", "-Sn"), "", lab.plan.node("node-a").netns)
        assert f"-A -t 10.96.1.1:80 -s {scheduler}" in listed


def test_cross_subnet_tunnels_only_between_subnets() -> None:
    with made("ipvs", "calico-crosssubnet", nodes=3) as lab:
        shown = host_commands.run(("ip", "route"), "", lab.plan.node("node-a").netns)
        assert "10.244.2.0/26 via 172.30.0.12 dev eth0 proto bird" in shown
        assert "10.244.3.0/26 via 172.30.1.13 dev tunl0 proto bird onlink" in shown
        assert answers(lab, "shop.client", "10.96.1.2", 1) == ["remote-1"]
        assert answers(lab, "shop.client-c", "10.96.1.2", 1) == ["remote-1"]


@pytest.mark.parametrize("network", ["calico-vxlan", "calico-direct"])
def test_calico_without_ipip(network: str) -> None:
    with made("iptables-legacy", network) as lab:
        assert answers(lab, "shop.client", "10.96.1.2", 1) == ["remote-1"]
        assert answers(lab, "node-a", "10.96.1.2", 1) == ["remote-1"]


def test_a_second_sync_changes_nothing_and_down_leaves_nothing() -> None:
    def namespaces() -> str:
        return subprocess.run(["ip", "netns"], capture_output=True, text=True, check=True).stdout

    before = namespaces()
    with made("ipvs", "calico-ipip") as lab:
        node = lab.plan.node("node-a")

        def all_of_it() -> list[str]:
            commands = (("ipvsadm", "-Sn"), ("ipset", "save"), ("iptables-legacy-save",))
            texts = [host_commands.run(command, "", node.netns) for command in commands]
            return sorted(
                line.partition(" initval")[0].partition(" [")[0]
                for text in texts
                for line in text.splitlines()
                if not line.startswith("#")
            )

        first = all_of_it()
        true = load_rules.healthy(lab.plan)
        load_rules.reload(lab.plan, node, true, true)
        assert all_of_it() == first
        inject.inject(lab.name, inject.find("stale-dnat"))
        assert all_of_it() != first
        inject.heal(lab.name)
        assert all_of_it() == first
    assert namespaces() == before
