"""A socket load balancer as Cilium's: every kind of Service, its faults, and what it leaves behind.

What must come out is derived by hand from the lab's table of Services and from what Cilium's
program does at connect(). What does come out is compared with parties that the tracer cannot
influence: the backend, which says who it is; a client of our own, which never heard of kptrace; and
the taps, on none of which the Service's address may show.
"""

from __future__ import annotations

import ctypes
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from ipaddress import IPv4Address
from pathlib import Path
from struct import pack, unpack
from typing import Any, NamedTuple, TypeVar

import pytest

from kptrace.agent import bpf_syscall
from kptrace.agent.cgroup import within_cgroup
from kptrace.agent.netns import interfaces, run_in_netns
from kptrace.bpf.drop_program import Code
from kptrace.environment.lab import LabEnvironment
from kptrace.environment.local_node import LiveState
from kptrace.explain.explain import explain_from_state
from kptrace.lab import cluster, state
from kptrace.lab.address_plan import plan
from kptrace.lab.faults import inject
from kptrace.lab.state import Lab
from kptrace.model import Hop, Netns, Outcome, Trace
from kptrace.model.errors import UsageError
from kptrace.model.targets import parse_target

pytestmark = pytest.mark.kernel

T = TypeVar("T")
WEB = ("shop/web-1", "shop/web-2", "shop/web-3")
ECHO = ("shop/echo-1", "shop/echo-2")
DNS = ("kube-system/coredns-1", "kube-system/coredns-2")
CLIENT = Netns(node="node-a", pod="shop/client")


class Way(NamedTuple):
    """pods: those that may answer; ``mute``: the server does not say its name."""

    target: str
    pods: tuple[str, ...]
    asked: tuple[tuple[str, Any], ...] = ()
    namespace: str = "shop"
    direct: bool = False
    mute: bool = False

    @property
    def name(self) -> str:
        return "-".join((self.target.replace("/", ":"), *(str(value) for _, value in self.asked)))


def through(service: str, node: str, pods: tuple[str, ...]) -> Way:
    return Way(f"svc/{service}", pods, (("via", "nodePort"), ("node", node)))


DUAL6 = Way("svc/dual", WEB, (("family", 6),))
EVERY_KIND = (
    Way("svc/web", WEB),
    Way("svc/web:metrics", WEB),
    Way("svc/remote", ("shop/remote-1",)),
    Way("svc/near", ("shop/near-1",)),
    Way("svc/self", ("shop/client",)),
    Way("svc/echo", ECHO),
    Way("svc/headless", WEB, direct=True),
    Way("svc/sticky", WEB),
    Way("svc/local", WEB[:1]),
    Way("svc/web6", WEB),
    Way("svc/dual", WEB),
    DUAL6,
    Way("svc/kube-dns:53/udp", DNS, namespace="kube-system", mute=True),
    Way("svc/kube-dns:53/tcp", DNS, namespace="kube-system", mute=True),
    through("nodeport", "node-a", WEB),
    through("nodeport", "node-b", WEB),
    # from inside the cluster the external policy Local does not count: the other scope does
    through("nodeport-local", "node-a", WEB),
    through("nodeport-local", "node-b", WEB),
    Way("10.96.1.1:80", WEB),
    Way("pod/remote-1:8080", ("shop/remote-1",), direct=True),
)
WAYS = [
    pytest.param(source, way, id=f"{source.partition('/')[2]}>{way.name}")
    for source, ways in (
        ("pod/client", EVERY_KIND),
        ("pod/client-b", (Way("svc/near", ("shop/near-1",)), Way("svc/local", WEB[1:]), DUAL6)),
        ("node/node-a", (Way("svc/remote", ("shop/remote-1",)), Way("svc/echo", ECHO), DUAL6)),
    )
    for way in ways
]


