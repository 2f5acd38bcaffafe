"""``--offline`` on a node in IPVS mode: no API, its own tables, and addresses instead of names."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest

from kptrace.lab.address_plan import Plan
from kptrace.lab.state import Lab
from kptrace.model import Netns

CLIENT = "10.244.1.10"


def suits(lab: Plan, address: str = "", server: str = "") -> bool:
    return lab.proxy == "ipvs" and lab.network in ("vxlan", "calico-ipip")


def on_node(lab: Lab, *args: str) -> subprocess.CompletedProcess[str]:
    netns = lab.netns_handle(Netns(node="node-a")).ns_path
    command = ["nsenter", f"--net={netns}", sys.executable, "-m", "kptrace", *args, "--offline"]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


def traced(lab: Lab, target: str) -> Any:
    done = on_node(lab, target, "--from", CLIENT, "--timeout", "2", "-o", "json")
    assert (done.returncode, done.stderr) == (0, "")
    return json.loads(done.stdout)


@pytest.mark.parametrize(
    ("address", "server"), [("10.96.1.2", "10.244.2.21"), ("10.96.1.3", "10.244.1.31")]
)
def test_an_address_by_the_nodes_own_tables(bench: Any, address: str, server: str) -> None:
    """One server on the other node, one on this; nobody tells which pods they are."""
    made = traced(bench.lab, f"{address}:80")
    assert (made["outcome"], made["findings"]) == ("delivered", [])
    choice = next(hop for hop in made["hops"] if hop["action"] == "dnat")
    assert choice["packet"]["flow"]["dst"] == server
    assert (choice["rule"]["backend"], choice["rule"]["chain"]) == ("ipvs", f"{address}:80/tcp")
    assert choice["rule"]["description"].endswith("; conntrack has it")
    assert made["hops"][0]["packet"]["flow"]["src"] == CLIENT
    assert made["evidence"]["probeResults"][0]["result"] == "connected"


def test_a_name_is_not_known(bench: Any) -> None:
    done = on_node(bench.lab, "svc/remote", "-n", "shop")
    assert done.returncode == 3
    assert "proxy ipvs keeps addresses only" in done.stderr
    assert "kptrace ADDRESS:PORT --offline" in done.stderr
