"""Felix's ipsets and rules as Calico leaves them on a node: the plan in, texts to restore out.

Felix's with the default action ACCEPT for pod to host and profiles that allow all, for the pods
that no NetworkPolicy selects (policy.py). Jumps stand first in the kernel's chains, only that
of nat POSTROUTING last. What a bit of the mark means depends on the release.

Source: felix/rules (static.go, dispatch.go, endpoints.go), as far as they concern IPIP and VXLAN
without eBPF and without host endpoints.

Under IPVS a packet to a Service leaves by OUTPUT, where its pod is not known any more: cali-INPUT
writes the pod into the rest of the mark, and cali-OUTPUT applies that pod's policy.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterator, Sequence

from kptrace.lab.address_plan import POD_NETWORK, NodePlan, Plan, PodPlan
from kptrace.lab.dataplane.calico import policy
from kptrace.lab.dataplane.calico.network import TUNNEL, TUNNELLED, VXLAN_DEVICE, VXLAN_PORT
from kptrace.lab.dataplane.calico.policy import Chains, single
from kptrace.lab.dataplane.calico.policy import why as _why
from kptrace.lab.network_policy import Policy, Way


def ipsets(plan: Plan, node: NodePlan, family: int, policies: Sequence[Policy]) -> str:
    """For ``ipset restore``."""
    prefix = _prefix(family)
    members = {
        "all-hosts-net": [node.addresses[family] for node in plan.nodes],
        "all-ipam-pools": [POD_NETWORK[family]],
        "masq-ipam-pools": [POD_NETWORK[family]],
    }
    lines = []
    for name, entries in members.items():
        lines += _set(f"{prefix}{name}", entries, family)
    lines += selectors(plan, family, policies)
    if plan.proxy == "ipvs":
        lines.append(f"create {prefix}this-host hash:ip {_options(family)}")
        own = [a for a in plan.local_addresses(node) if (":" in a) == bool(family)]
        lines += [f"add {prefix}this-host {address}" for address in own]
    return "".join(f"{line}\n" for line in lines)


def selectors(plan: Plan, family: int, policies: Sequence[Policy]) -> list[str]:
    """The sets of the pods that policies speak of."""
    texts_by_name = policy.ipsets(plan, policies, family)
    return [line for name, entries in texts_by_name.items() for line in _set(name, entries, family)]


def _set(name: str, entries: Sequence[str], family: int) -> list[str]:
    head = f"create {name} hash:net {_options(family)}"
    return [head, *(f"add {name} {entry}" for entry in entries)]


def _options(family: int) -> str:
    return f"family {'inet6' if family else 'inet'} hashsize 1024 maxelem 1048576 bucketsize 12"


def rules(plan: Plan, node: NodePlan, family: int, policies: Sequence[Policy]) -> str:
    """Felix's tables for ``iptables-restore --noflush``."""
    felix = _Felix(plan, node, family, policies)
    tables = {
        "raw": felix.raw(),
        "mangle": felix.mangle(),
        "nat": felix.nat(),
        "filter": felix.filter(),
    }
    return "".join(_table(name, chains) for name, chains in tables.items())


def pod_rules(plan: Plan, node: NodePlan, family: int, policies: Sequence[Policy]) -> str:
    """Only what policies change: the chains of pods and of policies."""
    return _table("filter", _Felix(plan, node, family, policies).pod_chains())


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


def _prefix(family: int) -> str:
    return "cali60" if family else "cali40"


