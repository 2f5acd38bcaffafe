"""A lab's life: ``up`` makes it, ``down`` removes it, and neither needs the other to have finished.

``up`` writes the state first; then namespaces, servers (their process starts while the network is
being made), links, rules; last the state again, as ready. Programs are started once a namespace,
each with all it has to do on its stdin. If anything fails or Ctrl-C comes, what there is is removed
again. ``down`` removes what the plan in the state file can have made, whether it exists or not.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

import msgspec

from kptrace.agent import netns, python_child
from kptrace.lab import (
    host_commands,
    kernel_features,
    load_rules,
    manifests,
    netlink,
    socket_lb,
    state,
    topology,
)
from kptrace.lab.address_plan import DNS_ADDRESS, Plan
from kptrace.lab.state import Lab, LabStateFile, Process
from kptrace.model.errors import KptraceError, ObservationError

T = TypeVar("T")


def up(plan: Plan) -> Lab:
    host_commands.require(plan)
    with state.locked():
        _require_absent(plan)
        lab = Lab(
            plan=plan,
            state=LabStateFile(
                nodes=len(plan.nodes),
                proxy=plan.proxy,
                network=plan.network,
                scheduler=plan.scheduler,
            ),
        )
        try:
            return _make(lab)
        except (KptraceError, OSError) as error:
            _remove(lab)
            raise kernel_features.explain(plan, error) from error
        except BaseException:
            _remove(lab)
            raise


def down(name: str) -> None:
    host_commands.require_root()
    with state.locked():
        _remove(state.load(name, half_made=True))


def _require_absent(plan: Plan) -> None:
    if plan.name in state.names():
        option = "" if plan.name == "default" else f" --name {plan.name}"
        raise ObservationError(
            f"there is already a lab named {plan.name!r}",
            f"remove it (kptrace lab down{option}) or choose another: kptrace lab up --name OTHER",
        )
    taken = [name for name in plan.namespaces if (state.NETNS / name).exists()]
    if taken:
        raise ObservationError(
            f"network namespace {taken[0]} exists and belongs to no lab",
            f"remove it (ip netns del {taken[0]}) or choose another --name",
        )


# --- up ---------------------------------------------------------------------------------------


def _make(lab: Lab) -> Lab:
    plan = lab.plan
    state.save(lab)
    _write_documents(lab)
    for name in plan.namespaces:
        netns.create(name)
    servers = _start_servers(lab)
    try:
        lab = _save(lab, msgspec.structs.replace(lab.state, servers=Process.of(servers.pid)))
        steps = topology.setups(plan)
        # a device takes its namespace's defaults when it is made, which may be from another one
        for setup in (setup for step in steps for setup in step):
            host_commands.write_sysctls(setup.sysctls, setup.netns)
        for step in steps:
            _all_at_once(_carry_out, step)
        if plan.cilium:
            socket_lb.prepare(plan)
        view = load_rules.healthy(plan)
        _all_at_once(lambda node: load_rules.install(plan, node, view), plan.nodes)
        _expect_ready(lab, servers)
        lab = _save(lab, msgspec.structs.replace(lab.state, ready=True))
        _tell_to_stay(servers)
    except BaseException:
        servers.kill()
        servers.wait()
        raise
    return lab


def _save(lab: Lab, changed: LabStateFile) -> Lab:
    """The lab in its new state, once that is written down."""
    lab = lab.with_state(changed)
    state.save(lab)
    return lab


def _write_documents(lab: Lab) -> None:
    lab.api.mkdir(parents=True, exist_ok=True)
    for name, text in manifests.documents(lab.plan).items():
        (lab.api / name).write_text(text)
    for pod in lab.plan.pods:
        directory = state.ETC / pod.netns
        directory.mkdir(parents=True, exist_ok=True)
        (directory / "resolv.conf").write_text(topology.resolv_conf(pod, DNS_ADDRESS))


def _carry_out(setup: topology.NetnsSetup) -> None:
    netlink.make(setup.objects, setup.netns)
    host_commands.write_sysctls(setup.device_sysctls, setup.netns)


def _all_at_once(work: Callable[[T], None], things: Iterable[T]) -> None:
    with ThreadPoolExecutor(max_workers=os.cpu_count()) as pool:
        for _ in pool.map(work, things):
            pass


def _start_servers(lab: Lab) -> subprocess.Popen[str]:
    """In a session of its own, so that a Ctrl-C in the terminal later does not reach it."""
    with open(lab.directory / "servers.log", "wb") as log:
        return subprocess.Popen(
            python_child.command("kptrace.lab.servers", lab.name),
            env=python_child.environ(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            start_new_session=True,
        )


def _expect_ready(lab: Lab, servers: subprocess.Popen[str]) -> None:
    assert servers.stdout is not None
    if servers.stdout.readline() != "ready\n":
        said = (lab.directory / "servers.log").read_text(errors="replace").strip()
        last = said.splitlines()[-1] if said else "they said nothing"
        raise ObservationError(f"the lab's servers did not start: {last}")


def _tell_to_stay(servers: subprocess.Popen[str]) -> None:
    assert servers.stdin is not None
    assert servers.stdout is not None
    servers.stdin.write("stay\n")
    servers.stdin.close()
    servers.stdout.close()


# --- down -------------------------------------------------------------------------------------


def _remove(lab: Lab) -> None:
    """Also what runs in a pod or node ends, as it does when a pod is deleted."""
    if lab.state.servers:
        lab.state.servers.end()
    for process in _running_in(lab.plan):
        process.end()
    for name in lab.plan.namespaces:
        netns.delete(name)
        shutil.rmtree(state.ETC / name, ignore_errors=True)
    _remove_if_empty(state.ETC)
    if lab.plan.cilium:
        socket_lb.remove(lab.plan)
    shutil.rmtree(lab.directory)


def _running_in(plan: Plan) -> list[Process]:
    ours = {
        netns.inode(str(path))
        for path in (state.NETNS / name for name in plan.namespaces)
        if path.exists()
    }
    processes = []
    for path in Path("/proc").glob("[0-9]*"):
        try:
            if (path / "ns/net").stat().st_ino in ours:
                processes.append(Process.of(int(path.name)))
        except OSError:
            continue
    return processes


def _remove_if_empty(directory: Path) -> None:
    try:
        directory.rmdir()
    except OSError:
        return
