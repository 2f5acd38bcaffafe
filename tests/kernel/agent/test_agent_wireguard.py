"""The two questions that lead to WireGuard, asked of the real kernel: links of a kind, a family."""

from __future__ import annotations

import pytest

from kptrace.node import wireguard
from kptrace.node.netlink import Conversation

pytestmark = pytest.mark.kernel


def test_a_family_by_its_name() -> None:
    """The controller itself has the fixed number 16 (GENL_ID_CTRL)."""
    with Conversation(wireguard.NETLINK_GENERIC) as generic:
        assert wireguard.family_id(generic, "nlctrl") == wireguard.GENL_ID_CTRL
        with pytest.raises(FileNotFoundError):
            wireguard.family_id(generic, "no-such-family")


def test_where_no_such_device_is_there_is_nothing_to_say() -> None:
    assert wireguard.show() == ""