class _Felix:
    explicit = _why("Policy explicitly accepted packet.")

    def __init__(self, plan: Plan, node: NodePlan, family: int, policies: Sequence[Policy]) -> None:
        self.plan = plan
        self.pods = plan.pods_on(node.name)
        self.family = family
        self.policies = policies
        self.shape = policy.shape(plan)
        # what a pod needs to find its gateway, whatever its policies: multicast listeners, routers
        # and neighbours (static.go)
        self.discovery = (130, 131, 132, 133, 135, 136) if family else ()
        self.accept = single(self.shape.accept)
        self.workload = single(self.shape.scratch0)
        self.all_marks = f"0x0/{self.shape.every:#x}"
        self.ipvs = plan.proxy == "ipvs"
        self.ipip = plan.network in TUNNELLED and not family
        self.vxlan = plan.network == "calico-vxlan" and not family

    def raw(self) -> Chains:
        untracked = [f"-p udp -m multiport --dports {VXLAN_PORT} -j NOTRACK"] * self.vxlan
        return {
            "PREROUTING": ["-j cali-PREROUTING"],
            "OUTPUT": ["-j cali-OUTPUT"],
            "cali-PREROUTING": [
                f"-j MARK --set-xmark {self.all_marks}",
                *untracked,
                f"-i cali+ -j MARK --set-xmark {self.workload}",
                f"-m mark --mark {self.workload} -j cali-rpf-skip",
                f"-m mark --mark {self.workload} -m rpfilter --validmark --invert -j DROP",
                f"-m mark --mark 0x0/{self.shape.scratch0:#x} -j cali-from-host-endpoint",
                f"-m mark --mark {self.accept} -j ACCEPT",
            ],
            "cali-OUTPUT": [
                f"-j MARK --set-xmark {self.all_marks}",
                *untracked,
                "-j cali-to-host-endpoint",
                f"-m mark --mark {self.accept} -j ACCEPT",
            ],
            "cali-rpf-skip": [],
            "cali-from-host-endpoint": [],
            "cali-to-host-endpoint": [],
        }

    def mangle(self) -> Chains:
        accepted = f"{_why('Host endpoint policy accepted packet.')} -m mark --mark {self.accept}"
        return {
            "PREROUTING": ["-j cali-PREROUTING"],
            "POSTROUTING": ["-j cali-POSTROUTING"],
            "cali-PREROUTING": [
                "-m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT",
                f"-m mark --mark {self.accept} -j ACCEPT",
                "-j cali-from-host-endpoint",
                f"{accepted} -j ACCEPT",
            ],
            "cali-POSTROUTING": [
                f"-m mark --mark {self.accept} -j RETURN",
                f"-j MARK --set-xmark {self.all_marks}",
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
        chains: Chains = {
            "INPUT": ["-j cali-INPUT"],
            "FORWARD": ["-j cali-FORWARD"],
            "OUTPUT": ["-j cali-OUTPUT"],
            "FORWARD+": [
                f"{self.explicit} -m mark --mark {self.accept} -j ACCEPT",
                f"-j MARK --set-xmark {self.accept}",
            ],
            "cali-INPUT": [*self._input()],
            "cali-FORWARD": [
                f"-j MARK --set-xmark 0x0/{self.shape.every & ~self.shape.accept:#x}",
                f"-m mark --mark 0x0/{self.shape.accept:#x} -j cali-from-hep-forward",
                "-i cali+ -j cali-from-wl-dispatch",
                "-o cali+ -j cali-to-wl-dispatch",
                "-j cali-to-hep-forward",
                "-j cali-cidr-block",
            ],
            "cali-OUTPUT": [*self._output()],
            "cali-wl-to-host": [
                *(f"-p ipv6-icmp -m icmp6 --icmpv6-type {n} -j ACCEPT" for n in self.discovery),
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
        chains |= self.pod_chains()
        for kind in ("pri", "pro"):
            for namespace in dict.fromkeys(pod.namespace for pod in self.pods):
                way = "ingress" if kind == "pri" else "egress"
                why = _why(f"Profile kns.{namespace} {way}")
                chains[f"cali-{kind}-kns.{namespace}"] = [
                    f"{why} -j MARK --set-xmark {self.accept}",
                    f"-m mark --mark {self.accept} -j RETURN",
                ]
        return chains

    def pod_chains(self) -> Chains:
        chains = policy.policy_chains(self.plan, self._used(), self.family)
        for pod in self.pods:
            chains[f"cali-fw-{pod.interface}"] = [*self._endpoint(pod, "pro", "fw")]
            chains[f"cali-tw-{pod.interface}"] = [*self._endpoint(pod, "pri", "tw")]
        return chains

    def _used(self) -> list[Policy]:
        """Felix writes the policies alone that select a pod of its node."""
        here = {(pod.namespace, pod.app) for pod in self.pods}
        return [policy for policy in self.policies if (policy.namespace, policy.app) in here]

    def _input(self) -> Iterator[str]:
        yield from self._from_tunnel()
        if self.ipvs:
            yield "-j cali-forward-check"
            yield f"-m mark ! --mark 0x0/{self.shape.endpoints:#x} -j RETURN"
        yield "-i cali+ -g cali-wl-to-host"
        yield f"-m mark --mark {self.accept} -j ACCEPT"
        yield f"-j MARK --set-xmark {self.all_marks}"
        yield "-j cali-from-host-endpoint"
        accepted = _why("Host endpoint policy accepted packet.")
        yield f"{accepted} -m mark --mark {self.accept} -j ACCEPT"

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
        yield f"-m mark --mark {self.accept} -j ACCEPT"
        if self.ipvs:
            yield f"-m mark ! --mark 0x0/{self.shape.endpoints:#x} -g cali-forward-endpoint-mark"
        yield "-o cali+ -j RETURN"
        hosts = f"-m set --match-set {_prefix(self.family)}all-hosts-net dst"
        local = "-m addrtype --src-type LOCAL"
        if self.ipip:
            why = _why("Allow IPIP packets to other Calico hosts")
            yield f"-p ipencap {why} {hosts} {local} -j ACCEPT"
        if self.vxlan:
            why = _why("Allow IPv4 VXLAN packets to other allowed hosts")
            yield f"-p udp {why} -m multiport --dports {VXLAN_PORT} {local} {hosts} -j ACCEPT"
        yield f"-j MARK --set-xmark {self.all_marks}"
        yield "-m conntrack ! --ctstate DNAT -j cali-to-host-endpoint"
        accepted = _why("Host endpoint policy accepted packet.")
        yield f"{accepted} -m mark --mark {self.accept} -j ACCEPT"

    def _dispatch(self, way: str, option: str, kind: str) -> Chains:
        leaves = [f"{option} {p.interface} -g cali-{kind}-{p.interface}" for p in self.pods]
        return {f"cali-{way}-wl-dispatch": [*leaves, f"{_why('Unknown interface')} -j DROP"]}

    def _endpoint(self, pod: PodPlan, profiles: str, kind: str) -> Iterator[str]:
        yield "-m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT"
        yield "-m conntrack --ctstate INVALID -j DROP"
        yield f"-j MARK --set-xmark 0x0/{self.shape.accept | self.shape.passed:#x}"
        if kind == "fw":
            encapped = "encapped packets originating in workloads"
            yield (
                f"-p udp {_why(f'Drop VXLAN {encapped}')} -m multiport --dports {VXLAN_PORT}"
                " -j DROP"
            )
            yield f"-p ipencap {_why(f'Drop IPinIP {encapped}')} -j DROP"
        way: Way = "egress" if kind == "fw" else "ingress"
        yield from policy.tiers(self.plan, pod, way, self.policies)
        yield f"-j cali-{profiles}-kns.{pod.namespace}"
        yield f"{_why('Return if profile accepted')} -m mark --mark {self.accept} -j RETURN"
        yield f"{_why('Drop if no profiles matched')} -j DROP"

    def _endpoint_marks(self) -> Chains:
        mask = f"{self.shape.endpoints:#x}"
        marks = {pod.interface: self.shape.stranger * n for n, pod in enumerate(self.pods, 2)}
        this_host = f"{_prefix(self.family)}this-host"
        ports = "-m multiport --dports 30000:32767"
        stranger = f"{self.shape.stranger:#x}/{mask}"
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
                f"cali-sm-{name}": [f"-j MARK --set-xmark {mark:#x}/{mask}"]
                for name, mark in marks.items()
            },
            "cali-forward-endpoint-mark": [
                f"-m mark ! --mark {stranger} -j cali-from-endpoint-mark",
                "-o cali+ -j cali-to-wl-dispatch",
                "-j cali-to-hep-forward",
                f"-j MARK --set-xmark 0x0/{mask}",
                f"{self.explicit} -m mark --mark {self.accept} -j ACCEPT",
            ],
            "cali-from-endpoint-mark": [
                *(
                    f"-m mark --mark {mark:#x}/{mask} -g cali-fw-{name}"
                    for name, mark in marks.items()
                ),
                f"{_why('Unknown interface')} -j DROP",
            ],
        }
