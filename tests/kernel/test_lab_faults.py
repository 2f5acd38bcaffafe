"""Each fault really breaks its Service, in every proxy mode and network, and heal really heals.

``everything`` is what the kernel says of both nodes before, during and after: after a heal it must
be what it was, whatever process did it.
"""

from __future__ import annotations

import os
import socket
import subprocess
from collections.abc import Iterator

import pytest
from support.labs import BRIDGED, LABS

from kptrace.agent.netns import run_in_netns
from kptrace.lab import cluster, host_commands, state
from kptrace.lab.address_plan import plan
from kptrace.lab.faults import actions, inject
from kptrace.lab.state import NETNS, Lab
from kptrace.model.errors import NotFoundError, UsageError

pytestmark = pytest.mark.kernel

ADDRESS = {"svc/remote": "10.96.1.2", "svc/near": "10.96.1.3"}
# what the client sees, by hand from the facts about each fault
REFUSED = {"no-endpoints", "no-listener"}
SYSCTLS = (
    "net.ipv4.ip_forward",
    "net.ipv4.conf.all.accept_redirects",
    "net.ipv4.conf.eth0.forwarding",
    "net.bridge.bridge-nf-call-iptables",
    "net.bridge.bridge-nf-call-ip6tables",
)


@pytest.fixture(
    scope="module",
    params=LABS,
)
def lab(request: pytest.FixtureRequest) -> Iterator[Lab]:
    proxy, network = request.param
    name = f"flt-{os.getpid()}"
    yield cluster.up(plan(name, 2, proxy, network))
    cluster.down(name)


@pytest.fixture(scope="module")
def small_lab() -> Iterator[Lab]:
    name = f"flt1-{os.getpid()}"
    yield cluster.up(plan(name))
    cluster.down(name)


def everything(lab: Lab) -> dict[str, object]:
    found: dict[str, object] = {
        path.name: path.read_text() for path in sorted(lab.api.glob("*.json"))
    }
    for node in lab.plan.nodes:
        for family in (0, 1):
            save = host_commands.run(
                (host_commands.iptables(lab.plan.proxy, family, "save"),), "", node.netns
            )
            # chains come in the order of their making; within one the order of rules counts
            rules = [line for line in save.splitlines() if line.startswith("-A")]
            found[f"{node.name} {family}"] = sorted(rules, key=lambda line: line.split()[1])
            found[f"{node.name} {family} chains"] = sorted(
                line.partition("[")[0]
                for line in save.splitlines()
                # a table that was asked for is there from then on, and lets everything through
                if line.startswith(":") and " ACCEPT " not in line
            )
        if lab.plan.proxy == "nftables":
            for family_name in ("ip", "ip6"):
                found[f"{node.name} nft {family_name}"] = host_commands.run(
                    ("nft", "list", "table", family_name, "kube-proxy"), "", node.netns
                )
        for argv in (("ip", "route"), ("ip", "-6", "route"), ("bridge", "fdb", "show")):
            lines = host_commands.run(argv, "", node.netns).splitlines()
            found[f"{node.name} {argv}"] = sorted(
                line for line in lines if "master cni0" not in line
            )
        bridge = ("net.ipv4.conf.cni0.forwarding",) * (lab.plan.network in BRIDGED)
        wanted = (*SYSCTLS, *bridge)
        found[f"{node.name} sysctls"] = [
            host_commands.read_sysctl(one, node.netns) for one in wanted
        ]
        if lab.plan.calico:
            sets = host_commands.run(("ipset", "save"), "", node.netns).splitlines()
            found[f"{node.name} sets"] = sorted(line.partition(" initval")[0] for line in sets)
    found["listening"] = host_commands.run(
        ("ss", "-Hlnt"), "", f"kpt-{lab.name}-shop.remote-1"
    ).split()[:5]
    return found


def connect(lab: Lab, address: str, timeout: float) -> str:
    def work() -> str:
        try:
            with socket.create_connection((address, 80), timeout=timeout) as line:
                return line.makefile("rb").read().decode().rpartition("\r\n\r\n")[2].strip()
        except OSError as error:
            return type(error).__name__

    return run_in_netns(str(NETNS / f"kpt-{lab.name}-shop.client"), work)


@pytest.mark.parametrize("fault", inject.FAULTS, ids=lambda fault: fault.name)
def test_breaks_and_heals(lab: Lab, fault: inject.Fault) -> None:
    if not fault.possible(lab.plan):
        with pytest.raises(UsageError, match=r"needs a lab with --(network|proxy)"):
            inject.inject(lab.name, fault)
        return
    before = everything(lab)
    address = ADDRESS[fault.target]
    assert connect(lab, address, 3) in ("remote-1", "near-1")
    inject.inject(lab.name, fault)
    broken = everything(lab)
    assert broken != before
    seen = connect(lab, address, 0.5)
    assert seen == ("ConnectionRefusedError" if fault.name in REFUSED else "TimeoutError")
    assert [one.fault for one in state.load(lab.name).state.faults] == [fault.name]
    assert inject.heal(lab.name, fault.name) == (fault,)
    assert everything(lab) == before
    assert connect(lab, address, 3) in ("remote-1", "near-1")


