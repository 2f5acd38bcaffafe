"""In a pod of a lab, as an ordinary container is: no capability, no API, its own resolv.conf."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from kptrace.lab.state import Lab
from kptrace.model import Netns

pytestmark = pytest.mark.kernel

ROOT = Path(__file__).parents[2]
NOTHING = ("--bounding-set=-all", "--inh-caps=-all")
NETADMIN = ("--bounding-set=-all,+net_admin,+net_raw", "--inh-caps=-all,+net_admin,+net_raw")
NOBODY = ("--reuid=65534", "--regid=65534", "--clear-groups", *NOTHING)
ENVIRON = {
    "KUBERNETES_SERVICE_HOST": "10.96.0.1",
    "KUBERNETES_SERVICE_PORT": "443",
    "HOSTNAME": "client",
    "HOME": "/nonexistent",
    "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
}


def in_pod(
    lab: Lab, *args: str, rights: tuple[str, ...] = NOTHING
) -> subprocess.CompletedProcess[str]:
    """``ip netns exec`` shows the pod its own resolv.conf, as a kubelet does."""
    netns = Path(lab.netns_handle(Netns(node="node-a", pod="shop/client")).ns_path).name
    # env: so that the program itself is looked up with these rights, and not by setpriv
    command = ["ip", "netns", "exec", netns, "setpriv", *rights, "env", sys.executable, *args]
    return subprocess.run(
        command, cwd=ROOT, env=ENVIRON, capture_output=True, text=True, timeout=60, check=False
    )


def traced(lab: Lab, *args: str, rights: tuple[str, ...] = NOTHING) -> dict[str, Any]:
    done = in_pod(lab, "-m", "kptrace", *args, "--timeout", "1", "-o", "json", rights=rights)
    assert done.stderr == ""
    made: dict[str, Any] = json.loads(done.stdout)
    return made


def missing(made: dict[str, Any]) -> dict[str, tuple[str, str]]:
    layers = made["evidence"]["sources"]
    return {one["name"]: (one["unavailable"], one["hint"]) for one in layers if one["unavailable"]}


def test_it_resolves_and_connects(vxlan_bench: Any) -> None:
    made = traced(vxlan_bench.lab, "svc/remote")
    assert made["outcome"] == "delivered"
    assert made["source"]["netns"]["pod"] == "shop/client"
    assert made["resolution"]["dns"][-1]["records"] == [["A", "10.96.1.2"]]
    assert made["evidence"]["probeResults"][0]["result"] == "connected"
    assert made["hops"] == []
    assert made["evidence"]["predictionMatch"] is None
    assert made["evidence"]["visibility"] == "pod"


def test_what_it_could_not_see_and_what_would_show_it(vxlan_bench: Any) -> None:
    lacks = missing(traced(vxlan_bench.lab, "svc/remote"))
    assert set(lacks) == {"capture", "rules", "drops", "conntrack", "host", "the API"}
    assert "CAP_NET_ADMIN and CAP_NET_RAW" in lacks["capture"][1]
    assert "CAP_NET_ADMIN" in lacks["rules"][1]
    assert "CAP_BPF" in lacks["drops"][1]
    assert "its own namespace only" in lacks["host"][0]
    assert "service account" in lacks["the API"][0]
    assert "--kubeconfig" in lacks["the API"][1]


@pytest.mark.parametrize(
    ("target", "told"), [("svc/empty", "refused"), ("svc/remote:81", "timeout")]
)
def test_a_failure_stays_open(vxlan_bench: Any, target: str, told: str) -> None:
    """Refused by a rule, or by the backend: from here they look alike."""
    made = traced(vxlan_bench.lab, target)
    assert made["outcome"] == "inconclusive"
    assert made["evidence"]["probeResults"][0]["result"] == told


def test_udp_needs_no_right_to_be_marked(vxlan_bench: Any) -> None:
    made = traced(vxlan_bench.lab, "svc/echo:7/udp")
    assert (made["outcome"], made["evidence"]["probeResults"][0]["result"]) == (
        "delivered",
        "replied",
    )


def test_with_net_admin_and_net_raw_its_own_device_is_watched(vxlan_bench: Any) -> None:
    made = traced(vxlan_bench.lab, "svc/remote", rights=NETADMIN)
    assert made["outcome"] == "delivered"
    assert {(hop["netns"], hop["interface"]) for hop in made["hops"]} == {("shop/client", "eth0")}
    assert set(missing(made)) == {"drops", "conntrack", "host", "the API"}


def test_a_name_that_is_not_there(vxlan_bench: Any) -> None:
    made = traced(vxlan_bench.lab, "svc/nothing")
    assert made["outcome"] == "unresolved"
    assert made["findings"][0]["cause"] == "dns-nxdomain"


def test_another_source_takes_rights(vxlan_bench: Any) -> None:
    done = in_pod(vxlan_bench.lab, "-m", "kptrace", "svc/web", "--from", "pod/web-1")
    assert (done.returncode, done.stdout) == (3, "")
    assert "service account" in done.stderr


def test_resolve(vxlan_bench: Any) -> None:
    done = in_pod(vxlan_bench.lab, "-m", "kptrace", "resolve", "svc/remote")
    assert (done.returncode, done.stderr) == (0, "")
    assert "remote.shop.svc.cluster.local A  10.96.1.2" in done.stdout
    assert "told by DNS alone" in done.stdout


@pytest.fixture
def program(vxlan_bench: Any) -> None:
    """A Python that nobody may run is none in this pod."""
    done = in_pod(vxlan_bench.lab, "-c", "import kptrace.cli.app", rights=NOBODY)
    if done.returncode:
        pytest.skip(f"uid 65534 cannot run {sys.executable}: {done.stderr.strip()[-200:]}")


def test_as_nobody(vxlan_bench: Any, program: None) -> None:
    made = traced(vxlan_bench.lab, "svc/remote", rights=NOBODY)
    assert made["outcome"] == "delivered"
    assert set(missing(made)) == {"capture", "rules", "drops", "conntrack", "host", "the API"}


WITH_API = """
import json, sys
from pathlib import Path
from kptrace.trace import trace
from kptrace.model.errors import PermissionDeniedError
from kptrace.environment.in_pod import InPod, PodIdentity
from kptrace.model import TraceRequest
from kptrace.render.json import json as rendered
from kptrace.model.targets import parse_target
texts = {path.name: path.read_text() for path in Path(sys.argv[1]).iterdir()}
request = TraceRequest(target=parse_target("svc/remote", "shop"), source="pod/client.shop",
                    namespace="shop")
why = "not allowed to create pods in namespace shop"
refusal = PermissionDeniedError(why, "--dry-run prints the roles")
with InPod(request, PodIdentity(name="client", namespace="shop"), texts, refusal) as here:
    print(rendered(trace.report(trace.run(here.request, here, 7, lambda _: None))))
"""


def test_an_account_that_may_read_but_start_nothing(vxlan_bench: Any) -> None:
    """The API is asked, so the Service and its endpoints are known; the nodes stay unseen."""
    done = in_pod(vxlan_bench.lab, "-c", WITH_API, str(vxlan_bench.lab.api))
    assert done.stderr == ""
    made = json.loads(done.stdout)
    assert made["outcome"] == "delivered"
    assert made["resolution"]["service"]["name"] == "remote"
    lacks = missing(made)
    assert "the API" not in lacks
    assert "not allowed to create pods" in lacks["host"][0]
