"""Felix's ipsets and rules as Calico leaves them on a node: the plan in, texts to restore out.

Felix's with the default action ACCEPT for pod to host and profiles that allow all; NetworkPolicies
would be more jumps in the chains of a pod. Jumps stand first in the kernel's chains, only that of
nat POSTROUTING last. Marks are those of releases without a drop mark: accept, pass, two scratches.

Source: felix/rules (static.go, dispatch.go, endpoints.go), as far as they concern IPIP and VXLAN
without eBPF and without host endpoints.

Under IPVS a packet to a Service leaves by OUTPUT, where its pod is not known any more: cali-INPUT
writes the pod into the mark (0xfff00000), and cali-OUTPUT applies that pod's policy.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterator

from kptrace.lab.calico import TUNNEL, TUNNELLED, VXLAN_DEVICE, VXLAN_PORT
from kptrace.lab.plan import POD_NETWORK, NodePlan, Plan, PodPlan

_ACCEPT, _PASS, _WORKLOAD = "0x10000/0x10000", "0x20000/0x20000", "0x40000/0x40000"
_ALL_MARKS = "0x0/0xf0000"
_ENDPOINTS = "0xfff00000"
_STRANGER = 0x100000  # the mark of a packet that came from no pod of ours


def ipsets(plan: Plan, one: NodePlan, family: int) -> str:
    """For ``ipset restore``."""
    prefix = _prefix(family)
    kind = f"family {'inet6' if family else 'inet'} hashsize 1024 maxelem 1048576 bucketsize 12"
    members = {
        "all-hosts-net": [node.addresses[family] for node in plan.nodes],
        "all-ipam-pools": [POD_NETWORK[family]],
        "masq-ipam-pools": [POD_NETWORK[family]],
    }
    lines = []
    for name, entries in members.items():
        lines.append(f"create {prefix}{name} hash:net {kind}")
        lines += [f"add {prefix}{name} {entry}" for entry in entries]
    if plan.proxy == "ipvs":
        lines.append(f"create {prefix}this-host hash:ip {kind}")
        own = [a for a in plan.local_addresses(one) if (":" in a) == bool(family)]
        lines += [f"add {prefix}this-host {address}" for address in own]
    return "".join(f"{line}\n" for line in lines)


def rules(plan: Plan, one: NodePlan, family: int) -> str:
    """Felix's tables for ``iptables-restore --noflush``."""
    felix = _Felix(plan, one, family)
    tables = {
        "raw": felix.raw(),
        "mangle": felix.mangle(),
        "nat": felix.nat(),
        "filter": felix.filter(),
    }
    return "".join(_table(name, chains) for name, chains in tables.items())


Chains = dict[str, list[str]]


def _table(name: str, chains: Chains) -> str:
    """Keys of the kernel's chains say where the rules go: ``FORWARD`` first, ``FORWARD+`` last."""
    lines = [f"*{name}", *(f":{chain} - [0:0]" for chain in chains if chain.startswith("cali-"))]
    for chain, rules in chains.items():
        last = chain.startswith("cali-") or chain.endswith("+")
        how = f"-A {chain.removesuffix('+')}" if last else f"-I {chain} 1"
        lines += [f"{how} {_hashed(chain, number, rule)}" for number, rule in enumerate(rules)]
    return "\n".join([*lines, "COMMIT", ""])


def _hashed(chain: str, number: int, rule: str) -> str:
    """Felix signs its rules: a hash in a comment, by which it knows them again."""
    digest = hashlib.sha256(f"{chain}/{number}/{rule}".encode()).digest()
    return f'-m comment --comment "cali:{base64.urlsafe_b64encode(digest).decode()[:16]}" {rule}'


def _why(text: str) -> str:
    return f'-m comment --comment "{text}"'


def _prefix(family: int) -> str:
    return "cali60" if family else "cali40"


