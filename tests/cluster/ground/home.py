"""Where all that belongs to clusters lies: binaries and images for all, a folder for each cluster.

Below ``$XDG_CACHE_HOME/kptrace`` (``~/.cache/kptrace``). What a running node writes lies in its own
mount namespace instead, in memory, and goes with it.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from cluster.ground.plan import NUMBERS, Backend, NotPossible, Plan, Proxy, check_name
from cluster.ground.shell import run

DEFAULT = "dev"


def cache() -> Path:
    below = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(below) / "kptrace"


def images() -> Path:
    return _made(cache() / "images")


def clusters() -> Path:
    return _made(cache() / "clusters")


@dataclass(frozen=True)
class State:
    """What a running cluster is now, for the commands that come after the one that started it."""

    number: int
    proxy: Proxy
    backend: Backend
    binaries: str


@dataclass(frozen=True)
class Home:
    """The folder of one cluster."""

    name: str

    @property
    def path(self) -> Path:
        return clusters() / check_name(self.name)

    @property
    def pki(self) -> Path:
        return self.path / "pki"

    @property
    def kubeconfig(self) -> Path:
        return self.path / "kubeconfig"

    def log(self, role: str) -> Path:
        return self.path / "log" / role

    def state(self) -> State | None:
        """None where no such cluster was begun, or where its folder was left without it."""
        try:
            return State(**json.loads((self.path / "state.json").read_text()))
        except (FileNotFoundError, ValueError, TypeError):
            return None

    def write(self, state: State) -> None:
        self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
        new = self.path / "state.json.new"
        new.write_text(json.dumps(asdict(state)))
        new.replace(self.path / "state.json")

    def begin(self, proxy: Proxy, backend: Backend, binaries: Path) -> Plan:
        """The cluster's plan, with a number that no other cluster or interface has."""
        with alone():
            if self.path.exists():
                raise NotPossible(f"a cluster {self.name} is there already: take it down first")
            taken = {state.number for state in _states()} | _numbers_in_use()
            free = [number for number in NUMBERS if number not in taken]
            if not free:
                raise NotPossible("no free network 198.18.N.0/24: take a cluster down")
            self.write(State(free[0], proxy, backend, str(binaries)))
        return Plan(self.name, free[0])


def known() -> list[str]:
    return sorted(path.name for path in clusters().iterdir() if path.is_dir())


def in_use() -> set[Path]:
    """The folders of the binaries that clusters were begun with."""
    return {Path(state.binaries).parent for state in _states()}


def _states() -> Iterator[State]:
    for name in known():
        state = Home(name).state()
        if state:
            yield state


def _numbers_in_use() -> set[int]:
    found = set()
    for link in json.loads(run("ip", "-j", "-4", "address", "show")):
        for address in link.get("addr_info", ()):
            first, second, third, _ = address["local"].split(".")
            if (first, second) == ("198", "18"):
                found.add(int(third))
    return found


@contextmanager
def alone() -> Iterator[None]:
    """No other process changes what clusters share."""
    with (clusters() / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _made(path: Path) -> Path:
    path.mkdir(parents=True, exist_ok=True)
    return path
