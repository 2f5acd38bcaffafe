"""Each way in which a run from outside can fail: a clear message, exit 3 or 4, nothing left.

Where no agent can start and the API can be read, the message is part of a report of what the API
alone tells (exit 4, or 1 where that proves a fault); where there is nothing to tell it is an error
(exit 3).
"""

from __future__ import annotations

import json
import re
import select
import signal
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import yaml
from cluster.cli import Cli, until
from cluster.ground.cluster import Cluster

from kptrace.kube.agents import manifest as agent_pod

SILENT_PORT = 7777
WEB = ("svc/remote", "-n", "shop", "--from", "pod/client")


@pytest.fixture
def silent(cluster: Cluster) -> Iterator[tuple[str, ...]]:
    """What is traced to is dropped where nobody looks, so the trace lasts as long as is wished."""
    control = cluster.control.machine
    rule = ("INPUT", "-p", "tcp", "--dport", str(SILENT_PORT), "-j", "DROP")
    control.run("iptables", "-I", *rule)
    address = cluster.plan.control.addresses[0]
    yield (f"{address}:{SILENT_PORT}", "-n", "shop", "--from", "pod/client", "--timeout", "40")
    control.run("iptables", "-D", *rule)


def probe_is_under_way(cluster: Cluster) -> None:
    """Packets of the trace are being dropped, so every agent is at work."""

    def dropped() -> int:
        listed = cluster.control.machine.run("iptables", "-L", "INPUT", "-nvx")
        return sum(
            int(line.split()[0]) for line in listed.splitlines() if f":{SILENT_PORT}" in line
        )

    until(dropped, "a probe to be under way")


# --- names --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("args", "said", "hint"),
    [
        (("svc/remot", "-n", "shop"), "no Service remot in namespace shop", "svc/remote"),
        (("svc/remote",), "no Service remote in namespace default", "add -n shop"),
        (("svc/remote", "-n", "shopp"), "no namespace shopp", "did you mean shop?"),
        (("svc/remote:htp", "-n", "shop"), "has no port htp", "http 80/tcp"),
        (("svc/remote", "-n", "shop", "--from", "pod/clien"), "no pod clien", "pod/client"),
        (("svc/remote", "-n", "shop", "--from", "node/node-c"), "no node node-c", "node-"),
        (("svc/remote", "-n", "shop", "--context", "nowhere"), "no context nowhere", "there is: "),
        (("pod/clien:80", "-n", "shop"), "no pod clien in namespace shop", "pod/client"),
    ],
)
def test_what_is_not_there(cli: Cli, args: tuple[str, ...], said: str, hint: str) -> None:
    told = cli(*args)
    assert (told.code, told.out) == (3, "")
    message, advice = told.err.splitlines()
    assert said in message
    assert hint in advice


# --- permissions --------------------------------------------------------------------------------


def test_all_that_is_not_allowed_and_a_manifest_that_allows_it(cluster: Cluster, cli: Cli) -> None:
    restricted = Cli(cluster, cluster.user("restricted"))
    told = restricted(*WEB)
    assert (told.code, told.out) == (3, "")
    missing = (
        "get services in namespace shop",
        "list endpointslices",
        "create pods/exec",
        "get nodes",
    )
    for words in missing:
        assert words in told.err
    manifest = told.err[told.err.index("  apiVersion: v1") :]
    try:
        cluster.kubectl("apply", "-f", "-", given=manifest)
        again = restricted(*WEB)
        assert again.code == 0, again.err
        acting = cli(*WEB, "--as", "restricted")
        assert acting.code == 0, acting.err
    finally:
        cluster.kubectl("delete", "-f", "-", given=manifest)


