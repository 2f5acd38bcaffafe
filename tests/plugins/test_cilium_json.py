"""What Cilium's tools print, in the forms of several versions."""

from __future__ import annotations

import json
from typing import Any

import pytest

from kptrace.model import Flow
from kptrace.model.errors import ParseError
from kptrace.simulate.bpf.programs import Frontend
from kptrace_plugins.cilium_json import Seen, hubble, lb_list, monitor, services

LIST = [
    {
        "spec": {"frontend-address": {"ip": "10.96.0.50", "port": 80}},
        "status": {
            "realized": {
                "id": 12,
                "frontend-address": {"ip": "10.96.0.50", "port": 80, "protocol": "TCP"},
                "backend-addresses": [
                    {"ip": "10.244.1.21", "port": 8080, "state": "active", "nodeName": "a"},
                    {"ip": "10.244.2.22", "port": 8080, "state": "quarantined"},
                    {"ip": "10.244.2.23", "port": 8080},
                ],
                "flags": {"type": "ClusterIP", "name": "web", "namespace": "shop"},
            }
        },
    }
]


def realized(**fields: object) -> str:
    return json.dumps([{"status": {"realized": fields}}])


def test_service_list_tells_active_backends_and_the_name() -> None:
    (found,) = services(json.dumps(LIST))
    assert found == Frontend(
        address="10.96.0.50",
        port=80,
        protocol="tcp",
        backends=(("10.244.1.21", 8080), ("10.244.2.23", 8080)),
        text="10.96.0.50:80/TCP [ClusterIP] shop/web",
    )


def test_service_list_with_two_scopes_gives_the_inner_one() -> None:
    def row(scope: str, *ends: str) -> dict[str, object]:
        address = {"ip": "172.30.0.11", "port": 30080, "protocol": "TCP", "scope": scope}
        backends = [{"ip": ip, "port": 8080} for ip in ends]
        told = {"frontend-address": address, "backend-addresses": backends}
        return {"status": {"realized": told}}

    for rows in (
        [row("internal", "10.244.1.1", "10.244.2.1"), row("external", "10.244.1.1")],
        [row("external", "10.244.1.1"), row("internal", "10.244.1.1", "10.244.2.1")],
    ):
        (found,) = services(json.dumps(rows))
        assert found.backends == (("10.244.1.1", 8080), ("10.244.2.1", 8080))


def test_service_list_of_an_external_ip_is_left_to_devices() -> None:
    (found,) = services(
        realized(
            **{"frontend-address": {"ip": "203.0.113.10", "port": 80}},
            flags={"type": "ExternalIPs"},
        )
    )
    assert found.protocol == ""
    assert found.backends == ()
    assert "on devices" in found.left


@pytest.mark.parametrize("key", ["10.96.0.50:80", "10.96.0.50:80/TCP", "10.96.0.50:80/TCP (0)"])
def test_lb_list_in_each_version_s_form(key: str) -> None:
    rows = [
        "0.0.0.0:0 (12) (0) [ClusterIP, non-routable]",
        "10.244.2.22:8080/TCP (12) (2)",
        "10.244.1.21:8080 (12) (1)",
    ]
    (found,) = lb_list(json.dumps({key: rows}))
    assert found.backends == (("10.244.1.21", 8080), ("10.244.2.22", 8080))
    assert found.protocol == ("tcp" if "TCP" in key else "")
    assert "[ClusterIP]" in found.text


def test_lb_list_with_a_key_a_slot() -> None:
    told = {
        "10.96.0.50:80/TCP (0)": ["0.0.0.0:0 (12) (0) [NodePort, sessionAffinity]"],
        "10.96.0.50:80/TCP (1)": ["10.244.1.21:8080/TCP (12) (1)"],
        "10.96.0.50:80/TCP (2)": ["10.244.2.22:8080/TCP (12) (2)"],
    }
    (found,) = lb_list(json.dumps(told))
    assert found.backends == (("10.244.1.21", 8080), ("10.244.2.22", 8080))
    assert found.remembers


