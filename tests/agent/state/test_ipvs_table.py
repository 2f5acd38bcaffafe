"""A line of /proc/net/ip_vs_conn as a 6.1 kernel printed it, and what is no such line."""

from __future__ import annotations

from pathlib import Path

import pytest

from kptrace.agent.state import ipvs_table
from kptrace.agent.state.ipvs_table import find, templates
from kptrace.model import Flow, Netns

PLACE = Netns(node="node-a")
HEAD = "Pro FromIP   FPrt ToIP     TPrt DestIP   DPrt State       Expires PEName PEData\n"
LINE = "TCP 0AF4010A A3C1 0A600102 0050 0AF40215 1F90 ESTABLISHED     895\n"
FLOW = Flow(protocol="tcp", src="10.244.1.10", dst="10.96.1.2", sport=0xA3C1, dport=80)


def test_the_server_of_a_flow() -> None:
    found = find(HEAD + LINE, PLACE, FLOW)
    assert found
    assert (found.reply.src, found.reply.sport) == ("10.244.2.21", 8080)
    assert (found.reply.dst, found.reply.dport) == ("10.244.1.10", 0xA3C1)
    assert (found.state, found.status) == ("ESTABLISHED", ("IPVS",))


def test_ipv6_addresses_are_text() -> None:
    line = (
        "TCP fd00:0010:0244:0001:0000:0000:0000:0010 0400 fd00:0010:0096:0000:0000:0000:0000:0112"
    )
    line += " 0050 fd00:0010:0244:0002:0000:0000:0000:0012 1F90 ESTABLISHED     895\n"
    flow = Flow(
        protocol="tcp", src="fd00:10:244:1::10", dst="fd00:10:96::112", sport=1024, dport=80
    )
    found = find(HEAD + line, PLACE, flow)
    assert found
    assert found.reply.src == "fd00:10:244:2::12"


def test_others_flows_and_rubbish_are_none() -> None:
    other = Flow(protocol="udp", src=FLOW.src, dst=FLOW.dst, sport=FLOW.sport, dport=80)
    assert find(HEAD + LINE, PLACE, other) is None
    assert find(HEAD + "TCP what is this\nTCP x y z a b c d\n", PLACE, FLOW) is None


def test_only_what_binds_a_client_is_dumped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bound = "TCP 0AFA0004 0000 0A600032 0050 0AF40909 1F90 ASSURED         299\n"
    table = tmp_path / "ip_vs_conn"
    table.write_text(HEAD + LINE * 500 + bound + LINE)
    monkeypatch.setattr(ipvs_table, "TABLE", table)
    assert templates() == HEAD + bound
    monkeypatch.setattr(ipvs_table, "TABLE", tmp_path / "none")
    assert templates() == ""
