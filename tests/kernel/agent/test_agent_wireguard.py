"""The two questions that lead to WireGuard, asked of the real kernel: links of a kind, a family."""

from __future__ import annotations

from typing import Any

import pytest

from kptrace.agent.netlink import wireguard
from kptrace.agent.netlink.socket import NetlinkSocket
from kptrace.agent.netns import run_in_netns

pytestmark = pytest.mark.kernel


def test_a_family_by_its_name() -> None:
    """The controller itself has the fixed number 16 (GENL_ID_CTRL)."""
    with NetlinkSocket(wireguard.NETLINK_GENERIC) as generic:
        assert wireguard.family_id(generic, "nlctrl") == wireguard.GENL_ID_CTRL
        with pytest.raises(FileNotFoundError):
            wireguard.family_id(generic, "no-such-family")


def test_links_of_one_kind(ground: Any) -> None:
    def ask(kind: str) -> list[str]:
        with NetlinkSocket(wireguard.NETLINK_ROUTE) as links:
            return list(wireguard.devices(links, kind))

    def inside() -> dict[str, list[str]]:
        return {kind: ask(kind) for kind in ("bridge", "vxlan", "wireguard")}

    assert run_in_netns(ground.path("a"), inside) == {
        "bridge": ["cni0"],
        "vxlan": ["flannel.1"],
        "wireguard": [],
    }


def test_where_no_such_device_is_there_is_nothing_to_say() -> None:
    assert wireguard.show() == ""