@pytest.mark.parametrize(("source", "way"), WAYS)
def test_delivered(each_cilium_bench: Any, source: str, way: Way) -> None:
    plan = each_cilium_bench.lab.plan
    made: Trace = each_cilium_bench.trace(way.target, source, way.namespace, **dict(way.asked))

    assert (made.outcome, made.findings) == (Outcome.DELIVERED, ())
    agreement = made.evidence.prediction_match
    assert agreement is not None
    assert (agreement.seen, agreement.diverged_at) == (agreement.predicted, "")
    (last,) = of(made, "delivered")
    pod = plan.pod(last.netns)
    assert pod.key in way.pods
    assert last.packet.flow.dst in pod.addresses
    (returned,) = made.evidence.probe_results
    if not way.mute:
        assert pod.name.encode() in returned.data
    the_address_is_on_no_wire(made, returned.flow.dst, way.direct)
    the_choice_is_named(made, last, way.direct)
    start = made.hops[0].node
    carried = plan.network == "cilium-vxlan" and pod.node != start
    assert [hop.interface for hop in of(made, "encap")] == ["cilium_vxlan"] * carried
    called = "Cilium (VXLAN)" if plan.network == "cilium-vxlan" else "Cilium (native routing)"
    assert {(one.name, one.proxy) for one in made.networks} == {(called, "cilium")}


def of(made: Trace, action: str) -> list[Hop]:
    return [hop for hop in made.hops if hop.action == action]


def the_address_is_on_no_wire(made: Trace, address: str, direct: bool) -> None:
    crossed = [hop for hop in made.hops if hop.action not in ("sent", "dnat", "route")]
    assert crossed
    flows = [hop.packet.innermost.flow for hop in crossed]
    assert direct or all(address not in (flow.src, flow.dst) for flow in flows)


def the_choice_is_named(made: Trace, last: Hop, direct: bool) -> None:
    dnats = of(made, "dnat")
    assert len(dnats) == (not direct)
    for hop in dnats:
        assert hop.rule is not None
        assert hop.rule.backend == "bpf"
        assert hop.rule.table == "cilium_lb4_services_v2"
        assert hop.rule.text.endswith(
            f"-> [{last.packet.flow.dst}]:{last.packet.flow.dport}"
            if ":" in last.packet.flow.dst
            else f"-> {last.packet.flow.dst}:{last.packet.flow.dport}"
        )


def test_every_backend_is_chosen_by_and_by(each_cilium_bench: Any) -> None:
    made = each_cilium_bench.trace("svc/web", "pod/client", count=40)
    shares = {share.pod: share for share in made.evidence.shares}
    assert set(shares) == set(WEB)
    for share in shares.values():
        assert share.weight == pytest.approx(1 / 3, abs=1e-6)
        assert share.seen == share.delivered > 0  # 40 times: none is left out in 1 of 10 million


@pytest.mark.parametrize(("address", "family"), [("10.96.1.7", socket.AF_INET)])
def test_a_client_keeps_its_backend(
    each_cilium_bench: Any, address: str, family: socket.AddressFamily
) -> None:
    """A client of our own, then eight probes: all of the pod's connections go to one backend."""

    def who() -> str:
        with socket.socket(family) as line:
            line.settimeout(3)
            line.connect((address, 80))
            return line.makefile("rb").read().decode().rpartition("\n\r\n")[2].strip()

    answers = {as_client(each_cilium_bench.lab, who) for _ in range(12)}
    assert len(answers) == 1
    made = each_cilium_bench.trace("svc/sticky", "pod/client", count=8)
    assert made.outcome is Outcome.DELIVERED
    assert [(share.pod, share.seen) for share in made.evidence.shares if share.seen] == [
        (f"shop/{answers.pop()}", 8)
    ]


def test_clients_are_kept_apart_and_others_are_not_kept(each_cilium_bench: Any) -> None:
    """Of pods and Services: a namespace is a client, and svc/web keeps none."""
    lab = each_cilium_bench.lab
    made = each_cilium_bench.trace("svc/web", "pod/client", count=40)
    assert all(share.seen for share in made.evidence.shares)
    pin = Path(lab.netns_handle(CLIENT).bpffs) / "tc/globals/cilium_lb4_affinity"
    fd = bpf_syscall.pinned(pin)
    try:
        kept = [*bpf_syscall.entries(fd, bpf_syscall.shape(fd))]
    finally:
        os.close(fd)
    # a namespace's cookie, the Service's number in network order, and that it is a cookie
    assert len({key[:8] for key, _ in kept}) == len(kept)
    assert all(key[10] == 1 for key, _ in kept)