class _Felix:
    def __init__(self, plan: Plan, one: NodePlan, family: int) -> None:
        self.plan = plan
        self.pods = plan.pods_on(one.name)
        self.family = family
        self.ipvs = plan.proxy == "ipvs"
        self.ipip = plan.network in TUNNELLED and not family
        self.vxlan = plan.network == "calico-vxlan" and not family

    def raw(self) -> Chains:
        untracked = [f"-p udp -m multiport --dports {VXLAN_PORT} -j NOTRACK"] * self.vxlan
        return {
            "PREROUTING": ["-j cali-PREROUTING"],
            "OUTPUT": ["-j cali-OUTPUT"],
            "cali-PREROUTING": [
                f"-j MARK --set-xmark {_ALL_MARKS}",
                *untracked,
                f"-i cali+ -j MARK --set-xmark {_WORKLOAD}",
                f"-m mark --mark {_WORKLOAD} -j cali-rpf-skip",
                f"-m mark --mark {_WORKLOAD} -m rpfilter --validmark --invert -j DROP",
                "-m mark --mark 0x0/0x40000 -j cali-from-host-endpoint",
                f"-m mark --mark {_ACCEPT} -j ACCEPT",
            ],
            "cali-OUTPUT": [
                f"-j MARK --set-xmark {_ALL_MARKS}",
                *untracked,
                "-j cali-to-host-endpoint",
                f"-m mark --mark {_ACCEPT} -j ACCEPT",
            ],
            "cali-rpf-skip": [],
            "cali-from-host-endpoint": [],
            "cali-to-host-endpoint": [],
        }

    def mangle(self) -> Chains:
        accepted = f"{_why('Host endpoint policy accepted packet.')} -m mark --mark {_ACCEPT}"
        return {
            "PREROUTING": ["-j cali-PREROUTING"],
            "POSTROUTING": ["-j cali-POSTROUTING"],
            "cali-PREROUTING": [
                "-m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT",
                f"-m mark --mark {_ACCEPT} -j ACCEPT",
                "-j cali-from-host-endpoint",
                f"{accepted} -j ACCEPT",
            ],
            "cali-POSTROUTING": [
                f"-m mark --mark {_ACCEPT} -j RETURN",
                f"-j MARK --set-xmark {_ALL_MARKS}",
                "-m conntrack --ctstate DNAT -j cali-to-host-endpoint",
                f"{accepted} -j RETURN",
            ],
            "cali-from-host-endpoint": [],
            "cali-to-host-endpoint": [],
        }

    def nat(self) -> Chains:
        device = TUNNEL if self.ipip else VXLAN_DEVICE if self.vxlan else ""
        not_its_own = (
            f"-o {device} -m addrtype ! --src-type LOCAL --limit-iface-out"
            " -m addrtype --src-type LOCAL -j MASQUERADE --random-fully"
        )
        pools = f"{_prefix(self.family)}{{}}-ipam-pools"
        return {
            "PREROUTING": ["-j cali-PREROUTING"],
            "OUTPUT": ["-j cali-OUTPUT"],
            "POSTROUTING+": ["-j cali-POSTROUTING"],
            "cali-PREROUTING": ["-j cali-fip-dnat"],
            "cali-OUTPUT": ["-j cali-fip-dnat"],
            "cali-POSTROUTING": [
                "-j cali-fip-snat",
                "-j cali-nat-outgoing",
                *([not_its_own] if device else []),
            ],
            "cali-fip-dnat": [],
            "cali-fip-snat": [],
            "cali-nat-outgoing": [
                f"-m set --match-set {pools.format('masq')} src"
                f" -m set ! --match-set {pools.format('all')} dst -j MASQUERADE --random-fully"
            ],
        }

    # --- filter ---------------------------------------------------------------------------

    def filter(self) -> Chains:
        explicit = _why("Policy explicitly accepted packet.")
        chains: Chains = {
            "INPUT": ["-j cali-INPUT"],
            "FORWARD": ["-j cali-FORWARD"],
            "OUTPUT": ["-j cali-OUTPUT"],
            "FORWARD+": [
                f"{explicit} -m mark --mark {_ACCEPT} -j ACCEPT",
                f"-j MARK --set-xmark {_ACCEPT}",
            ],
            "cali-INPUT": [*self._input()],
            "cali-FORWARD": [
                "-j MARK --set-xmark 0x0/0xe0000",
                "-m mark --mark 0x0/0x10000 -j cali-from-hep-forward",
                "-i cali+ -j cali-from-wl-dispatch",
                "-o cali+ -j cali-to-wl-dispatch",
                "-j cali-to-hep-forward",
                "-j cali-cidr-block",
            ],
            "cali-OUTPUT": [*self._output()],
            "cali-wl-to-host": [
                "-j cali-from-wl-dispatch",
                f"{_why('Configured DefaultEndpointToHostAction')} -j ACCEPT",
            ],
            "cali-from-hep-forward": [],
            "cali-to-hep-forward": [],
            "cali-cidr-block": [],
            "cali-from-host-endpoint": [],
            "cali-to-host-endpoint": [],
            **self._dispatch("from", "-i", "fw"),
            **self._dispatch("to", "-o", "tw"),
        }
        if self.ipvs:
            chains |= self._endpoint_marks()
        for pod in self.pods:
            chains[f"cali-fw-{pod.interface}"] = [*self._endpoint(pod, "pro", "fw")]
            chains[f"cali-tw-{pod.interface}"] = [*self._endpoint(pod, "pri", "tw")]
        for kind in ("pri", "pro"):
            for namespace in dict.fromkeys(pod.namespace for pod in self.pods):
                way = "ingress" if kind == "pri" else "egress"
                why = _why(f"Profile kns.{namespace} {way}")
                chains[f"cali-{kind}-kns.{namespace}"] = [
                    f"{why} -j MARK --set-xmark {_ACCEPT}",
                    f"-m mark --mark {_ACCEPT} -j RETURN",
                ]
        return chains

    def _input(self) -> Iterator[str]:
        yield from self._from_tunnel()
        if self.ipvs:
            yield "-j cali-forward-check"
            yield f"-m mark ! --mark 0x0/{_ENDPOINTS} -j RETURN"
        yield "-i cali+ -g cali-wl-to-host"
        yield f"-m mark --mark {_ACCEPT} -j ACCEPT"
        yield f"-j MARK --set-xmark {_ALL_MARKS}"
        yield "-j cali-from-host-endpoint"
        accepted = _why("Host endpoint policy accepted packet.")
        yield f"{accepted} -m mark --mark {_ACCEPT} -j ACCEPT"

    def _from_tunnel(self) -> Iterator[str]:
        hosts = f"-m set --match-set {_prefix(self.family)}all-hosts-net"
        local = "-m addrtype --dst-type LOCAL"
        if self.ipip:
            why = _why("Allow IPIP packets from Calico hosts")
            yield f"-p ipencap {why} {hosts} src {local} -j ACCEPT"
            yield f"-p ipencap {_why('Drop IPIP packets from non-Calico hosts')} -j DROP"
        if self.vxlan:
            port = f"-m multiport --dports {VXLAN_PORT}"
            yield (
                f"-p udp {_why('Allow IPv4 VXLAN packets from allowed hosts')} {port}"
                f" {hosts} src {local} -j ACCEPT"
            )
            yield (
                f"-p udp {_why('Drop IPv4 VXLAN packets from non-allowed hosts')} {port} {local}"
                " -j DROP"
            )

    def _output(self) -> Iterator[str]:
        yield f"-m mark --mark {_ACCEPT} -j ACCEPT"
        if self.ipvs:
            yield f"-m mark ! --mark 0x0/{_ENDPOINTS} -g cali-forward-endpoint-mark"
        yield "-o cali+ -j RETURN"
        hosts = f"-m set --match-set {_prefix(self.family)}all-hosts-net dst"
        local = "-m addrtype --src-type LOCAL"
        if self.ipip:
            why = _why("Allow IPIP packets to other Calico hosts")
            yield f"-p ipencap {why} {hosts} {local} -j ACCEPT"
        if self.vxlan:
            why = _why("Allow IPv4 VXLAN packets to other allowed hosts")
            yield f"-p udp {why} -m multiport --dports {VXLAN_PORT} {local} {hosts} -j ACCEPT"
        yield f"-j MARK --set-xmark {_ALL_MARKS}"
        yield "-m conntrack ! --ctstate DNAT -j cali-to-host-endpoint"
        accepted = _why("Host endpoint policy accepted packet.")
        yield f"{accepted} -m mark --mark {_ACCEPT} -j ACCEPT"

    def _dispatch(self, way: str, option: str, kind: str) -> Chains:
        leaves = [f"{option} {p.interface} -g cali-{kind}-{p.interface}" for p in self.pods]
        return {f"cali-{way}-wl-dispatch": [*leaves, f"{_why('Unknown interface')} -j DROP"]}

    def _endpoint(self, pod: PodPlan, profiles: str, kind: str) -> Iterator[str]:
        yield "-m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT"
        yield "-m conntrack --ctstate INVALID -j DROP"
        yield "-j MARK --set-xmark 0x0/0x30000"
        if kind == "fw":
            encapped = "encapped packets originating in workloads"
            yield (
                f"-p udp {_why(f'Drop VXLAN {encapped}')} -m multiport --dports {VXLAN_PORT}"
                " -j DROP"
            )
            yield f"-p ipencap {_why(f'Drop IPinIP {encapped}')} -j DROP"
        yield f"-j cali-{profiles}-kns.{pod.namespace}"
        yield f"{_why('Return if profile accepted')} -m mark --mark {_ACCEPT} -j RETURN"
        yield f"{_why('Drop if no profiles matched')} -j DROP"

    def _endpoint_marks(self) -> Chains:
        marks = {pod.interface: _STRANGER * n for n, pod in enumerate(self.pods, 2)}
        this_host = f"{_prefix(self.family)}this-host"
        ports = "-m multiport --dports 30000:32767"
        stranger = f"{_STRANGER:#x}/{_ENDPOINTS}"
        return {
            "cali-forward-check": [
                "-m conntrack --ctstate RELATED,ESTABLISHED -j RETURN",
                *(
                    f"-p {protocol} {_why('To kubernetes NodePort service')} {ports}"
                    f" -m set --match-set {this_host} dst -g cali-set-endpoint-mark"
                    for protocol in ("tcp", "udp")
                ),
                f"{_why('To kubernetes service')} -m set ! --match-set {this_host} dst"
                " -j cali-set-endpoint-mark",
            ],
            "cali-set-endpoint-mark": [
                *(f"-i {name} -g cali-sm-{name}" for name in marks),
                f"-i cali+ {_why('Unknown endpoint')} -j DROP",
                f"{_why('Non-Cali endpoint mark')} -j MARK --set-xmark {stranger}",
            ],
            **{
                f"cali-sm-{name}": [f"-j MARK --set-xmark {mark:#x}/{_ENDPOINTS}"]
                for name, mark in marks.items()
            },
            "cali-forward-endpoint-mark": [
                f"-m mark ! --mark {stranger} -j cali-from-endpoint-mark",
                "-o cali+ -j cali-to-wl-dispatch",
                "-j cali-to-hep-forward",
                f"-j MARK --set-xmark 0x0/{_ENDPOINTS}",
                f"{_why('Policy explicitly accepted packet.')} -m mark --mark {_ACCEPT} -j ACCEPT",
            ],
            "cali-from-endpoint-mark": [
                *(
                    f"-m mark --mark {mark:#x}/{_ENDPOINTS} -g cali-fw-{name}"
                    for name, mark in marks.items()
                ),
                f"{_why('Unknown interface')} -j DROP",
            ],
        }
