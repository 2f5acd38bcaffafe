"""The lab's DNS pods run a real CoreDNS where there is one, and say so when it will not run."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import dns.message
import dns.query
import pytest

from kptrace.agent.netns import run_in_netns
from kptrace.lab import cluster, host_commands, state
from kptrace.lab.address_plan import plan
from kptrace.model import Netns
from kptrace.model.errors import ObservationError

pytestmark = pytest.mark.kernel

NAME = f"cdns-{os.getpid()}"


@pytest.mark.skipif(not shutil.which("coredns"), reason="no coredns on PATH")
def test_coredns_answers_from_the_services() -> None:
    lab = cluster.up(plan(NAME))
    try:
        runs = host_commands.run(("ss", "-Hlnup"), "", f"kpt-{NAME}-kube-system.coredns-2")
        assert "coredns" in runs
        client = lab.netns_handle(Netns(node="node-a", pod="shop/client")).ns_path
        query = dns.message.make_query("web.shop.svc.cluster.local", "A")
        reply = run_in_netns(client, lambda: dns.query.udp(query, "10.96.0.10", timeout=3))
        assert reply.answer[0][0].to_text() == "10.96.1.1"
    finally:
        cluster.down(NAME)
    assert not _processes(b"/run/kptrace/lab/" + NAME.encode())


def test_a_coredns_that_does_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "coredns"
    program.write_text("#!/bin/sh\necho 'Corefile:1 - Error: out of coffee' >&2\nexit 1\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    with pytest.raises(ObservationError, match="out of coffee"):
        cluster.up(plan(NAME))
    assert NAME not in state.names()


def test_a_coredns_that_runs_ends_with_its_lab(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "coredns"
    program.write_text("#!/bin/sh\necho .:53\necho CoreDNS-1.2.3\nexec sleep 1000\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    lab = cluster.up(plan(NAME))
    try:
        assert len(cluster._running_in(lab.plan)) == 2
    finally:
        cluster.down(NAME)
    assert cluster._running_in(lab.plan) == []


def _processes(word: bytes) -> list[str]:
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if word in path.read_bytes():
                found.append(str(path))
        except OSError:
            continue
    return found
