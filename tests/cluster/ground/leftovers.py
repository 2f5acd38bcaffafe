"""The end of a cluster: everything that carries its name, found by looking and not by memory.

It must work for a cluster that was half started, half killed, or whose folder is damaged. So each
kind of thing has two questions here: what of it is there, and away with it.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
from contextlib import suppress
from pathlib import Path

from cluster.ground import cgroups
from cluster.ground.home import Home
from cluster.ground.machine import NETNS, in_netns, inits
from cluster.ground.plan import Plan
from cluster.ground.shell import attempt, run


def find(name: str) -> list[str]:
    """Everything on this machine that belongs to a cluster of that name, in words."""
    found = [f"process {pid} in {netns}" for netns in _netns_of(name) for pid in in_netns(netns)]
    found += [f"process {pid} in cgroup {_group(name)}" for pid in cgroups.members(_group(name))]
    found += [f"network namespace {netns}" for netns in _netns_of(name)]
    found += [f"process {pid}: {netns}" for netns in _netns(name) for pid in inits(netns)]
    found += [f"cgroup {path}" for path in cgroups.remaining(_group(name))]
    found += [f"interface {link}" for link in _links(name)]
    found += [f"mount {line}" for line in _mounts(name)]
    home = Home(name).path
    return found + ([f"folder {home}"] if home.exists() else [])


def remove(name: str) -> None:
    """The nodes' first processes end, and with each all that ran and was mounted there."""
    links = _links(name)
    for netns in _netns(name):
        for pid in inits(netns):
            _kill(pid)
    for pid in {pid for netns in _netns_of(name) for pid in in_netns(netns)}:
        _kill(pid)
    for pid in cgroups.members(_group(name)):
        _kill(pid)
    for link in links:
        attempt("ip", "link", "delete", link)
    for netns in _netns_of(name):
        attempt("ip", "netns", "delete", netns)
    cgroups.remove(_group(name))
    shutil.rmtree(Home(name).path, ignore_errors=True)


def _group(name: str) -> str:
    return f"kpc-{name}"


def _netns(name: str) -> list[str]:
    """The names that its namespaces have; they do not depend on its number."""
    return [machine.netns for machine in Plan(name, 0).machines]


def _netns_of(name: str) -> list[str]:
    return [netns for netns in _netns(name) if (NETNS / netns).exists()]


def _links(name: str) -> list[str]:
    """``kpcN``: the end of a veth pair whose other end is in this cluster's namespace."""
    numbered = {}
    for line in run("ip", "netns", "list-id").splitlines() if _netns_of(name) else ():
        words = line.split()  # nsid 3 (iproute2 netns name: kpc-dev-control)
        if len(words) > 2:
            numbered[words[1]] = words[-1].rstrip(")")
    control = Plan(name, 0).control.netns
    return [
        link["ifname"]
        for link in json.loads(run("ip", "-j", "link", "show"))
        if link["ifname"].startswith("kpc")
        and numbered.get(str(link.get("link_netnsid"))) == control
    ]


def _mounts(name: str) -> list[str]:
    where = str(Home(name).path)
    lines = Path("/proc/self/mountinfo").read_text().splitlines()
    return [line.split()[4] for line in lines if line.split()[4].startswith(where)]


def _kill(pid: int) -> None:
    if pid != os.getpid():
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
