"""Which network stands on a node, from what its parts leave there (the files as tools print them).

Real nodes are real Flannel's; the others are written by hand from the projects' own sources.
"""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from kptrace.model import Netns
from kptrace.plugins import registry
from kptrace.plugins.registry import DetectedCni
from kptrace.simulate.snapshot.snapshot import read_snapshot

NODE = Netns(node="node-a")
CALI = "ee:ee:ee:ee:ee:ee"


def link(name: str, kind: str = "", up: bool = True, mac: str = "", **data: Any) -> dict[str, Any]:
    """As ``ip -d -j link`` prints it."""
    return {
        "ifindex": 1 + sum(map(ord, name)),
        "ifname": name,
        "flags": ["UP"] if up else [],
        "mtu": 1500,
        "address": mac,
        "linkinfo": {"info_kind": kind, "info_data": data} if kind else {},
    }


def node(
    *links: dict[str, Any],
    routes: tuple[dict[str, Any], ...] = (),
    addresses: tuple[tuple[str, str], ...] = (),
    **files: str,
) -> dict[str, str]:
    """A node's files; an underscore in a name stands for a dash, the ending is given by kind."""
    held: dict[str, list[dict[str, Any]]] = {}
    for interface, text in addresses:
        info = {"family": "inet", "local": text, "prefixlen": 32, "scope": "global"}
        held.setdefault(interface, []).append(info)
    told = [{**one, "addr_info": held.get(one["ifname"], [])} for one in links]
    made = {
        "ip-link.json": json.dumps(links),
        "ip-addr.json": json.dumps(told),
        "ip-route.json": json.dumps(routes),
    }
    return made | {name.replace("_", "-") + ".txt": text for name, text in files.items()}


def route(dst: str, protocol: str, **more: Any) -> dict[str, Any]:
    return {"dst": dst, "protocol": protocol, "flags": [], **more}


def chains(table: str, *names: str) -> str:
    return f"*{table}\n" + "".join(f":{name} - [0:0]\n" for name in names) + "COMMIT\n"


def seen(files: dict[str, str]) -> DetectedCni | None:
    return registry.detect_network(read_snapshot(NODE, files), files).best


VXLAN = link("flannel.1", "vxlan", id=1, port=8472)
PODS = (link("cali0123456789a", "veth", mac=CALI), link("cali1123456789a", "veth", mac=CALI))
BLOCK = route("10.244.1.0/26", "bird", type="blackhole")
NATIVE = route("10.244.2.0/26", "bird", gateway="172.30.0.12", dev="eth0")
TUNNELLED = route("10.244.2.0/26", "80", gateway="172.30.0.12", dev="tunl0")
DOWN = link("tunl0", "ipip", up=False)
TUNL0 = link("tunl0", "ipip")

CASES = {
    "Flannel (VXLAN)": node(VXLAN, link("cni0", "bridge")),
    "Flannel (IPIP)": node(link("flannel.ipip", "ipip"), DOWN, link("cni0", "bridge")),
    "Flannel (WireGuard)": node(link("flannel-wg", "wireguard")),
    "Flannel (UDP)": node(link("flannel0", "tun")),
    "Flannel (host-gw)": node(
        link("cni0", "bridge"), iptables_save=chains("filter", "FLANNEL-FWD", "FORWARD")
    ),
    "Canal: Calico's policies on Flannel (VXLAN)": node(VXLAN, *PODS, routes=(BLOCK,)),
    "Calico (IPIP)": node(
        TUNL0, *PODS, routes=(BLOCK, TUNNELLED), addresses=(("tunl0", "10.244.1.1"),)
    ),
    "Calico (IPIP, CrossSubnet)": node(
        TUNL0, *PODS, routes=(BLOCK, NATIVE), addresses=(("tunl0", "10.244.1.1"),)
    ),
    "Calico (VXLAN)": node(link("vxlan.calico", "vxlan", id=4096, port=4789), *PODS),
    # the module's own device is there, but DOWN: nobody's tunnel
    "Calico (direct)": node(DOWN, *PODS, routes=(BLOCK, NATIVE)),
    "Calico (WireGuard)": node(link("wireguard.cali", "wireguard"), *PODS),
    "Calico (eBPF)": node(
        *PODS, routes=(BLOCK,), bpf_pins="/sys/fs/bpf/tc/globals/cali_v4_nat_fe3\n"
    ),
    "kindnet": node(iptables_save=chains("nat", "POSTROUTING", "KIND-MASQ-AGENT")),
    "AWS VPC CNI": node(
        link("eni0123456789a", "veth"), iptables_save=chains("nat", "AWS-SNAT-CHAIN-0")
    ),
    "kube-router": node(link("kube-bridge", "bridge"), link("kube-dummy-if", "dummy")),
    "Antrea": node(link("antrea-gw0", "openvswitch")),
    "OVN-Kubernetes": node(link("ovn-k8s-mp0", "openvswitch")),
    "Cilium (VXLAN)": node(
        link("cilium_host", "veth"), link("cilium_net", "veth"), link("cilium_vxlan", "vxlan")
    ),
    "Cilium (native routing)": node(link("cilium_host", "veth"), link("cilium_net", "veth")),
    "bridge plugin": node(link("cni0", "bridge")),
}


