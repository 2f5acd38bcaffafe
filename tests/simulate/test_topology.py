"""Whose address it is, where not everything is known."""

from __future__ import annotations

import pytest

from kptrace.simulate.topology import Topology

KNOWN = Topology(snapshots={}, services=frozenset({"10.96.1.1", "192.0.2.7"}))
PART = Topology(
    snapshots={},
    services=frozenset({"10.96.1.1", "192.0.2.7"}),
    service_ranges=("10.96.0.0/12", "fd00:10:96::/112"),
)


@pytest.mark.parametrize("world", [KNOWN, PART], ids=["all", "a part"])
def test_a_service_that_is_known(world: Topology) -> None:
    assert world.is_service("10.96.1.1")
    assert world.is_service("192.0.2.7")
    assert not world.is_service("203.0.113.9")


def test_of_a_part_the_range_tells_the_others() -> None:
    assert not KNOWN.is_service("10.96.7.7")
    assert PART.is_service("10.96.7.7")
    assert PART.is_service("fd00:10:96::7")