def test_an_external_address_is_left_to_programs_on_devices(each_cilium_bench: Any) -> None:
    """There are none in the lab, so nobody translates it; the report says whose matter it is."""
    made = each_cilium_bench.trace("svc/external", "pod/client", via="externalIP")
    assert made.outcome is Outcome.NOT_PROGRAMMED
    told = " ".join(line for finding in made.findings for line in finding.evidence)
    assert "Cilium translates external IPs on devices" in told


def test_without_backends_connect_itself_is_refused(each_cilium_bench: Any) -> None:
    made = each_cilium_bench.trace("svc/empty", "pod/client")
    assert made.outcome is Outcome.NO_ENDPOINTS
    (finding,) = made.findings
    assert finding.cause == "no-endpoints"
    assert "EHOSTUNREACH" in finding.evidence[0]
    assert made.evidence.probe_results[0].result == "unreachable"


def test_what_is_explained_is_what_the_maps_hold(each_cilium_bench: Any) -> None:
    with LabEnvironment(each_cilium_bench.lab) as ground:
        live = LiveState(ground, ("node-a", "node-b"))
        told = explain_from_state(parse_target("svc/nodeport-local", "shop"), None, "node-a", live)
    assert (told.proxy, told.findings) == ("cilium", ())
    (port,) = told.ports
    entries = {(entry.kind, entry.sender): entry for entry in port.entries}
    for kind in ("clusterIP", "nodePort"):
        for sender in ("pod", "node"):
            entry = entries[kind, sender]
            assert entry.outcome is Outcome.DELIVERED
            assert {backend.pod for backend in entry.backends} == set(WEB)
            assert {rule.table for rule in entry.rules} >= {"cilium_lb4_services_v2"}
        assert entries[kind, "outside"].outcome is Outcome.INCONCLUSIVE


# --- faults ---------------------------------------------------------------------------------------

FAULTS = {
    "proxy-rules-missing": (Outcome.NOT_PROGRAMMED, "node-a", "it still went to 10.96.1.2:80"),
    "stale-dnat": (Outcome.DROPPED, "node-a", "slot 1 -> 10.244.2.99:8080"),
    "no-endpoints": (Outcome.NO_ENDPOINTS, "node-a", "connect() failed with EHOSTUNREACH"),
    "forward-policy-drop": (Outcome.DROPPED, "node-a", "filter FORWARD policy, verdict drop"),
    "tunnel-port-blocked": (Outcome.DROPPED, "node-b", "filter INPUT 1"),
    "ip-forward-off": (Outcome.DROPPED, "node-a", "net.ipv4.ip_forward = 0"),
    "fdb-stale": (Outcome.DROPPED, "node-a", "to 172.30.0.99"),
    "fdb-missing": (Outcome.DROPPED, "node-a", "has no entry for 02:00:00:00:00:02"),
    "pod-route-missing": (Outcome.DROPPED, "node-a", "the routes of node-a have none to"),
    "no-listener": (Outcome.REFUSED, "node-b", "RST"),
    "rp-filter": (Outcome.DROPPED, "node-b", "the route of node-b back to 10.244.1.10"),
}


def test_what_the_network_cannot_have_is_refused(each_cilium_bench: Any) -> None:
    with pytest.raises(UsageError, match=each_cilium_bench.lab.plan.network):
        inject.inject(each_cilium_bench.lab.name, inject.find("bridge-nf-off"))


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_is_named(each_cilium_bench: Any, name: str) -> None:
    lab, fault = each_cilium_bench.lab, inject.find(name)
    outcome, node, proof = FAULTS[name]
    inject.inject(lab.name, fault)
    try:
        made = each_cilium_bench.trace(fault.target, "pod/client")
    finally:
        inject.heal(lab.name, name)
    main = next(finding for finding in made.findings if finding.severity == "error")
    assert (made.outcome, main.cause, main.node) == (outcome, name, node)
    assert proof in " ".join(main.evidence)
    healed = each_cilium_bench.trace(fault.target, "pod/client")
    assert healed.outcome is Outcome.DELIVERED


# --- the load balancer itself, seen by a client of our own ----------------------------------------


def as_client(lab: Lab, work: Callable[[], T]) -> T:
    door = lab.netns_handle(CLIENT)
    with within_cgroup(door.cgroup):
        return run_in_netns(door.ns_path, work)