def test_lb_list_prefers_the_inner_scope_and_reads_ipv6() -> None:
    told = {
        "[fd00::1]:80/TCP/i": ["[fd00:2::1]:8080 (3) (1)", "[fd00:2::2]:8080 (3) (2)"],
        "[fd00::1]:80/TCP": ["[fd00:2::1]:8080 (3) (1)"],
        "something else": ["nobody knows"],
    }
    (found,) = lb_list(json.dumps(told))
    assert found.address == "fd00::1"
    assert found.backends == (("fd00:2::1", 8080), ("fd00:2::2", 8080))


HUBBLE: dict[str, Any] = {
    "flow": {
        "time": "2026-03-01T10:00:00Z",
        "verdict": "DROPPED",
        "drop_reason": 133,
        "drop_reason_desc": "POLICY_DENIED",
        "IP": {"source": "10.244.1.10", "destination": "10.244.2.21", "ipVersion": "IPv4"},
        "l4": {"TCP": {"source_port": 41515, "destination_port": 8080, "flags": {"SYN": True}}},
        "source": {"ID": 12, "identity": 26171, "namespace": "shop", "pod_name": "client"},
        "destination": {"namespace": "shop", "pod_name": "remote-1"},
        "Type": "L3_L4",
        "node_name": "node-b",
        "trace_observation_point": "TO_ENDPOINT",
        "is_reply": None,
    },
    "node_name": "node-b",
}


def test_hubble_tells_verdict_reason_and_pods() -> None:
    (found,) = hubble(json.dumps(HUBBLE) + "\n\n")
    assert found == Seen(
        verdict="DROPPED",
        flow=Flow(protocol="tcp", src="10.244.1.10", dst="10.244.2.21", sport=41515, dport=8080),
        point="to-endpoint",
        reason="POLICY_DENIED",
        source="shop/client",
        destination="shop/remote-1",
        node="node-b",
    )


def test_the_node_of_hubbles_event_is_used_where_the_flow_has_none() -> None:
    """``hubble observe`` writes the node beside the flow; older servers leave it out inside."""
    flow = {name: value for name, value in HUBBLE["flow"].items() if name != "node_name"}
    (event,) = hubble(json.dumps({"flow": flow, "node_name": "node-c"}))
    assert event.node == "node-c"


def test_hubble_tells_the_translation_of_a_socket() -> None:
    told = {
        "flow": {
            "verdict": "TRANSLATED",
            "IP": {"source": "10.244.1.10", "destination": "10.96.0.50"},
            "l4": {"UDP": {"source_port": 5, "destination_port": 53}},
            "Type": "SOCK",
            "sock_xlate_point": "SOCK_XLATE_POINT_PRE_DIRECTION_FWD",
            "drop_reason_desc": "DROP_REASON_UNKNOWN",
        }
    }
    (found,) = hubble(json.dumps(told))
    assert (found.verdict, found.point, found.reason) == ("TRANSLATED", "pre-direction-fwd", "")
    assert found.flow.protocol == "udp"


def test_hubble_s_other_lines_are_no_packets() -> None:
    assert hubble('{"node_status": {"state_change": "NODE_CONNECTED"}}\n') == ()


def test_monitor_tells_drops_and_traces() -> None:
    summary = {
        "tcp": "{}",
        "l3": {"src": "10.244.1.10", "dst": "10.244.2.21"},
        "l4": {"src": "41515", "dst": "8080"},
    }
    lines = [
        {"type": "drop", "reason": "Policy denied", "summary": summary},
        {"type": "trace", "observationPoint": "to-overlay", "state": "new", "summary": summary},
        {"type": "agent", "message": "regenerated"},
    ]
    dropped, traced = monitor("\n".join(map(json.dumps, lines)))
    flow = Flow(protocol="tcp", src="10.244.1.10", dst="10.244.2.21", sport=41515, dport=8080)
    assert dropped == Seen(verdict="DROPPED", flow=flow, reason="Policy denied")
    assert traced == Seen(verdict="FORWARDED", flow=flow, point="to-overlay", reply=False)


@pytest.mark.parametrize("parse", [services, lb_list, hubble, monitor])
@pytest.mark.parametrize("text", ["{", "nonsense", '"text"'])
def test_nonsense_is_refused(parse: object, text: str) -> None:
    with pytest.raises(ParseError):
        parse(text)  # type: ignore[operator]
