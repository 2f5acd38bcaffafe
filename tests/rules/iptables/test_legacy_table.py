"""A legacy table, its bytes built by hand from the kernel's structs (ip_tables.h, x_tables.h).

A struct ipt_entry has 112 bytes, the place of its target at 88, the way to the next entry at 90 and
its counters at 96. A struct xt_entry_target has its size, a name of 29 bytes and a revision.
"""

from __future__ import annotations

from struct import pack, pack_into

import pytest

from kptrace.rules.iptables.legacy_table import Bounds, XtTable

ENTRY, TARGET = 112, 32
ACCEPT, RETURN = -2, -5


def entry(target: bytes) -> bytes:
    head = bytearray(ENTRY)
    pack_into("=HH", head, 88, ENTRY, ENTRY + len(target))
    return bytes(head) + target


def target(name: str, data: bytes) -> bytes:
    return pack("=H29sB", TARGET + len(data), name.encode(), 0) + data


def verdict(code: int) -> bytes:
    return entry(target("", pack("=i4x", code)))


def begin(chain: str) -> bytes:
    return entry(target("ERROR", pack("=30s2x", chain.encode())))


def table(*chains: str, rules: int = 1) -> XtTable:
    """INPUT, empty, and chains of so many rules that accept."""
    data = verdict(ACCEPT)
    for chain in chains:
        data += begin(chain) + verdict(ACCEPT) * rules + verdict(RETURN)
    data += begin("ERROR")
    return XtTable(memoryview(data), Bounds(hooks=((1, 0, 0),)), "ip")


NAMES = [f"KUBE-SVC-{number:04}" for number in range(300)]


@pytest.mark.parametrize("names", [NAMES, NAMES[::-1], [*NAMES[150:], *NAMES[:150]]])
def test_a_chain_is_found_in_whatever_order_they_stand(names: list[str]) -> None:
    """libiptc writes them by name; the kernel does not ask for that."""
    for expected in (names[0], names[7], names[151], names[-1]):
        blob = table(*names, rules=2)
        assert blob.has(expected)
        assert blob.count(expected) == 2


def test_a_chain_that_is_not_there_is_not_found() -> None:
    blob = table(*NAMES)
    for name in ("KUBE-SVC-", "A", "Z", "ERROR", "KUBE-SVC-0150x"):
        assert not blob.has(name)
    assert blob.names() == NAMES


def test_no_chain_but_the_kernels() -> None:
    blob = table()
    assert blob.names() == []
    assert not blob.has("KUBE-SERVICES")
    assert [chain["name"] for chain in blob.kernel_chains()] == ["INPUT"]