def test_a_plain_client_believes_that_it_talks_to_the_service(each_cilium_bench: Any) -> None:
    def talk() -> tuple[str, tuple[str, int]]:
        with socket.create_connection(("10.96.1.2", 80), timeout=3) as line:
            return line.makefile("rb").read().decode(), line.getpeername()

    answer, peer = as_client(each_cilium_bench.lab, talk)
    assert answer.endswith("remote-1\n")
    assert peer == ("10.96.1.2", 80)


def test_datagrams_of_an_unconnected_socket_come_back_from_the_service(
    each_cilium_bench: Any,
) -> None:
    def talk() -> set[tuple[bytes, tuple[str, int]]]:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as line:
            line.settimeout(3)
            heard = set()
            for _ in range(20):
                line.sendto(b"x", ("10.96.1.5", 7))
                heard.add(line.recvfrom(100))
            return heard

    heard = as_client(each_cilium_bench.lab, talk)
    assert heard == {(f"{name}\nx".encode(), ("10.96.1.5", 7)) for name in ("echo-1", "echo-2")}


SIX, BACKEND_ID = "fd00:10:96::1234", 60_001  # no Service of the lab has either


@contextmanager
def served(lab: Lab, port: int, protocol: int, pod: str, to: int) -> Iterator[None]:
    """An IPv6 Service more on node-a, put into the maps by hand, with this pod for its backend."""
    pins = Path(lab.netns_handle(CLIENT).bpffs) / "tc/globals"
    address, number = socket.inet_pton(socket.AF_INET6, SIX), pack("!H", BACKEND_ID)
    key = address + pack("!H", port)
    service = {
        key + pack("=HBBxx", 0, protocol, 0): pack("=IH", 0, 1) + number + bytes(4),
        key + pack("=HBBxx", 1, protocol, 0): pack("=IH", BACKEND_ID, 0) + number + bytes(4),
    }
    end = socket.inet_pton(socket.AF_INET6, lab.plan.pod(pod).addresses[1])
    backend = {pack("=I", BACKEND_ID): end + pack("!H", to) + pack("=BBHBx", protocol, 0, 0, 0)}
    held = {"cilium_lb6_services_v2": service, "cilium_lb6_backends_v3": backend}
    maps = {name: bpf_syscall.pinned(pins / name, to_write=True) for name in held}
    try:
        for name, entries in held.items():
            for each, value in entries.items():
                bpf_syscall.write(maps[name], each, value)
        yield
        for name, entries in held.items():
            for each in entries:
                bpf_syscall.delete(maps[name], each)
    finally:
        for fd in maps.values():
            os.close(fd)


def test_ipv6_datagrams_of_an_unconnected_socket_come_back_from_the_service(
    each_cilium_bench: Any,
) -> None:
    def talk() -> tuple[bytes, tuple[Any, ...]]:
        with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as line:
            line.settimeout(3)
            line.sendto(b"x", (SIX, 7))
            return line.recvfrom(100)

    lab = each_cilium_bench.lab
    with served(lab, 7, socket.IPPROTO_UDP, "shop/echo-2", 7007):
        answer, peer = as_client(lab, talk)
    assert answer == b"echo-2\nx"
    assert peer[:2] == (SIX, 7)


def test_an_ipv6_connection_has_the_service_for_its_peer(each_cilium_bench: Any) -> None:
    def talk() -> tuple[str, tuple[Any, ...]]:
        with socket.create_connection((SIX, 80), timeout=3) as line:
            return line.makefile("rb").read().decode(), line.getpeername()

    lab = each_cilium_bench.lab
    with served(lab, 80, socket.IPPROTO_TCP, "shop/remote-1", 8080):
        answer, peer = as_client(lab, talk)
    assert answer.endswith("remote-1\n")
    assert peer[:2] == (SIX, 80)