def test_all_that_go_together_heal_in_any_order(small_lab: Lab) -> None:
    before = everything(small_lab)
    taken: set[str] = set()
    together = [
        fault
        for fault in inject.FAULTS
        if fault.possible(small_lab.plan)
        and fault.touches not in taken
        and not taken.add(fault.touches)  # type: ignore[func-returns-value]
    ]
    for fault in together:
        inject.inject(small_lab.name, fault)
    for fault in together:  # not the reverse order
        inject.heal(small_lab.name, fault.name)
    assert everything(small_lab) == before
    for fault in together:
        inject.inject(small_lab.name, fault)
    assert inject.heal(small_lab.name) == tuple(together)
    assert everything(small_lab) == before


def test_stale_dnat_points_to_no_pod_while_the_api_is_right(small_lab: Lab) -> None:
    inject.inject(small_lab.name, inject.find("stale-dnat"))
    try:
        node = small_lab.plan.node("node-a")
        save = host_commands.run(("iptables-nft-save", "-t", "nat"), "", node.netns)
        assert "--to-destination 10.244.2.99:8080" in save
        assert "10.244.2.21" not in save
        assert '"10.244.2.21"' in (small_lab.api / "endpointslices.json").read_text()
        assert '"10.244.2.99"' not in (small_lab.api / "pods.json").read_text()
    finally:
        inject.heal(small_lab.name)


def test_no_endpoints_is_what_kube_proxy_writes(small_lab: Lab) -> None:
    inject.inject(small_lab.name, inject.find("no-endpoints"))
    try:
        for node in small_lab.plan.nodes:
            save = host_commands.run(("iptables-nft-save",), "", node.netns)
            assert (
                '-A KUBE-SERVICES -d 10.96.1.2/32 -p tcp -m comment --comment "shop/remote:http'
                ' has no endpoints" -m tcp --dport 80 -j REJECT' in save
            )
            assert "10.244.2.21" not in save
        assert '"10.244.2.21"' not in (small_lab.api / "endpointslices.json").read_text()
    finally:
        inject.heal(small_lab.name)


def test_refusals(small_lab: Lab) -> None:
    with pytest.raises(NotFoundError, match="does not have the fault fdb-stale"):
        inject.heal(small_lab.name, "fdb-stale")
    inject.inject(small_lab.name, inject.find("fdb-stale"))
    try:
        with pytest.raises(UsageError, match="fdb-stale already changed the FDB entry"):
            inject.inject(small_lab.name, inject.find("fdb-missing"))
    finally:
        inject.heal(small_lab.name)


@pytest.mark.parametrize("kind", ["Fdb", "ForwardPolicy", "StaleProxyView", "TunnelPortBlocked"])
def test_killed_break_can_be_healed(small_lab: Lab, kind: str) -> None:
    """The state is written before the harm: killed right before it or half-way, heal works."""
    name = next(one.name for one in inject.FAULTS if type(one.damage).__name__ == kind)
    before = everything(small_lab)
    script = (
        "import os, signal\n"
        "from kptrace.lab import load_rules\n"
        "from kptrace.lab.faults import actions, inject\n"
        f"victim = {_last_step(kind)}\n"
        "kill = lambda *_, **__: os.kill(os.getpid(), signal.SIGKILL)\n"
        "setattr(victim[0], victim[1], kill)\n"
        f"inject.inject({small_lab.name!r}, inject.find({name!r}))\n"
    )
    done = subprocess.run([_python(), "-c", script], check=False, cwd=_root())
    assert done.returncode == -9
    assert [one.fault for one in state.load(small_lab.name).state.faults] == [name]
    inject.heal(small_lab.name)
    assert everything(small_lab) == before


def _last_step(kind: str) -> str:
    steps = {"StaleProxyView": "(load_rules, 'reload')"}
    return steps.get(kind, f"(actions.{kind}, 'apply')")


def _python() -> str:
    import sys

    return sys.executable


def _root() -> str:
    return os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))


def test_damage_half_done_is_undone(small_lab: Lab) -> None:
    """FORWARD has its new policy and still its jump when the break is killed."""
    before = everything(small_lab)
    node = small_lab.plan.node("node-a")
    harm = actions.ForwardPolicy(policy="DROP")
    noted = harm.before(small_lab, node)
    host_commands.run(("iptables-nft", "-P", "FORWARD", "DROP"), "", node.netns)
    harm.undo(small_lab, node, noted)
    assert everything(small_lab) == before
