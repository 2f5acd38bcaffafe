"""The u32 matches of the TRACE rule, on packets written by hand, as xt_u32 reads them."""

from __future__ import annotations

import re

from kptrace.agent.xtables.trace_rule import lines, text
from kptrace.model import Flow, Probe

COOKIE = 0x11223300
TCP = Probe(probe_id=COOKIE, flow=Flow(protocol="tcp", src="10.0.0.1", dst="10.0.0.2", dport=80))
TCP6 = Probe(probe_id=COOKIE, flow=Flow(protocol="tcp", src="fd00::1", dst="fd00::2", dport=80))


def matches(rule: str, packet: bytes) -> bool:
    """xt_u32.c: words at offsets, ``>>`` and ``&`` on the value, ``@`` moves the base by it."""
    tests = re.search(r'--u32 "([^"]+)"', rule)
    assert tests
    return all(_one(test, packet) for test in tests[1].split(" && "))


def _one(test: str, packet: bytes) -> bool:
    left, wanted = test.split("=")
    base = 0
    for part in left.split("@"):
        offset, *operations = re.findall(r"(?:>>|&)?(?:0x[0-9a-fA-F]+|\d+)", part)
        at = base + int(offset, 0)
        if at + 4 > len(packet):
            return False
        value = int.from_bytes(packet[at : at + 4])
        for operation in operations:
            number = int(operation.lstrip(">&"), 0)
            value = value >> number if operation.startswith(">>") else value & number
        base += value
    return value == int(wanted, 0)


def ipv4(protocol: int, body: bytes, options: bytes = b"") -> bytes:
    length = 20 + len(options)
    head = bytes([0x40 | length // 4, 0]) + (length + len(body)).to_bytes(2) + bytes(4)
    return head + bytes([64, protocol]) + bytes(2 + 8) + options + body


def syn(seq: int, ack: int = 0) -> bytes:
    return bytes(4) + seq.to_bytes(4) + ack.to_bytes(4) + bytes([0x50, 2]) + bytes(6)


def caught(packet: bytes, probe: Probe = TCP, version: int = 4) -> bool:
    return any(matches(rule, packet) for rule in lines(version, (probe,), ()))


def test_the_probe_and_its_answer_and_nobody_else() -> None:
    assert caught(ipv4(6, syn(COOKIE)))
    assert caught(ipv4(6, syn(7, COOKIE + 1)))
    assert not caught(ipv4(6, syn(COOKIE ^ 0x80000000)))
    assert not caught(ipv4(17, syn(COOKIE)))


def test_ip_options_are_stepped_over() -> None:
    assert caught(ipv4(6, syn(COOKIE), options=bytes(8)))


def test_inside_ipip_vxlan_and_an_icmp_error() -> None:
    inner = ipv4(6, syn(COOKIE))
    assert caught(ipv4(4, inner))
    vxlan = bytes(8) + bytes(8) + bytes(12) + b"\x08\x00" + inner
    assert caught(ipv4(17, vxlan))
    assert caught(ipv4(1, bytes([3, 3]) + bytes(6) + inner))


def test_ipv6() -> None:
    head = bytes([0x60, 0, 0, 0]) + (20).to_bytes(2) + bytes([6, 64]) + bytes(32)
    assert caught(head + syn(COOKIE), TCP6, 6)
    assert not list(lines(6, (TCP,), ()))
    assert not list(lines(4, (TCP6,), ()))


def test_the_rules_stand_in_both_chains_of_raw() -> None:
    rules = list(lines(4, (TCP,), ()))
    made = text("-I {chain} 1", rules).splitlines()
    assert made[0] == "*raw"
    assert made[-1] == "COMMIT"
    for chain in ("PREROUTING", "OUTPUT"):
        assert sum(line.startswith(f"-I {chain} 1 ") for line in made) == len(rules)
    assert all(line.endswith("-j TRACE") for line in made[1:-1])