@pytest.mark.parametrize("verb", ["create pods", "create pods/exec", "get nodes", "list services"])
def test_one_right_is_missing(cluster: Cluster, cli: Cli, verb: str) -> None:
    name, resource = verb.split()
    user = Cli(cluster, cluster.user("lacking"))
    told = user(*WEB)
    granted = yaml.safe_load(told.err[told.err.index("  apiVersion: v1") :])
    for role in granted["items"]:
        rules = []
        for rule in role.get("rules", ()):
            rest = [one for one in rule["resources"] if one != resource]
            verbs = [one for one in rule["verbs"] if one != name]
            rules.append({**rule, "resources": rest})
            if resource in rule["resources"]:
                rules.append({**rule, "resources": [resource], "verbs": verbs})
        if "rules" in role:
            role["rules"] = [rule for rule in rules if rule["resources"] and rule["verbs"]]
    manifest = yaml.safe_dump(granted)
    try:
        cluster.kubectl("apply", "-f", "-", given=manifest)
        told = user(*WEB)
        if verb == "list services":  # only for the names of others
            assert told.code == 0, told.err
            return
        assert (told.code, told.err) == (4, "")
        (missing,) = {one["unavailable"] for one in user(*WEB, "-o", "json").unwatched}
        listed = missing.partition(" is not allowed to: ")[2].partition(", and no container")[0]
        assert [each.partition(" in ")[0] for each in listed.split(", ")] == [verb]
        assert verb in " ".join(told.out.split())
    finally:
        cluster.kubectl("delete", "-f", "-", given=manifest)


def test_pod_security(cluster: Cluster, cli: Cli) -> None:
    name = "kptrace-guarded"
    cluster.kubectl("create", "namespace", name)
    label = "pod-security.kubernetes.io/enforce"
    try:
        cluster.kubectl("label", "namespace", name, f"{label}=baseline")
        told = cli("svc/web", "-n", "shop", "--from", "node/node-a", "--agent-namespace", name)
        assert (told.code, told.err) == (4, "")
        said = " ".join(told.out.split())
        assert f"Pod Security of namespace {name} refuses the agent's pod" in said
        assert "host namespaces" in said
        assert "svc/web (shop) from node-a INCONCLUSIVE" in said
        (advice,) = re.findall(r"kubectl (label namespace .*? --overwrite)", said)
        inside = cli(*WEB, "--agent-namespace", name)
        assert inside.code == 0, inside.err
        words = " ".join(inside.out.split())
        assert "only pod shop/client itself was looked into: Pod Security of" in words
        assert advice in words
        assert "Not available: conntrack, the node itself on node-a" in words
        until(lambda: _guests(cluster) == {"terminated"}, "our container in client to end")
        cluster.kubectl(*advice.split())
        again = cli(*WEB, "--agent-namespace", name)
        assert again.code == 0, again.err
    finally:
        cluster.kubectl("delete", "namespace", name, "--wait=false")


def _guests(cluster: Cluster) -> set[str]:
    """The states of the containers that were added to the client's pod."""
    status = cluster.kubectl.json("get", "pod", "client", "-n", "shop")["status"]
    return {state for one in status["ephemeralContainerStatuses"] for state in one["state"]}


def test_no_such_namespace_for_agents(cli: Cli) -> None:
    told = cli(*WEB, "--agent-namespace", "kptrace-nowhere")
    assert told.code == 3
    assert "no namespace kptrace-nowhere to start agents in" in told.err


# --- pods and nodes -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("image", "said"),
    [
        ("localhost/kptrace/nothing:1", "cannot be pulled on node-a"),
        ("Not An Image", "is no name of an image"),
        ("localhost/kptrace/server:test", "has no program `sleep`"),
    ],
)
def test_an_image_that_will_not_do(cli: Cli, image: str, said: str) -> None:
    told = cli(*WEB, "--image", image)
    assert (told.code, told.err) == (4, "")
    words = " ".join(told.out.split())
    assert said in words
    assert "Next step give --image with one that the node can have" in words


def test_a_cordoned_and_tainted_node_is_looked_at_all_the_same(cluster: Cluster, cli: Cli) -> None:
    cluster.kubectl("cordon", "node-b")
    cluster.kubectl("taint", "node", "node-b", "kptrace.io/test=x:NoSchedule")
    try:
        told = cli(*WEB, "-o", "json")
        assert told.code == 0, told.err
        assert {hop["node"] for hop in told.trace["hops"]} == {"node-a", "node-b"}
    finally:
        cluster.kubectl("uncordon", "node-b")
        cluster.kubectl("taint", "node", "node-b", "kptrace.io/test-")


def test_a_pod_deleted_in_mid_trace(cluster: Cluster, cli: Cli, silent: tuple[str, ...]) -> None:
    with cli.running(*silent) as run:
        probe_is_under_way(cluster)
        (pod,) = run.agents()
        cluster.kubectl("delete", "pod", "-n", "shop", pod["metadata"]["name"], "--wait=false")
        told = run.end()
    assert told.code == 3
    assert pod["metadata"]["name"] in told.err
    assert "deleted by somebody" in told.err