def test_an_ipv6_socket_may_mean_an_ipv4_service(each_cilium_bench: Any) -> None:
    """As Java opens them."""

    def talk() -> tuple[str, str, set[tuple[bytes, str]]]:
        with socket.socket(socket.AF_INET6) as line:
            line.settimeout(3)
            line.connect(("::ffff:10.96.1.2", 80))
            answer, peer = line.makefile("rb").read().decode(), line.getpeername()[0]
        with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as line:
            line.settimeout(3)
            heard = set()
            for _ in range(20):
                line.sendto(b"x", ("::ffff:10.96.1.5", 7))
                data, where = line.recvfrom(100)
                heard.add((data, where[0]))
        return answer, peer, heard

    answer, peer, heard = as_client(each_cilium_bench.lab, talk)
    assert answer.endswith("remote-1\n")
    assert peer == "::ffff:10.96.1.2"
    assert heard == {(f"{n}\nx".encode(), "::ffff:10.96.1.5") for n in ("echo-1", "echo-2")}


def test_who_is_outside_the_cgroup_is_not_translated(each_cilium_bench: Any) -> None:
    door = each_cilium_bench.lab.netns_handle(CLIENT)

    def talk() -> int:
        with socket.socket() as line:
            line.settimeout(0.3)
            return line.connect_ex(("10.96.1.2", 80))

    assert run_in_netns(door.ns_path, talk) != 0


# --- programs on devices --------------------------------------------------------------------------

SCHED_CLS, TCX_INGRESS = 3, 46  # enum bpf_prog_type, bpf_attach_type
REDIRECT_PEER, SHOT = 155, 2


@contextmanager
def on_the_way_in(lab: Lab, pod: str, *, drop: bool = False) -> Iterator[None]:
    """node-b hands what is for the pod past its lxc device, as Cilium with BPF host routing does;
    or throws it away.
    """
    to = lab.plan.pod(pod)
    netns = lab.netns_handle(Netns(node=to.node)).ns_path
    index = {name: number for number, name in interfaces(netns).items()}
    device = "cilium_vxlan" if lab.plan.network == "cilium-vxlan" else "eth0"
    code = Code()
    code.put(0xBF, 6, 1)
    code.put(0x20, value=30)  # r0 = the IPv4 destination, behind 14 bytes of Ethernet
    code.jump(0x56, 0, int(IPv4Address(to.addresses[0])), "another's")  # 32 bits wide
    if drop:
        code.put(0xB7, 0, value=SHOT)
    else:
        code.put(0xB7, 1, value=index[to.interface])
        code.put(0xB7, 2)
        code.call(REDIRECT_PEER)
    code.put(0x95)
    code.here("another's")
    code.put(0xB7, 0)
    code.put(0x95)
    program = bpf_syscall.load(SCHED_CLS, code.finish(), TCX_INGRESS)
    target = pack("=IIII", index[device], program, TCX_INGRESS, 0)
    run_in_netns(netns, lambda: bpf_syscall.call(8, target))  # BPF_PROG_ATTACH
    try:
        yield
    finally:
        run_in_netns(netns, lambda: bpf_syscall.call(9, target))
        os.close(program)


def test_what_is_handed_past_a_device_is_no_drop(each_cilium_bench: Any) -> None:
    lab = each_cilium_bench.lab
    device = lab.plan.pod("shop/remote-1").interface
    with on_the_way_in(lab, "shop/remote-1"):
        made = each_cilium_bench.trace("svc/remote", "pod/client")
    assert (made.outcome, made.findings) == (Outcome.DELIVERED, ())
    assert [hop for hop in made.hops if hop.interface == device and hop.action == "seen"] == []
    (last,) = of(made, "delivered")
    assert last.description.endswith(f"handed past {device} by Cilium's program")
    assert made.evidence.prediction_match is not None
    assert made.evidence.prediction_match.diverged_at == ""


def test_nor_is_it_to_blame_where_the_packet_died_elsewhere(each_cilium_bench: Any) -> None:
    lab = each_cilium_bench.lab
    inject.inject(lab.name, inject.find("no-listener"))
    try:
        with on_the_way_in(lab, "shop/remote-1"):
            made = each_cilium_bench.trace("svc/remote", "pod/client")
    finally:
        inject.heal(lab.name, "no-listener")
    assert made.outcome is Outcome.REFUSED
    assert made.findings[0].cause == "no-listener"
    assert lab.plan.pod("shop/remote-1").interface not in str(made.findings)


