"""What ``cilium-dbg`` printed, laid into a bundle by hand: explained as the maps themselves are."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from kptrace.bundle.folder import Bundle
from kptrace.explain.explain import explain_from_state
from kptrace.lab import manifests
from kptrace.lab.address_plan import plan
from kptrace.model import Explanation, Outcome
from kptrace.model.targets import parse_target

ALL = ("10.244.1.11", "10.244.2.12", "10.244.2.13")


def services(*backends: str) -> tuple[str, object]:
    """``cilium-dbg service list -o json``"""
    realized = {
        "frontend-address": {"ip": "10.96.1.1", "port": 80, "protocol": "TCP", "scope": "external"},
        "backend-addresses": [{"ip": one, "port": 8080, "state": "active"} for one in backends],
        "flags": {"type": "ClusterIP", "name": "web", "namespace": "shop"},
    }
    return "cilium-service-list.json", [{"spec": {"id": 3}, "status": {"realized": realized}}]


def lb_list(*backends: str) -> tuple[str, object]:
    """``cilium-dbg bpf lb list -o json``"""
    rows = [f"{one}:8080 (3) ({slot})" for slot, one in enumerate(backends, 1)]
    head = "0.0.0.0:0 (3) (0) [ClusterIP, non-routable]"
    return "cilium-bpf-lb-list.json", {"10.96.1.1:80/TCP": [head, *rows]}


def explained(folder: Path, file: tuple[str, object], **texts: str) -> Explanation:
    made = plan(proxy="cilium", network="cilium-direct")
    (folder / "api").mkdir()
    for name, text in manifests.documents(made).items():
        (folder / "api" / name).write_text(text)
    node = folder / "node-a"
    node.mkdir()
    devices = [
        {"ifindex": n, "ifname": name, "flags": ["UP"], "mtu": 1500, "addr_info": []}
        for n, name in enumerate(("lo", "eth0", "cilium_net", "cilium_host"), 1)
    ]
    address = {"family": "inet", "local": "172.30.0.11", "prefixlen": 24, "scope": "global"}
    devices[1]["addr_info"] = [address]
    (node / "ip-addr.json").write_text(json.dumps(devices))
    (node / file[0]).write_text(json.dumps(file[1]))
    for name, text in texts.items():
        (node / f"{name.replace('_', '-')}.json").write_text(text)
    return explain_from_state(parse_target("svc/web:http", "shop"), None, "node-a", Bundle(folder))


@pytest.mark.parametrize("told", [services, lb_list], ids=["service list", "bpf lb list"])
def test_what_a_tool_printed_is_explained(tmp_path: Path, told: object) -> None:
    made = explained(tmp_path, told(*ALL))  # type: ignore[operator]
    assert (made.proxy, made.findings) == ("cilium", ())
    (port,) = made.ports
    inside = [entry for entry in port.entries if entry.sender in ("pod", "node")]
    assert len(inside) == 2
    for entry in inside:
        assert entry.outcome is Outcome.DELIVERED
        assert {one.address for one in entry.backends} == set(ALL)
        assert {rule.table for rule in entry.rules if rule.backend == "bpf"} == {told("")[0]}  # type: ignore[operator]


def test_a_backend_that_cilium_does_not_know_is_named(tmp_path: Path) -> None:
    made = explained(tmp_path, services(*ALL[:2]))
    (found,) = made.findings
    assert (found.cause, found.node) == ("endpoint-missing", "node-a")
    assert "10.244.2.13:8080" in found.summary
    assert found.remedy == ("restart the Cilium agent on node-a: it writes its maps anew",)


def flow(dst: str, port: int, verdict: str, reason: str) -> str:
    """A line of ``hubble observe -o json``."""
    told = {
        "verdict": verdict,
        "drop_reason_desc": reason,
        "IP": {"source": "10.244.1.10", "destination": dst, "ipVersion": "IPv4"},
        "l4": {"TCP": {"source_port": 40000, "destination_port": port}},
        "source": {"namespace": "shop", "pod_name": "client"},
        "destination": {"namespace": "shop", "pod_name": "web-2"},
        "node_name": "node-b",
    }
    return json.dumps({"flow": told, "node_name": "node-b"}) + "\n"


def test_drops_that_hubble_recorded_are_told_of_the_service_s_own_ends(tmp_path: Path) -> None:
    recording = (
        flow("10.244.2.12", 8080, "DROPPED", "POLICY_DENIED") * 2
        + flow("10.244.2.12", 8080, "FORWARDED", "")
        + flow("10.244.2.99", 8080, "DROPPED", "POLICY_DENIED")
    )
    made = explained(tmp_path, services(*ALL), hubble=recording)
    (found,) = made.findings
    assert (found.cause, found.severity, found.node) == ("policy-drop", "warning", "node-b")
    assert found.summary == "Hubble saw 2 packets to 10.244.2.12:8080 dropped: POLICY_DENIED"
    assert found.evidence[0] == (
        "Hubble: 10.244.1.10:40000 > 10.244.2.12:8080 (shop/client > shop/web-2)"
    )


def test_drops_of_the_monitor(tmp_path: Path) -> None:
    line = {
        "type": "drop",
        "reason": "FIB lookup failed",
        "summary": {
            "tcp": "x",
            "l3": {"src": "10.244.1.10", "dst": "10.244.2.13"},
            "l4": {"src": "40000", "dst": "8080"},
        },
    }
    made = explained(tmp_path, services(*ALL), cilium_monitor=json.dumps(line))
    (found,) = made.findings
    assert (found.cause, found.node) == ("kernel-drop", "node-a")
    assert "FIB lookup failed" in found.summary