@pytest.mark.parametrize("called", CASES)
def test_each_network_is_called_by_its_name(called: str) -> None:
    found = seen(CASES[called])
    assert found is not None
    assert found.name == called
    assert found.signal


@pytest.mark.parametrize("calico_like", [(DOWN,), (TUNL0,)], ids=["down", "up without an address"])
def test_tunl0_alone_is_no_calico(calico_like: tuple[dict[str, Any], ...]) -> None:
    assert seen(node(*calico_like)) is None


def test_one_half_of_cilium_s_veth_pair_is_no_cilium() -> None:
    assert seen(node(link("cilium_host", "veth"))) is None


def test_a_nftables_table_of_kindnet_is_enough() -> None:
    table = {"table": {"family": "inet", "name": "kindnet-ipmasq", "handle": 3}}
    files = {"nft-ruleset.json": json.dumps({"nftables": [table]})}
    found = seen(files)
    assert found is not None
    assert found.name == "kindnet"


@pytest.mark.parametrize(
    ("called", "words"),
    [
        ("Calico (eBPF)", "conntrack knows nothing"),
        ("Calico (WireGuard)", "encrypted"),
        ("Flannel (UDP)", "user space"),
        ("Antrea", "antctl trace-packet"),
        ("OVN-Kubernetes", "ovnkube-trace"),
        ("Cilium (VXLAN)", "a capture missing there proves nothing"),
        ("Cilium (native routing)", "BPF host routing"),
        ("AWS VPC CNI", "security groups"),
        ("kube-router", "BGP"),
        ("kindnet", "NFQUEUE"),
    ],
)
def test_what_cannot_be_seen_through_says_so(called: str, words: str) -> None:
    found = seen(CASES[called])
    assert found is not None
    assert any(words in limit for limit in found.limits)


@pytest.mark.parametrize("called", ["Calico (eBPF)", "OVN-Kubernetes"])
def test_whose_services_are_not_read_are_not_kube_proxy_s(called: str) -> None:
    """No prediction of Services there: what programs or flows choose is seen, not foretold."""
    found = seen(CASES[called])
    assert found is not None
    assert found.programs is not None
    assert found.programs.frontends is None
    assert found.proxy


def test_cilium_beside_kube_proxy_leaves_services_to_it() -> None:
    rules = "*nat\n:KUBE-SERVICES - [0:0]\n-A KUBE-SERVICES -d 10.0.0.1/32 -j RETURN\nCOMMIT\n"
    found = seen(CASES["Cilium (VXLAN)"] | {"iptables-save.txt": rules})
    assert found is not None
    assert found.programs is not None
    assert found.programs.frontends == ()
    assert found.proxy == ""


def test_cilium_whose_maps_could_not_be_read_says_so() -> None:
    found = seen(CASES["Cilium (VXLAN)"])
    assert found is not None
    assert found.programs is not None
    assert found.programs.frontends is None
    assert found.proxy == "cilium"
    assert any("could not be read" in limit for limit in found.limits)


REAL = {
    "iptables-nft-default": "iptables",
    "iptables-legacy-default": "iptables",
    "nftables-default": "nftables",
    "ipvs-rr-default": "ipvs",
}


@pytest.mark.parametrize(("folder", "proxy"), REAL.items())
@pytest.mark.parametrize("name", ["node-a", "node-b"])
def test_real_nodes_tell_their_network_and_their_proxy(
    dumps: Path, folder: str, proxy: str, name: str
) -> None:
    files = {
        path.name.removesuffix(".gz"): (
            gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
        ).decode()
        for path in (dumps / folder / name).iterdir()
    }
    (told,) = registry.detected_networks({NODE: read_snapshot(NODE, files)}, {NODE: files})
    assert told.proxy == proxy
    # the kernel of the IPVS one has a tunl0, which is DOWN
    assert (told.name, told.signal) == ("Flannel (VXLAN)", "device flannel.1")
