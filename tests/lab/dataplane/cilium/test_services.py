"""The lab's Cilium maps, byte for byte: what is expected is put together on paper."""

from __future__ import annotations

import sys

import msgspec
import pytest

from kptrace.lab.dataplane.cilium.services import maps
from kptrace.lab.dataplane.kubeproxy.service_port import ProxyNode
from kptrace.model import Endpoint, Service, ServicePort

pytestmark = pytest.mark.skipif(sys.byteorder != "little", reason="the bytes are little-endian's")

NODE = ProxyNode(name="node-a", addresses=("172.30.0.11", "fd00:30::11"))
NODES = ("172.30.0.11", "172.30.0.12", "fd00:30::11")
ENDS = tuple(
    Endpoint(address=f"10.244.{number}.2{number}", port=8080, port_name="http", node=node)
    for number, node in ((1, "node-a"), (2, "node-b"))
)


def service(**fields: object) -> Service:
    port = ServicePort(name="http", protocol="tcp", port=80, target_port="8080", node_port=30080)
    made = Service(
        namespace="shop", name="web", type="NodePort", cluster_ips=("10.96.0.50",), ports=(port,)
    )
    return msgspec.structs.replace(made, **fields)


def held(one: Service, family: str = "ip") -> dict[str, str]:
    made = maps([one], {"shop/web": ENDS}, NODE, family, NODES)  # type: ignore[arg-type]
    return {key.hex(" ", -4): value.hex(" ", -4) for key, value in made.services.items()}


CLUSTER_IP = {
    # address  port slot  proto scope pad
    "0a600032 00500000 06000000": "00000000 02000001 00000000",
    "0a600032 00500100 06000000": "01000000 00000001 00000000",
    "0a600032 00500200 06000000": "02000000 00000001 00000000",
}


def test_slots_of_a_cluster_ip_and_of_node_ports() -> None:
    found = held(service())
    assert {key: found[key] for key in CLUSTER_IP} == CLUSTER_IP
    # 30080 is 0x7580; the frontend of all nodes and the node's own, flags 2
    assert found["00000000 75800000 06000000"] == "00000000 02000002 02000000"
    assert found["ac1e000b 75800000 06000000"] == "00000000 02000003 02000000"
    assert len(found) == 9


def test_the_local_policy_has_two_scopes() -> None:
    found = held(service(external_policy="Local"))
    assert {key: found[key] for key in CLUSTER_IP} == CLUSTER_IP
    outside, inside = "ac1e000b 75800000 06000000", "ac1e000b 75800000 06010000"
    assert found[outside] == "00000000 01000003 02200000"
    assert found[inside] == "00000000 02000003 02200000"
    assert found["ac1e000b 75800100 06000000"].startswith("01000000")
    assert found["ac1e000b 75800200 06010000"].startswith("02000000")


def test_affinity_stands_in_slot_0() -> None:
    found = held(service(affinity_seconds=10800))
    assert found["0a600032 00500000 06000000"] == "302a0000 02000001 10000000"
    assert found["0a600032 00500100 06000000"] == "01000000 00000001 10000000"


def test_backends_ids_and_the_way_back() -> None:
    made = maps([service()], {"shop/web": ENDS}, NODE, "ip", NODES)
    assert {key.hex(): value.hex(" ", -4) for key, value in made.backends.items()} == {
        "01000000": "0af40115 1f900600 00000000",
        "02000000": "0af40216 1f900600 00000000",
    }
    assert made.reverse[bytes.fromhex("0001")].hex() == "0a6000320050"


def test_nodes_are_known_by_their_identity() -> None:
    """32 bits that always count and the address; this node is 1, another 6."""
    made = maps([], {}, NODE, "ip", NODES)
    found = {key.hex(): value.hex() for key, value in made.ipcache.items()}
    assert found == {
        "4000000000000001ac1e000b" + "00" * 12: "01000000" + "00" * 20,
        "4000000000000001ac1e000c" + "00" * 12: "06000000" + "00" * 20,
    }
    six = maps([], {}, NODE, "ip6", NODES)
    (key,) = six.ipcache
    assert key.hex() == "a000000000000002fd000030000000000000000000000011"


def test_no_endpoint_is_a_frontend_without_backends() -> None:
    made = maps([service()], {}, NODE, "ip", NODES)
    assert made.backends == {}
    assert (
        made.services[bytes.fromhex("0a6000320050000006000000")].hex() == "000000000000000100000000"
    )
