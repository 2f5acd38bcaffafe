"""``kptrace explain`` where policies deny: a fault for whom somebody asks, else what is wanted."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.rows import row

from kptrace.lab.faults import inject

pytestmark = pytest.mark.kernel

ROOT = Path(__file__).parents[2]


@pytest.fixture(
    scope="module", params=[row("iptables", "calico-vxlan"), row("nftables", "calico-vxlan")]
)
def lab(request: pytest.FixtureRequest, lab_of: Any) -> Iterator[Any]:
    with lab_of(*request.param) as made:
        yield made


def explained(lab: str, service: str, *more: str) -> tuple[int, Any]:
    command = [sys.executable, "-m", "kptrace", "explain", service, "-n", "shop"]
    done = subprocess.run(
        [*command, "--lab-name", lab, "-o", "json", *more],
        cwd=ROOT,
        capture_output=True,
        timeout=120,
        check=False,
    )
    return done.returncode, json.loads(done.stdout)


def denials(made: Any) -> list[tuple[str, str, str]]:
    return [
        (one["severity"], one["node"], one["object"])
        for one in made["findings"]
        if one["cause"] == "policy-drop"
    ]


def test_a_sound_lab_has_no_fault_though_policies_deny(lab: Any) -> None:
    """web admits the pods of its own namespace and the nodes, and nobody from outside."""
    code, made = explained(lab.name, "svc/web")
    wanted = ("info", "node-a", "NetworkPolicy shop/web-from-shop, tier default")
    assert (code, set(denials(made))) == (0, {wanted})
    by_sender = {one["from"]: one["deniedBy"] for one in made["ports"][0]["entries"]}
    assert by_sender == {"pod": "", "node": "", "outside": wanted[2]}


def test_for_whom_somebody_asks_it_is_the_answer(lab: Any) -> None:
    code, made = explained(lab.name, "svc/web", "--from", "pod/kube-system/coredns-1")
    wanted = ("error", "node-a", "NetworkPolicy shop/web-from-shop, tier default")
    assert (code, set(denials(made))) == (1, {wanted})
    assert made["ports"][0]["entries"][0]["pod"] == "kube-system/coredns-1"


def test_on_the_senders_side(lab: Any) -> None:
    """Where it is no example but the pod that the policy is for."""
    name = "policy-deny-egress"
    wanted = "Calico NetworkPolicy shop/client-quarantine, tier security"
    inject.inject(lab.name, inject.find(name))
    try:
        unasked, made = explained(lab.name, "svc/remote")
        code, asked = explained(lab.name, "svc/remote", "--from", "pod/client")
    finally:
        inject.heal(lab.name, name)
    assert (unasked, set(denials(made))) == (0, {("info", "node-a", wanted)})
    assert (code, set(denials(asked))) == (1, {("error", "node-a", wanted)})
