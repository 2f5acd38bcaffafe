"""The command itself: what it prints and exits with in a lab; a saved run replayed elsewhere."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from kptrace.lab.faults import inject

pytestmark = pytest.mark.kernel

ROOT = Path(__file__).parents[2]
POWERLESS = ("setpriv", "--bounding-set=-all", "--inh-caps=-all")


def kptrace(*args: str, by: tuple[str, ...] = ()) -> subprocess.CompletedProcess[bytes]:
    """by: a program that starts it."""
    command = [*by, sys.executable, "-m", "kptrace", *args]
    return subprocess.run(command, cwd=ROOT, capture_output=True, timeout=60, check=False)


def traced(lab: str, target: str, *more: str) -> subprocess.CompletedProcess[bytes]:
    return kptrace(target, "-n", "shop", "--from", "pod/client", "--lab-name", lab, *more)


@contextmanager
def broken(lab: str, name: str) -> Iterator[None]:
    inject.inject(lab, inject.find(name))
    try:
        yield
    finally:
        inject.heal(lab, name)


# --- what it prints and exits with ----------------------------------------------------------------


def test_the_contract(vxlan_bench: Any) -> None:
    """The Service on the other node, as the issue's last lines ask for it."""
    done = traced(vxlan_bench.lab.name, "svc/remote", "-o", "json")
    assert (done.returncode, done.stderr) == (0, b"")
    made = json.loads(done.stdout)
    assert (made["apiVersion"], made["kind"]) == ("kptrace.io/v1alpha1", "Trace")
    assert made["outcome"] == "delivered"
    assert made["findings"] == []
    for key in ("target", "source", "resolution", "prediction", "hops", "evidence"):
        assert made[key]
    by_action = {hop["action"]: hop for hop in made["hops"]}
    assert by_action["dnat"]["rule"]["chain"].startswith("KUBE-SEP-")
    assert by_action["dnat"]["node"] == by_action["encap"]["node"] == "node-a"
    assert by_action["decap"]["node"] == by_action["delivered"]["node"] == "node-b"
    assert by_action["delivered"]["netns"] == "shop/remote-1"
    for hop in made["hops"]:
        assert {"node", "netns", "interface", "direction", "action", "packet"} <= hop.keys()


def test_text_says_the_answer_first_in_80_columns(vxlan_bench: Any) -> None:
    done = traced(vxlan_bench.lab.name, "svc/remote")
    lines = done.stdout.decode().splitlines()
    assert "DELIVERED" in lines[0]
    assert "pod/remote-1 on node-b" in lines[1]
    assert max(map(len, lines)) <= 80
    assert "\033" not in done.stdout.decode()


@pytest.mark.parametrize(
    ("fault", "outcome"),
    [
        ("tunnel-port-blocked", "dropped"),
        ("no-endpoints", "no-endpoints"),
        ("no-listener", "refused"),
    ],
)
def test_exit_codes(vxlan_bench: Any, fault: str, outcome: str) -> None:
    lab = vxlan_bench.lab.name
    with broken(lab, fault):
        done = traced(lab, "svc/remote", "--timeout", "1")
        assert (done.returncode, done.stderr) == (1, b"")
        assert fault in done.stdout.decode()
        expected = traced(lab, "svc/remote", "--timeout", "1", "--expect", outcome, "-o", "json")
        assert expected.returncode == 0
        assert json.loads(expected.stdout)["outcome"] == outcome
    assert traced(lab, "svc/remote", "--expect", outcome).returncode == 1


@pytest.mark.parametrize(
    ("args", "code", "said"),
    [
        (("svc/wbe",), 3, "did you mean svc/web"),
        (("svc/web", "--from", "pod/nobody"), 3, "no pod nobody in namespace shop"),
        (("svc/web:nope",), 3, "has no port nope"),
        (("svc/web", "--via", "nodePort"), 2, "has no node port"),
        (("svc/web6", "-4"), 2, "has no IPv4"),
        (("svc/nodeport", "--via", "nodePort", "--node", "node-x"), 3, "no node node-x"),
        (("nothing.shop:80",), 3, "no Service nothing in namespace shop"),
        (("nothing.example.invalid:80",), 1, ""),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_what_cannot_be_traced(
    vxlan_bench: Any, args: tuple[str, ...], code: int, said: str
) -> None:
    done = kptrace(args[0], "-n", "shop", "--lab-name", vxlan_bench.lab.name, *args[1:])
    assert done.returncode == code, done.stderr.decode()
    assert said in done.stderr.decode()
    assert "Traceback" not in done.stderr.decode()


def test_in_no_lab() -> None:
    done = traced("no-such-lab", "svc/web")
    assert done.returncode == 3
    first, hint = done.stderr.decode().splitlines()
    assert first == "kptrace: there is no lab named 'no-such-lab'"
    assert "kptrace lab up --name no-such-lab" in hint


# --- a saved run ----------------------------------------------------------------------------------


@pytest.mark.parametrize("fault", ["", "stale-dnat"], ids=["delivered", "dropped"])
def test_replayed_without_the_lab_and_without_root(lab_of: Any, tmp_path: Path, fault: str) -> None:
    """The very bytes, when nothing of the lab is left, by a process without any capability."""
    saved = tmp_path / "run.tar.gz"
    with lab_of() as lab:
        if fault:
            inject.inject(lab.name, inject.find(fault))
        first = traced(lab.name, "svc/remote", "--timeout", "1", "--save", str(saved))
    assert first.returncode == bool(fault)
    assert kptrace("lab", "up", "--name", "powerless", by=POWERLESS).returncode == 3
    again = kptrace("replay", str(saved), by=POWERLESS)
    assert (again.stdout, again.returncode) == (first.stdout, first.returncode), again.stderr


@pytest.mark.parametrize("form", ["json", "yaml", "junit", "wide"])
def test_every_form_is_replayed(vxlan_bench: Any, tmp_path: Path, form: str) -> None:
    saved = tmp_path / "run.tar.gz"
    first = traced(vxlan_bench.lab.name, "svc/web", "--save", str(saved), "-o", form)
    again = kptrace("replay", str(saved), "-o", form)
    assert again.stdout == first.stdout
    assert again.returncode == first.returncode == 0


def test_a_cut_file_is_refused(vxlan_bench: Any, tmp_path: Path) -> None:
    saved = tmp_path / "run.tar.gz"
    traced(vxlan_bench.lab.name, "svc/near", "--save", str(saved))
    saved.write_bytes(saved.read_bytes()[:-100])
    done = kptrace("replay", str(saved))
    assert done.returncode == 3
    assert done.stdout == b""
    assert done.stderr.decode().startswith(f"kptrace: {saved}")