def test_a_program_that_drops_is_named_by_the_kernel(each_cilium_bench: Any) -> None:
    lab = each_cilium_bench.lab
    with on_the_way_in(lab, "shop/remote-1", drop=True):
        made = each_cilium_bench.trace("svc/remote", "pod/client")
    assert made.outcome is Outcome.DROPPED
    assert (made.findings[0].cause, made.findings[0].node) == ("kernel-drop", "node-b")
    assert made.findings[0].object.startswith("TC_INGRESS")


# --- what it leaves behind ------------------------------------------------------------------------

NAME = f"cil-{os.getpid()}"
UP = """
import os, signal
from kptrace.lab import cluster, load_rules, socket_lb
from kptrace.lab.address_plan import plan
room, step = {stage}
true = getattr(room, step)
def last(*given, **named):
    {before}
    os.kill(os.getpid(), signal.SIGKILL)
setattr(room, step, last)
cluster.up(plan({name!r}, 2, "cilium", "cilium-vxlan"))
"""
STAGES = (
    ("socket_lb, 'prepare'", "pass"),
    ("socket_lb, 'prepare'", "true(*given, **named)"),
    ("socket_lb.bpf_syscall, 'pin'", "true(*given, **named)"),
    ("socket_lb.bpf_syscall, 'attach'", "true(*given, **named)"),
    ("cluster, '_tell_to_stay'", "true(*given, **named)"),
)


@pytest.fixture
def name() -> Iterator[str]:
    yield NAME
    if NAME in state.names():
        cluster.down(NAME)


def leftovers() -> list[str]:
    mounts = Path("/proc/self/mountinfo").read_text().splitlines()
    found = [line for line in mounts if NAME in line]
    made = plan(NAME, 2, "cilium", "cilium-vxlan")
    cgroups = (state.cgroup(made, node.name) for node in made.nodes)
    found += [str(path) for path in cgroups if path.exists()]
    found += [str(path) for path in Path("/run/netns").glob(f"kpt-{NAME}*")]
    return found + [str(path) for path in state.ROOT.glob(f"{NAME}*")]


def test_down_leaves_nothing(name: str) -> None:
    cluster.up(plan(name, 2, "cilium", "cilium-vxlan"))
    assert leftovers()
    cluster.down(name)
    assert leftovers() == []


@pytest.mark.parametrize(("stage", "before"), STAGES, ids=[f"{s}{b[0]}" for s, b in STAGES])
def test_a_killed_up_is_removed_by_down(name: str, stage: str, before: str) -> None:
    script = UP.format(stage=stage, before=before, name=name)
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr.decode()
    cluster.down(name)
    assert leftovers() == []


def test_a_shell_that_was_put_into_the_cgroup_is_put_back(name: str) -> None:
    lab = cluster.up(plan(name, 2, "cilium", "cilium-direct"))
    with within_cgroup(lab.netns_handle(CLIENT).cgroup):
        sleeper = subprocess.Popen(["sleep", "60"])
    try:
        cluster.down(name)
        assert leftovers() == []
        assert sleeper.poll() is None
    finally:
        sleeper.kill()
        sleeper.wait()


def test_programs_go_with_the_lab(name: str) -> None:
    """Nothing pins them: they hang on the cgroup alone, and each holds the maps that it reads."""
    lab = cluster.up(plan(name, 2, "cilium", "cilium-direct"))
    pin = Path(lab.netns_handle(CLIENT).bpffs) / "tc/globals/cilium_lb4_services_v2"
    id = map_id(pin)
    assert exists(id)
    cluster.down(name)
    for _ in range(100):  # the kernel frees them after a grace period
        if not exists(id):
            return
        time.sleep(0.1)
    pytest.fail("something still holds the map of services")


INFO, MAP_BY_ID = 15, 14  # enum bpf_cmd


def map_id(pin: Path) -> int:
    fd, info = bpf_syscall.pinned(pin), ctypes.create_string_buffer(8)
    bpf_syscall.call(INFO, pack("=IIQ", fd, len(info), ctypes.addressof(info)))
    os.close(fd)
    return int(unpack("=II", info.raw)[1])


def exists(id: int) -> bool:
    try:
        os.close(bpf_syscall.call(MAP_BY_ID, pack("=III", id, 0, 0)))
    except FileNotFoundError:
        return False
    return True