def test_a_pod_evicted_in_mid_trace(cluster: Cluster, cli: Cli, silent: tuple[str, ...]) -> None:
    """By the API, as a drain does."""
    with cli.running(*silent) as run:
        probe_is_under_way(cluster)
        (pod,) = run.agents()
        name = pod["metadata"]["name"]
        eviction = {
            "apiVersion": "policy/v1",
            "kind": "Eviction",
            "metadata": {"name": name, "namespace": "shop"},
        }
        where = f"/api/v1/namespaces/shop/pods/{name}/eviction"
        cluster.kubectl("create", "--raw", where, "-f", "-", given=json.dumps(eviction))
        told = run.end()
    assert told.code == 3
    assert name in told.err


def test_a_kubelet_that_does_not_answer(cluster: Cluster, cli: Cli) -> None:
    """The node counts as ready for some time, and no pod starts."""
    cluster.nodes["node-b"].stop("kubelet")
    try:
        told = cli("svc/remote", "-n", "shop", "--from", "node/node-b")
        assert told.code in (1, 4)  # when the node is NotReady its pods are no endpoints
        words = " ".join(told.out.split())
        assert re.search("did not start on node-b in 60 s|node node-b is NotReady", words)
    finally:
        cluster.nodes["node-b"].start("kubelet")
    until(lambda: _ready(cluster, "node-b"), "node-b to be ready")


def _ready(cluster: Cluster, name: str) -> bool:
    conditions = cluster.kubectl.json("get", "node", name)["status"]["conditions"]
    return any(one["type"] == "Ready" and one["status"] == "True" for one in conditions)


def _endpoints(cluster: Cluster, service: str) -> list[str]:
    """The addresses that are ready."""
    label = f"kubernetes.io/service-name={service}"
    slices = cluster.kubectl.json("get", "endpointslices", "-n", "shop", "-l", label)["items"]
    return [
        address
        for one in slices
        for endpoint in one["endpoints"] or ()
        for address in endpoint["addresses"]
        if endpoint["conditions"]["ready"]
    ]


def test_a_node_that_is_not_ready(cluster: Cluster, cli: Cli) -> None:
    cluster.nodes["node-b"].stop("kubelet")
    try:
        until(lambda: not _ready(cluster, "node-b"), "node-b to be NotReady")
        until(lambda: not _endpoints(cluster, "remote"), "its pods to be no endpoints")
        told = cli("svc/remote", "-n", "shop", "--from", "node/node-b")
        assert (told.code, told.err) == (1, "")
        assert "NO ENDPOINTS" in told.out
        assert "node node-b is NotReady, so no agent can start there" in " ".join(told.out.split())
        # the near half can be seen all the same
        told = cli(*WEB, "-o", "json")
        absent = [one for one in told.trace["evidence"]["sources"] if one["node"] == "node-b"]
        assert absent
        assert "NotReady" in absent[0]["unavailable"]
    finally:
        cluster.nodes["node-b"].start("kubelet")
    until(lambda: _ready(cluster, "node-b"), "node-b to be ready")


# --- the way to the API server ------------------------------------------------------------------


class Way:
    """A TCP forwarder to the API server that can be cut."""

    def __init__(self, address: str, port: int) -> None:
        self._to = (address, port)
        self._server = socket.create_server(("127.0.0.1", 0))
        self._open: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def url(self) -> str:
        return f"https://127.0.0.1:{self._server.getsockname()[1]}"

    def cut(self) -> None:
        for one in self._open:
            with suppress(OSError):  # it has ended by itself
                one.shutdown(socket.SHUT_RDWR)
        self._open = []

    def close(self) -> None:
        self._server.close()

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._server.accept()
            except OSError:
                return
            far = socket.create_connection(self._to)
            self._open += [near, far]
            threading.Thread(target=self._carry, args=(near, far), daemon=True).start()

    def _carry(self, near: socket.socket, far: socket.socket) -> None:
        other = {near: far, far: near}
        try:
            while True:
                for one in select.select([near, far], [], [])[0]:
                    data = one.recv(1 << 16)
                    if not data:
                        return
                    other[one].sendall(data)
        except OSError:
            pass
        finally:
            near.close()
            far.close()


