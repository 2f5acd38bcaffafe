"""A service mesh's redirect in a pod's own namespace, with a process that listens as the sidecar.

The rules are those that istio-init writes (1.24, ``istioctl install`` with defaults). The sidecar
is a process of ours in the pod that counts whom it was asked by.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from kptrace.lab import host_commands
from kptrace.model import Outcome, Trace

pytestmark = [pytest.mark.kernel, pytest.mark.row(proxy="iptables", network="vxlan")]

RULES = """*nat
:ISTIO_INBOUND - [0:0]
:ISTIO_IN_REDIRECT - [0:0]
:ISTIO_OUTPUT - [0:0]
:ISTIO_REDIRECT - [0:0]
-A PREROUTING -p tcp -j ISTIO_INBOUND
-A OUTPUT -p tcp -j ISTIO_OUTPUT
-A ISTIO_INBOUND -p tcp -m tcp --dport 15008 -j RETURN
-A ISTIO_INBOUND -p tcp -m tcp --dport 15090 -j RETURN
-A ISTIO_INBOUND -p tcp -m tcp --dport 15021 -j RETURN
-A ISTIO_INBOUND -p tcp -m tcp --dport 15020 -j RETURN
-A ISTIO_INBOUND -p tcp -j ISTIO_IN_REDIRECT
-A ISTIO_IN_REDIRECT -p tcp -j REDIRECT --to-ports 15006
-A ISTIO_OUTPUT -s 127.0.0.6/32 -o lo -j RETURN
-A ISTIO_OUTPUT ! -d 127.0.0.1/32 -o lo -p tcp -m tcp ! --dport 15008 -m owner --uid-owner 1337 \
-j ISTIO_IN_REDIRECT
-A ISTIO_OUTPUT -o lo -m owner ! --uid-owner 1337 -j RETURN
-A ISTIO_OUTPUT -m owner --uid-owner 1337 -j RETURN
-A ISTIO_OUTPUT ! -d 127.0.0.1/32 -o lo -m owner --gid-owner 1337 -j ISTIO_IN_REDIRECT
-A ISTIO_OUTPUT -o lo -m owner ! --gid-owner 1337 -j RETURN
-A ISTIO_OUTPUT -m owner --gid-owner 1337 -j RETURN
-A ISTIO_OUTPUT -d 127.0.0.1/32 -j RETURN
-A ISTIO_OUTPUT -j ISTIO_REDIRECT
-A ISTIO_REDIRECT -p tcp -j REDIRECT --to-ports 15001
COMMIT
"""
SIDECAR = """
import socket, sys
listener = socket.create_server(("0.0.0.0", int(sys.argv[1])))
print("listening", flush=True)
while True:
    line, _ = listener.accept()
    line.sendall(b"the sidecar\\n")
    line.close()
"""


@contextmanager
def meshed(bench: Any, pod: str, port: int, *, running: bool = True) -> Iterator[None]:
    """The pod has the rules and, at ``port``, the process that they lead to."""
    netns = bench.lab.plan.pod(pod).netns
    host_commands.run(("iptables-nft-restore", "--noflush"), RULES, netns)
    argv = ["ip", "netns", "exec", netns, sys.executable, "-c", SIDECAR, str(port)]
    sidecar = subprocess.Popen(argv, stdout=subprocess.PIPE) if running else None
    try:
        if sidecar is not None:
            assert sidecar.stdout is not None
            assert sidecar.stdout.readline() == b"listening\n"
        bench.renew()
        yield
    finally:
        if sidecar is not None:
            sidecar.kill()
            sidecar.wait()
        host_commands.run(("iptables-nft", "-t", "nat", "-F"), netns=netns)
        host_commands.run(("iptables-nft", "-t", "nat", "-X"), netns=netns)
        bench.renew()


def only(made: Trace, action: str) -> Any:
    (hop,) = (hop for hop in made.hops if hop.action == action)
    return hop


def test_what_a_pod_sends_goes_to_its_sidecar(vxlan_bench: Any) -> None:
    with meshed(vxlan_bench, "shop/client", 15001):
        made = vxlan_bench.trace("svc/remote", "pod/client")
    assert made.outcome is Outcome.DELIVERED
    assert made.evidence.probe_results[0].data == b"the sidecar\n"
    redirect = only(made, "dnat")
    assert (redirect.node, redirect.netns, redirect.observed) == ("node-a", "shop/client", True)
    assert (redirect.rule.chain, redirect.rule.text) == (
        "ISTIO_REDIRECT",
        "-p tcp -j REDIRECT --to-ports 15001",
    )
    last = only(made, "delivered")
    assert (last.netns, last.interface) == ("shop/client", "lo")
    assert (last.packet.flow.dst, last.packet.flow.dport) == ("127.0.0.1", 15001)
    (said,) = made.findings
    assert (said.cause, said.severity, said.node) == ("sidecar", "info", "node-a")
    assert "Istio's sidecar (127.0.0.1:15001)" in said.summary
    # whose socket sends is known, so no owner match leaves a doubt
    (branch,) = made.prediction.branches
    assert branch.deterministic


def test_a_sidecar_that_is_down_is_named(vxlan_bench: Any) -> None:
    with meshed(vxlan_bench, "shop/client", 15001, running=False):
        made = vxlan_bench.trace("svc/remote", "pod/client")
    assert made.outcome is Outcome.REFUSED
    first, second = made.findings
    assert (first.cause, first.node) == ("no-listener", "node-a")
    assert "15001" in first.object
    assert second.cause == "sidecar"


def test_what_comes_for_a_pod_goes_to_its_sidecar(vxlan_bench: Any) -> None:
    with meshed(vxlan_bench, "shop/remote-1", 15006):
        made = vxlan_bench.trace("svc/remote", "pod/client")
    assert made.outcome is Outcome.DELIVERED
    assert made.evidence.probe_results[0].data == b"the sidecar\n"
    (said,) = made.findings
    assert (said.cause, said.node) == ("sidecar", "node-b")
    assert "port 15006" in said.summary
    hops = [hop for hop in made.hops if hop.action == "dnat"]
    assert [(hop.node, hop.netns) for hop in hops][-1] == ("node-b", "shop/remote-1")
