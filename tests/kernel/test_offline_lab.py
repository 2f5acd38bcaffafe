"""``--offline`` in the namespace of a lab's node: no API, its own rules, devices and namespaces."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from kptrace.agent.netns import run_in_netns
from kptrace.environment.local_pods import local_pods
from kptrace.lab import state
from kptrace.lab.state import Lab
from kptrace.model import Netns

pytestmark = pytest.mark.kernel

ROOT = Path(__file__).parents[2]
HERE = socket.gethostname()
CLIENT = "10.244.1.10"


POWERLESS = ("setpriv", "--bounding-set=-all", "--inh-caps=-all")


def on_node(
    lab: Lab, *args: str, node: str = "node-a", rights: tuple[str, ...] = ()
) -> subprocess.CompletedProcess[str]:
    netns = lab.netns_handle(Netns(node=node)).ns_path
    command = ["nsenter", f"--net={netns}", *rights, sys.executable, "-m", "kptrace", *args]
    return subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )


def traced(lab: Lab, target: str, *more: str) -> dict[str, Any]:
    done = on_node(lab, target, "-n", "shop", "--offline", "--timeout", "1", "-o", "json", *more)
    assert done.stderr == ""
    made: dict[str, Any] = json.loads(done.stdout)
    return made


def test_each_mode_up_to_the_wire(each_proxy_bench: Any) -> None:
    lab = each_proxy_bench.lab
    made = traced(lab, "svc/remote", "--from", CLIENT)
    assert made["outcome"] == "delivered"
    assert made["findings"] == []
    by_action = {hop["action"]: hop for hop in made["hops"]}
    assert by_action["dnat"]["packet"]["flow"]["dst"] == "10.244.2.21"
    assert by_action["encap"]["node"] == HERE
    assert {hop["node"] for hop in made["hops"]} == {HERE}
    missing = {
        layer["name"]: layer for layer in made["evidence"]["sources"] if layer["unavailable"]
    }
    assert "up to the wire" in missing["agent"]["unavailable"]
    assert missing["agent"]["node"] == "172.30.0.12"
    assert "not asked" in missing["the API"]["unavailable"]
    assert made["resolution"]["dns"][-1]["records"] == [["A", "10.96.1.2"]]


def test_each_mode_to_a_pod_of_the_same_node(each_proxy_bench: Any) -> None:
    made = traced(each_proxy_bench.lab, "svc/near", "--from", CLIENT)
    assert made["outcome"] == "delivered"
    last = [hop for hop in made["hops"] if hop["action"] == "delivered"][-1]
    assert last["netns"] == "shop/10-244-1-31"


def test_what_is_lost_beyond_the_wire_stays_open(vxlan_bench: Any) -> None:
    with vxlan_bench.broken("tunnel-port-blocked"):
        done = on_node(vxlan_bench.lab, "svc/remote", "-n", "shop", "--offline", "--timeout", "1")
    assert done.returncode == 4
    assert "last seen going out on eth0" in done.stdout
    assert "up to the wire" in " ".join(done.stdout.split())


@pytest.mark.parametrize("fault", ["fdb-missing", "ip-forward-off", "forward-policy-drop"])
def test_faults_of_the_node_itself_are_named(vxlan_bench: Any, fault: str) -> None:
    with vxlan_bench.broken(fault):
        made = traced(vxlan_bench.lab, "svc/remote", "--from", CLIENT)
    assert made["outcome"] == "dropped"
    assert made["findings"][0]["cause"] == fault


def test_who_the_source_can_be(vxlan_bench: Any) -> None:
    lab = vxlan_bench.lab
    pods = run_in_netns(lab.netns_handle(Netns(node="node-a")).ns_path, local_pods)
    (device,) = (pod.device for pod in pods if CLIENT in pod.addresses)
    for word in (CLIENT, device, f"pod/{CLIENT}", "pod/10-244-1-10"):
        assert traced(lab, "svc/near", "--from", word)["source"]["netns"]["pod"] == (
            "shop/10-244-1-10"
        ), word
    assert traced(lab, "svc/near", "--from", f"node/{HERE}")["source"]["netns"] == {
        "node": HERE,
        "pod": "",
    }


def test_a_process_of_the_pod(vxlan_bench: Any) -> None:
    lab = vxlan_bench.lab
    netns = lab.netns_handle(Netns(node="node-a", pod="shop/client")).ns_path
    with subprocess.Popen(["nsenter", f"--net={netns}", "sleep", "60"]) as sleeper:
        try:
            made = traced(lab, "svc/near", "--from", f"pid/{sleeper.pid}")
        finally:
            sleeper.kill()
    assert made["source"]["netns"]["pod"] == "shop/10-244-1-10"


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (("svc/wbe",), "did you mean svc/web"),
        (("svc/web", "--from", "pod/nobody"), "10.244.1.10 (veth"),
        (("svc/web", "--from", "node/other"), "--offline sees node/"),
        (("svc/web:nope",), "has no port nope"),
    ],
)
def test_what_is_not_there(vxlan_bench: Any, args: tuple[str, ...], said: str) -> None:
    done = on_node(vxlan_bench.lab, *args, "-n", "shop", "--offline")
    assert (done.returncode, done.stdout) == (3, "")
    assert said in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("args", [("svc/web",), ("explain", "svc/web"), ("check",)])
def test_without_the_right_to_read_the_rules(vxlan_bench: Any, args: tuple[str, ...]) -> None:
    """Nothing is said about rules that were not read."""
    space = ("-n", "shop") if args[-1] == "svc/web" else ()
    done = on_node(vxlan_bench.lab, *args, *space, "--offline", rights=POWERLESS)
    assert (done.returncode, done.stdout) == (3, "")
    assert f"the rules of node {HERE}: not permitted" in done.stderr
    assert "run as root, or grant CAP_NET_ADMIN" in done.stderr


def test_a_snapshot_without_the_right_to_read_the_rules(vxlan_bench: Any, tmp_path: Path) -> None:
    args = ("snapshot", "--offline", "-o", str(tmp_path / "kept"))
    done = on_node(vxlan_bench.lab, *args, rights=POWERLESS)
    assert (done.returncode, done.stderr) == (4, "")
    assert "rules/tables.json: not permitted" in done.stdout


def test_resolved_without_an_api(vxlan_bench: Any) -> None:
    done = on_node(
        vxlan_bench.lab, "resolve", "svc/remote", "-n", "shop", "--offline", "--from", CLIENT
    )
    assert done.returncode == 0
    assert "Rules Service shop/remote, ClusterIP 10.96.1.2" in done.stdout
    assert "remote.shop.svc.cluster.local A  10.96.1.2" in done.stdout
    assert "No API server was asked" in done.stdout


def test_a_saved_run_says_who_told(vxlan_bench: Any, tmp_path: Path) -> None:
    saved = str(tmp_path / "run.tar.gz")
    first = on_node(vxlan_bench.lab, "svc/remote", "-n", "shop", "--offline", "--save", saved)
    again = on_node(vxlan_bench.lab, "replay", saved)
    assert again.stdout == first.stdout
    assert "the API on" in first.stdout


def test_programs_at_connect_keep_no_names(each_cilium_bench: Any) -> None:
    """A real Cilium hangs on the root cgroup and pins below /sys/fs/bpf; the lab beside them."""
    lab = each_cilium_bench.lab
    done = on_node(lab, "svc/remote", "-n", "shop", "--offline")
    assert done.returncode == 3
    assert "proxy cilium keeps addresses only" in done.stderr
    group, pins = state.cgroup(lab.plan, "node-a"), state.bpffs(lab.plan) / "node-a"
    inside = (
        f"echo $$ > {group}/cgroup.procs; mount --bind {pins} /sys/fs/bpf; "
        f"exec {sys.executable} -m kptrace 10.96.1.2:80 --offline --from {CLIENT} -o json"
    )
    netns = lab.netns_handle(Netns(node="node-a")).ns_path
    done = subprocess.run(
        ["nsenter", f"--net={netns}", "unshare", "-m", "sh", "-c", inside],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    made = json.loads(done.stdout)
    assert made["outcome"] == "delivered"
    assert any(hop["packet"]["flow"]["dst"] == "10.244.2.21" for hop in made["hops"])
