"""Which command takes which text."""

from __future__ import annotations

import pytest

from kptrace.lab.dataplane.kubeproxy.load import Mode, loads
from kptrace.lab.dataplane.kubeproxy.service_port import ProxyNode

NODE = ProxyNode(name="node-a", addresses=("172.30.0.11", "fd00:30::11"))


@pytest.mark.parametrize(
    ("mode", "commands", "first_line"),
    [
        ("iptables", ["iptables-nft-restore", "ip6tables-nft-restore"], "*mangle"),
        ("iptables-legacy", ["iptables-legacy-restore", "ip6tables-legacy-restore"], "*mangle"),
        ("nftables", ["nft", "nft"], "add table ip kube-proxy"),
    ],
)
def test_one_command_a_family(mode: Mode, commands: list[str], first_line: str) -> None:
    found = loads(mode, (), {}, NODE)
    assert [one.command[0] for one in found] == commands
    assert found[0].text.startswith(first_line)


def test_a_family_without_an_address_is_left_alone() -> None:
    only = ProxyNode(name="node-a", addresses=("fd00:30::11",))
    assert [one.command[0] for one in loads("iptables", (), {}, only)] == ["ip6tables-nft-restore"]


def test_a_second_load_has_no_jumps() -> None:
    assert "-A INPUT" in loads("iptables", (), {}, NODE)[0].text
    assert "-A INPUT" not in loads("iptables", (), {}, NODE, again=True)[0].text