@contextmanager
def _way(cluster: Cluster) -> Iterator[Way]:
    config = yaml.safe_load(Path(cluster.home.kubeconfig).read_text())
    server = urlsplit(config["clusters"][0]["cluster"]["server"])
    made = Way(server.hostname or "", server.port or 443)
    try:
        yield made
    finally:
        made.close()


def test_the_exec_stream_is_cut(cluster: Cluster, cli: Cli, silent: tuple[str, ...]) -> None:
    with _way(cluster) as way:
        flags = ("-s", way.url, "--insecure-skip-tls-verify")
        with cli.running(*silent, *flags) as run:
            probe_is_under_way(cluster)
            way.cut()
            told = run.end()
    assert told.code == 3
    assert "the exec stream to the agent on node-a was cut" in told.err


def test_the_api_server_stops_in_mid_trace(
    cluster: Cluster, cli: Cli, silent: tuple[str, ...]
) -> None:
    with cli.running(*silent, "--request-timeout", "5s") as run:
        probe_is_under_way(cluster)
        cluster.control.machine.stop("kube-apiserver")
        try:
            told = run.end()
        finally:
            cluster.control.start("kube-apiserver")
            cluster.control.wait()
    assert told.code == 3
    assert "kptrace clean" in told.err
    assert cli("clean", "-n", "shop").code == 0


# --- we ourselves -------------------------------------------------------------------------------


def test_interrupted_while_pods_start(cli: Cli, silent: tuple[str, ...]) -> None:
    with cli.running(*silent) as run:
        until(cli.pods, "a pod to be made")
        run.signal(signal.SIGINT)
        told = run.end()
    assert told.code == 130
    assert cli.pods() == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted(
    cluster: Cluster, cli: Cli, silent: tuple[str, ...], number: signal.Signals
) -> None:
    with cli.running(*silent) as run:
        probe_is_under_way(cluster)
        run.signal(number)
        told = run.end()
    assert told.code == 130
    assert "nothing was left behind" in told.err
    assert cli.pods() == []


def test_killed_and_cleaned_up_after(cli: Cli, silent: tuple[str, ...]) -> None:
    with cli.running(*silent) as run:
        (pod,) = run.agents()
        run.signal(signal.SIGKILL)
        assert run.end().code == -signal.SIGKILL
    assert [one["metadata"]["name"] for one in cli.pods()] == [pod["metadata"]["name"]]
    assert pod["spec"]["activeDeadlineSeconds"] == 300  # it would end by itself
    told = cli("clean", "-n", "shop")
    assert told.code == 0, told.err
    assert pod["metadata"]["name"] in told.out


def test_two_at_once(cli: Cli) -> None:
    with cli.running(*WEB) as one, cli.running("svc/web", *WEB[1:]) as other:
        first, second = one.end(), other.end()
    assert (first.code, second.code) == (0, 0), (first.err, second.err)
    assert "svc/remote (shop)" in first.out
    assert "svc/web (shop)" in second.out


def test_the_next_run_removes_what_has_ended_and_no_more(cluster: Cluster, cli: Cli) -> None:
    """A killed run's pod ends by its own deadline, and stays as an object."""
    for run, deadline in (("ended", 1), ("live", 300)):
        made = agent_pod.pod(
            agent_pod.AgentPodOptions(namespace="shop", deadline=deadline), run, 1, "node-a"
        )
        cluster.kubectl("apply", "-f", "-", given=json.dumps(made))
    until(
        lambda: {"kptrace-ended-1": "Failed"}.items() <= phases(cli).items(), "the pod's deadline"
    )
    told = cli(*WEB)
    assert told.code == 0, told.err
    assert "kptrace-ended-1" not in told.out + told.err
    until(lambda: "kptrace-ended-1" not in phases(cli), "the ended pod to be gone")
    assert list(phases(cli)) == ["kptrace-live-1"]
    assert "kptrace-live-1" in cli("clean", "-n", "shop").out


def phases(cli: Cli) -> dict[str, str]:
    return {one["metadata"]["name"]: one["status"].get("phase", "") for one in cli.pods("shop")}
