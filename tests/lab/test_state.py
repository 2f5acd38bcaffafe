from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from kptrace.lab import state
from kptrace.lab.address_plan import plan
from kptrace.lab.state import Lab, LabStateFile, Process
from kptrace.model import Netns
from kptrace.model.errors import ClusterUnreachableError, ObservationError, UsageError


@pytest.fixture(autouse=True)
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    root = tmp_path / "kptrace" / "lab"
    monkeypatch.setattr(state, "ROOT", root)
    return root


def saved(name: str = "x", *, ready: bool = True) -> Lab:
    made = Lab(
        plan=plan(name, 3, "nftables", "host-gw"),
        state=LabStateFile(nodes=3, proxy="nftables", network="host-gw", ready=ready),
    )
    state.save(made)
    return made


def test_what_is_saved_is_loaded() -> None:
    lab = saved()
    assert state.load("x") == lab
    assert state.names() == ("x",)


def test_there_is_none() -> None:
    with pytest.raises(ClusterUnreachableError, match="there is no lab named 'default'") as raised:
        state.load()
    assert raised.value.hint == "make it: kptrace lab up"
    with pytest.raises(ClusterUnreachableError) as raised:
        state.load("ci")
    assert raised.value.hint == "make it: kptrace lab up --name ci"


def test_half_made() -> None:
    lab = saved(ready=False)
    with pytest.raises(ClusterUnreachableError, match="half made") as raised:
        state.load("x")
    assert "kptrace lab down --name x" in raised.value.hint
    assert state.load("x", half_made=True) == lab


@pytest.mark.parametrize("name", ["../x", "a/b", "", "."])
def test_a_name_cannot_lead_elsewhere(name: str) -> None:
    with pytest.raises(UsageError):
        state.load(name)


@pytest.mark.parametrize("text", [b"", b"{", b"[]", b'{"nodes": "two"}', b"\xff"])
def test_a_state_that_is_none(root: Path, text: bytes) -> None:
    (root / "x").mkdir(parents=True)
    (root / "x" / "state.json").write_bytes(text)
    with pytest.raises(ObservationError, match="is not a lab's"):
        state.load("x")


def test_doors_lead_to_every_place() -> None:
    lab = saved()
    doors = {door.netns: door for door in lab.handles}
    assert set(doors) >= {Netns(node="node-c"), Netns(node="node-a", pod="shop/client")}
    client = doors[Netns(node="node-a", pod="shop/client")]
    assert client.ns_path == "/run/netns/kpt-x-shop.client"
    assert client.resolv_conf == "/etc/netns/kpt-x-shop.client/resolv.conf"
    assert doors[Netns(node="node-c")].resolv_conf == ""
    assert len(doors) == 3 + len(lab.plan.pods)


def test_the_lock_leaves_nothing(root: Path) -> None:
    with state.locked():
        assert root.is_dir()
    assert not root.parent.exists()
    saved()
    with state.locked():
        pass
    assert state.names() == ("x",)


def test_a_process_is_known_by_its_start() -> None:
    own = Process.of(os.getpid())
    assert own.alive()
    assert not Process(pid=own.pid, started=own.started - 1).alive()
    child = subprocess.Popen(["sleep", "100"])
    process = Process.of(child.pid)
    Process(pid=process.pid, started=process.started + 1).end()
    assert child.poll() is None
    process.end()
    assert child.wait() == -9
    assert not process.alive()
    process.end()
