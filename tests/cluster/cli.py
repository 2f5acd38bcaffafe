"""kptrace as a user runs it against the cluster, and what it leaves there."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from cluster.ground.cluster import Cluster

ROOT = Path(__file__).parents[2]
LABEL = "app.kubernetes.io/managed-by=kptrace"
PLUGIN = "import sys; sys.argv[0] = 'kubectl-kptrace'; from kptrace.__main__ import main; main()"
WAIT = 90.0
ENDING = 20.0


class Told(NamedTuple):
    code: int
    out: str
    err: str

    @property
    def trace(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.out)
        return found

    @property
    def unwatched(self) -> list[dict[str, Any]]:
        """Of a trace: the sources of evidence on nodes that were missing."""
        layers = self.trace["evidence"]["sources"]
        return [one for one in layers if one["unavailable"] and one["node"]]


class Cli:
    def __init__(self, cluster: Cluster, kubeconfig: Path | None = None) -> None:
        self.cluster = cluster
        self.kubectl = cluster.kubectl
        self._kubeconfig = kubeconfig or cluster.home.kubeconfig

    def __call__(self, *args: str, **environ: str) -> Told:
        done = subprocess.run(
            self.command(*args),
            capture_output=True,
            text=True,
            timeout=240,
            env=self._environ(environ),
            cwd="/",
        )
        return Told(done.returncode, done.stdout, done.stderr)

    def on_node(self, node: str, *args: str) -> Told:
        """As root on a node, in the namespaces that its own processes have."""
        environ = (f"KUBECONFIG={self._kubeconfig}", f"PYTHONPATH={ROOT}", "NO_COLOR=1")
        machine = self.cluster.nodes[node].machine
        done = machine.attempt("env", *environ, *self.command(*args), seconds=240)
        return Told(done.returncode, done.stdout, done.stderr)

    def command(self, *args: str) -> list[str]:
        return [sys.executable, "-m", "kptrace", *args]

    def as_plugin(self, folder: Path) -> Callable[..., Told]:
        """The real kubectl, which finds kptrace by the name of a program in a folder of its PATH.

        The stream of ``kubectl run -i`` would take the tests' own input.
        """
        plugin = folder / "kubectl-kptrace"
        plugin.write_text(f'#!/bin/sh\nexec {sys.executable} -c "{PLUGIN}" "$@"\n')
        plugin.chmod(0o755)

        def kubectl(*args: str) -> Told:
            done = subprocess.run(
                [str(self.kubectl.program), *args],
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=240,
                env=self._environ({"PATH": f"{folder}:{os.environ['PATH']}"}),
            )
            return Told(done.returncode, done.stdout, done.stderr)

        return kubectl

    @contextmanager
    def running(self, *args: str) -> Iterator[Running]:
        process = subprocess.Popen(
            self.command(*args),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=self._environ({}),
            cwd="/",
        )
        try:
            yield Running(self, process)
        finally:
            process.kill()
            process.communicate()

    def pods(self, namespace: str = "") -> list[dict[str, Any]]:
        """Of ours, those that are not on their way out."""
        where = ("-n", namespace) if namespace else ("-A",)
        found = self.kubectl.json("get", "pods", *where, "-l", LABEL)["items"]
        return [one for one in found if "deletionTimestamp" not in one["metadata"]]

    def left(self) -> list[str]:
        """After the seconds that a pod takes to end."""
        deadline = time.monotonic() + ENDING
        while (found := self._all()) and time.monotonic() < deadline:
            time.sleep(0.1)
        return found

    def _all(self) -> list[str]:
        names = self.kubectl("get", "pods", "-A", "-l", LABEL, "-o", "name")
        return names.split()

    def _environ(self, more: dict[str, str]) -> dict[str, str]:
        kept = {k: v for k, v in os.environ.items() if not k.lower().endswith("_proxy")}
        return {
            **kept,
            "KUBECONFIG": str(self._kubeconfig),
            "PYTHONPATH": str(ROOT),
            "NO_COLOR": "1",
            **more,
        }


class Running:
    def __init__(self, cli: Cli, process: subprocess.Popen[str]) -> None:
        self._cli, self._process = cli, process

    def agents(self, count: int = 1) -> list[dict[str, Any]]:
        """When so many of its pods run."""

        def running() -> list[dict[str, Any]]:
            assert self._process.poll() is None, self._process.communicate()
            found = [one for one in self._cli.pods() if one["status"].get("phase") == "Running"]
            return found if len(found) >= count else []

        return until(running, "agents to run")

    def signal(self, number: signal.Signals) -> None:
        self._process.send_signal(number)

    def end(self) -> Told:
        out, err = self._process.communicate(timeout=WAIT)
        return Told(self._process.returncode, out, err)


def until(fact: Callable[[], Any], what: str, seconds: float = WAIT) -> Any:
    deadline = time.monotonic() + seconds
    while True:
        found = fact()
        if found:
            return found
        if time.monotonic() > deadline:
            raise AssertionError(f"waited {seconds:g} s in vain for {what}")
        time.sleep(0.1)
