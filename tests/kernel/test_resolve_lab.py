"""``kptrace resolve`` in a lab: its DNS servers are asked, from the pod, as the pod's file says."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from kptrace.lab.state import Lab
from kptrace.model import Netns

pytestmark = pytest.mark.kernel

ROOT = Path(__file__).parents[2]


def resolve(bench: Any, target: str, *more: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "kptrace", "resolve", target, "-n", "shop"]
    return subprocess.run(
        [*command, "--lab-name", bench.lab.name, *more],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@contextmanager
def no_answers(lab: Lab) -> Iterator[None]:
    """What comes back to the client from port 53 is dropped."""
    netns = lab.netns_handle(Netns(node="node-a", pod="shop/client")).ns_path
    rule = ("INPUT", "-p", "udp", "--sport", "53", "-j", "DROP")
    within = ("nsenter", f"--net={netns}", "iptables")
    subprocess.run([*within, "-A", *rule], check=True)
    try:
        yield
    finally:
        subprocess.run([*within, "-D", *rule], check=True)


def test_api_and_dns_agree(vxlan_bench: Any) -> None:
    done = resolve(vxlan_bench, "svc/dual", "--from", "pod/client", "-o", "json")
    assert (done.returncode, done.stderr) == (0, "")
    made = json.loads(done.stdout)
    assert made["kind"] == "ResolveReport"
    records = [record for answer in made["resolution"]["dns"] for record in answer["records"]]
    assert records == [["A", "10.96.1.13"], ["AAAA", "fd00:10:96::113"]]
    assert made["resolution"]["search"][0] == "shop.svc.cluster.local"


def test_a_pod_on_the_way_that_dns_takes_is_not_the_one_that_answers(vxlan_bench: Any) -> None:
    """Each search name in turn; the text says which one had the answer."""
    done = resolve(vxlan_bench, "svc/kube-dns", "-n", "kube-system", "--from", "pod/client.shop")
    assert done.returncode == 0
    assert "kube-dns.kube-system.shop.svc.cluster.local A  NXDOMAIN" in done.stdout
    assert "kube-dns.kube-system.svc.cluster.local A  10.96.0.10" in done.stdout


def test_dns_that_does_not_answer(vxlan_bench: Any) -> None:
    with no_answers(vxlan_bench.lab):
        done = resolve(vxlan_bench, "svc/remote", "--from", "pod/client", "-4")
    assert done.returncode == 1
    assert "UNRESOLVED" in done.stdout.splitlines()[0]
    assert "dns-timeout" in done.stdout


@pytest.mark.parametrize(
    ("args", "code", "said"),
    [
        (("svc/wbe",), 3, "did you mean svc/web"),
        (("svc/web", "-4", "-6"), 2, "exclude each other"),
        (("svc/web", "-o", "junit"), 2, "junit"),
    ],
)
def test_what_is_refused(vxlan_bench: Any, args: tuple[str, ...], code: int, said: str) -> None:
    done = resolve(vxlan_bench, *args)
    assert (done.returncode, done.stdout) == (code, "")
    assert said in done.stderr
