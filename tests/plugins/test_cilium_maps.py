"""Cilium's maps from their bytes. The bytes are put together here from the layout in types.go, on
paper: ``0a600032`` is 10.96.0.50, ``0050`` port 80, ``06`` TCP.
"""

from __future__ import annotations

import json

import pytest

from kptrace.model.errors import ParseError
from kptrace.simulate.bpf.programs import Frontend
from kptrace_plugins.cilium_maps import frontends

# key: address, port (both big-endian), slot (the node's order), protocol, scope, 2 bytes of nothing
# value: backend or what slot 0 says, count, rev_nat (big-endian), flags, flags2, quarantined
WEB = [
    ("0a6000320050000006000000", "000000000200000700000000"),
    ("0a6000320050010006000000", "050000000000000700000000"),
    ("0a6000320050020006000000", "060000000000000700000000"),
]
# address, port, protocol, flags, cluster id, zone
BACKENDS = [
    ("05000000", "0af401151f90060000000000"),
    ("06000000", "0af402161f90060000000000"),
]
ENDS = (("10.244.1.21", 8080), ("10.244.2.22", 8080))


def dump(
    services: list[tuple[str, str]],
    backends: list[tuple[str, str]] = BACKENDS,
    family: int = 4,
    byteorder: str = "little",
) -> str:
    maps = {
        f"cilium_lb{family}_services_v2": {"entries": services},
        f"cilium_lb{family}_backends_v3": {"entries": backends},
    }
    return json.dumps({"byteorder": byteorder, "maps": maps})


def only(text: str) -> Frontend:
    found = frontends(text)
    assert found is not None
    (one,) = found
    return one


def test_a_cluster_ip_with_two_backends() -> None:
    assert only(dump(WEB)) == Frontend(
        address="10.96.0.50",
        port=80,
        protocol="tcp",
        backends=ENDS,
        text="10.96.0.50:80/TCP [ClusterIP]",
    )


def test_the_order_of_entries_does_not_matter() -> None:
    assert only(dump(WEB[::-1], BACKENDS[::-1])).backends == ENDS


def test_before_protocols_were_told_apart_it_stands_for_any() -> None:
    old = [(key[:16] + "00" + key[18:], value) for key, value in WEB]
    found = only(dump(old))
    assert (found.protocol, found.text) == ("", "10.96.0.50:80/ANY [ClusterIP]")


def test_a_node_of_the_other_byte_order() -> None:
    services = [
        ("0a6000320050000006000000", "000000000001000700000000"),
        ("0a6000320050000106000000", "000000050000000700000000"),
    ]
    backends = [("00000005", BACKENDS[0][1])]
    assert only(dump(services, backends, byteorder="big")).backends == ENDS[:1]


def test_ipv6() -> None:
    service, end = "fd000010009600000000000000000112", "fd000010024400020000000000000012"
    services = [
        (service + "0050000006000000", "000000000100000700000000"),
        (service + "0050010006000000", "090000000000000700000000"),
    ]
    backends = [("09000000", end + "1f90060000000000")]
    found = only(dump(services, backends, family=6))
    assert found.address == "fd00:10:96::112"
    assert found.backends == (("fd00:10:244:2::12", 8080),)
    assert found.text == "[fd00:10:96::112]:80/TCP [ClusterIP]"


def test_inside_the_cluster_the_other_scope_counts() -> None:
    """externalTrafficPolicy Local: outside one backend, inside both (flags2 0x20)."""
    outside = [
        ("ac1e000b7580000006000000", "000000000100000702200000"),
        ("ac1e000b7580010006000000", "050000000000000702200000"),
    ]
    inside = [
        ("ac1e000b7580000006010000", "000000000200000702200000"),
        ("ac1e000b7580010006010000", "050000000000000702200000"),
        ("ac1e000b7580020006010000", "060000000000000702200000"),
    ]
    found = only(dump(outside + inside))
    assert found.backends == ENDS
    assert found.text == "172.30.0.11:30080/TCP [NodePort]"


@pytest.mark.parametrize(
    ("flags", "kind", "left"),
    [
        ("0100", "external IP", "Cilium translates external IPs on devices, not at connect()"),
        ("0800", "HostPort", "Cilium translates host ports on devices, not at connect()"),
        ("2000", "load balancer IP", ""),
        ("0004", "ClusterIP", "Cilium hands it to its proxy (L7 load balancing)"),
    ],
)
def test_what_is_left_to_others(flags: str, kind: str, left: str) -> None:
    services = [(key, value[:16] + flags + value[20:]) for key, value in WEB]
    found = only(dump(services))
    assert found.text == f"10.96.0.50:80/TCP [{kind}]"
    assert found.left == left


def test_affinity_is_told() -> None:
    services = [(WEB[0][0], "302a0000" + WEB[0][1][8:16] + "10000000"), *WEB[1:]]
    found = only(dump(services))
    assert found.remembers
    assert found.backends == ENDS


def test_quarantined_backends_stand_behind_the_count() -> None:
    services = [(WEB[0][0], "000000000100000700000100"), *WEB[1:]]
    assert only(dump(services)).backends == ENDS[:1]


def test_a_backend_that_is_in_no_map_is_said() -> None:
    found = only(dump(WEB, BACKENDS[:1]))
    assert found.backends == ENDS[:1]
    assert "backends 6 not in the map" in found.text


def test_no_map_of_services_is_not_no_service() -> None:
    assert frontends(json.dumps({"byteorder": "little", "maps": {}})) is None
    assert frontends(dump([], [])) == ()


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        '{"byteorder": "middle", "maps": {}}',
        dump([("zz", "00")]),
        dump([("0a6000", "00")]),
        dump([(WEB[0][0], "00")]),
    ],
)
def test_what_is_no_dump_is_refused(text: str) -> None:
    with pytest.raises(ParseError, match=r"cilium-lb\.json"):
        frontends(text)
