"""Every number and name of an address family, beside what Python's socket module says."""

from __future__ import annotations

import socket

from kptrace.model.family import Family


def test_the_family_of_an_address_or_network() -> None:
    assert Family.of("10.96.0.10") is Family.IPV4
    assert Family.of("fd00:10:96::/112") is Family.IPV6
    assert Family.of("::ffff:10.0.0.1") is Family.IPV6


def test_versions() -> None:
    assert [family.version for family in Family] == [4, 6]
    assert [Family.of_version(version) for version in (4, 6)] == [Family.IPV4, Family.IPV6]


def test_socket_families_are_linuxs() -> None:
    assert Family.IPV4.socket_family == socket.AF_INET
    assert Family.IPV6.socket_family == socket.AF_INET6


def test_names_and_sizes() -> None:
    assert [str(family) for family in Family] == ["ip", "ip6"]
    assert [family.position for family in Family] == [0, 1]
    assert [family.address_bits for family in Family] == [32, 128]
    assert [family.icmp for family in Family] == ["icmp", "icmpv6"]
    assert [family.everything for family in Family] == ["0.0.0.0/0", "::/0"]
