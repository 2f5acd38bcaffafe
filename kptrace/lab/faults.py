"""The faults that can be put into a lab: one table, and the two verbs that work on it.

A fault's name is the cause id that a trace should come to. Each shows on one Service from the pod
``client`` on node-a; faults that touch the same thing exclude each other, so that heal can always
put back what was there, in any order. The state is written before the harm is done: a ``break``
that is killed can still be healed.
"""

from __future__ import annotations

from typing import Any

import msgspec

from kptrace.errors import CannotLook, NotFound, Usage
from kptrace.lab import machine, manifests, state
from kptrace.lab.damage import (
    AppendedRule,
    Belief,
    ClosedPort,
    Damage,
    Fdb,
    ForwardPolicy,
    Route,
    Sysctl,
)
from kptrace.lab.plan import NETWORKS, VXLAN_PORT, Network
from kptrace.lab.rules import View
from kptrace.lab.shop import HTTP
from kptrace.lab.state import Broken, Lab
from kptrace.model import Value

REMOTE = "shop/remote"
DEAD_POD = "10.244.2.99"
DEAD_NODE = "172.30.0.99"


class Fault(Value):
    """node: whose state is changed; object: what of it, as a finding would name it.

    touches: the thing that no other fault may have touched
    emptied: the Service whose EndpointSlices lose their endpoints
    """

    name: str
    words: str
    node: str
    object: str
    touches: str
    damage: Any
    service: str = REMOTE
    networks: tuple[Network, ...] = NETWORKS
    emptied: str = ""

    @property
    def target(self) -> str:
        return f"svc/{self.service.partition('/')[2]}"

    @property
    def namespace(self) -> str:
        return self.service.partition("/")[0]


def _without_service(view: View) -> View:
    kept = tuple(service for service in view.services if service.key != REMOTE)
    return msgspec.structs.replace(view, services=kept)


def _with_dead_endpoint(view: View) -> View:
    stale = tuple(
        msgspec.structs.replace(endpoint, address=DEAD_POD) for endpoint in view.endpoints[REMOTE]
    )
    return msgspec.structs.replace(view, endpoints={**view.endpoints, REMOTE: stale})


def _without_endpoints(view: View) -> View:
    return msgspec.structs.replace(view, endpoints={**view.endpoints, REMOTE: ()})


FAULTS = (
    Fault(
        name="proxy-rules-missing",
        words="kube-proxy on node-a has no rules for it",
        node="node-a",
        object=REMOTE,
        touches=f"the rules of {REMOTE}",
        damage=Belief(believe=_without_service),
    ),
    Fault(
        name="stale-dnat",
        words="rules on node-a send it to a pod that is gone",
        node="node-a",
        object=f"{REMOTE} -> {DEAD_POD}:{HTTP.port}",
        touches=f"the rules of {REMOTE}",
        damage=Belief(believe=_with_dead_endpoint),
    ),
    Fault(
        name="no-endpoints",
        words="no pod is behind the Service any more",
        node="node-a",
        object=REMOTE,
        touches=f"the rules of {REMOTE}",
        damage=Belief(believe=_without_endpoints, everywhere=True),
        emptied=REMOTE,
    ),
    Fault(
        name="forward-policy-drop",
        words="FORWARD on node-a drops and nobody accepts pods",
        node="node-a",
        object="filter FORWARD policy",
        touches="filter FORWARD of node-a",
        damage=ForwardPolicy(policy="DROP"),
    ),
    Fault(
        name="bridge-nf-off",
        words="bridged packets on node-a see no rules",
        node="node-a",
        object="net.bridge.bridge-nf-call-iptables",
        touches="net.bridge.bridge-nf-call-iptables of node-a",
        damage=Sysctl(name="net.bridge.bridge-nf-call-iptables", value="0"),
        service="shop/near",
    ),
    Fault(
        name="tunnel-port-blocked",
        words="a firewall on node-b drops VXLAN packets",
        node="node-b",
        object=f"filter INPUT -p udp --dport {VXLAN_PORT} -j DROP",
        touches="filter INPUT of node-b",
        damage=AppendedRule(
            chain="INPUT", rule=("-p", "udp", "--dport", str(VXLAN_PORT), "-j", "DROP")
        ),
        networks=("vxlan",),
    ),
    Fault(
        name="ip-forward-off",
        words="node-a does not forward IPv4",
        node="node-a",
        object="net.ipv4.ip_forward",
        touches="net.ipv4.ip_forward of node-a",
        damage=Sysctl(name="net.ipv4.ip_forward", value="0"),
    ),
    Fault(
        name="fdb-stale",
        words="node-a tunnels to an address that is gone",
        node="node-a",
        object="flannel.1 FDB entry of node-b",
        touches="the FDB entry of node-b on node-a",
        damage=Fdb(to="node-b", dst=DEAD_NODE),
        networks=("vxlan",),
    ),
    Fault(
        name="fdb-missing",
        words="node-a does not know where the tunnel ends",
        node="node-a",
        object="flannel.1 FDB entry of node-b",
        touches="the FDB entry of node-b on node-a",
        damage=Fdb(to="node-b"),
        networks=("vxlan",),
    ),
    Fault(
        name="pod-route-missing",
        words="node-a has no route to the pods of node-b",
        node="node-a",
        object="route 10.244.2.0/24",
        touches="the route to node-b's pods on node-a",
        damage=Route(to="node-b"),
    ),
    Fault(
        name="nobody-listens",
        words="the pod runs, but nothing listens on its port",
        node="node-b",
        object=f"shop/remote-1 port {HTTP.port}",
        touches="the port of shop/remote-1",
        damage=ClosedPort(pod="shop/remote-1", listener=HTTP),
    ),
)
BY_NAME = {fault.name: fault for fault in FAULTS}


def find(name: str) -> Fault:
    if name not in BY_NAME:
        raise NotFound(f"there is no fault named {name!r}", "all of them: kptrace lab faults")
    return BY_NAME[name]


def inject(lab_name: str, fault: Fault) -> Lab:
    """Break the lab. Refused where the fault cannot be or where it would cover another one."""
    machine.require_root()
    with state.locked():
        lab = state.load(lab_name)
        _require_possible(lab, fault)
        damage: Damage = fault.damage
        node = lab.plan.node(fault.node)
        broken = Broken(fault=fault.name, before=damage.before(lab, node))
        lab = _with_faults(lab, (*lab.state.faults, broken))
        try:
            damage.inflict(lab, node)
        except CannotLook:
            _heal(lab, broken)
            raise
    return lab


def heal(lab_name: str, name: str = "") -> tuple[Fault, ...]:
    """Heal one fault or, without a name, all; what was healed."""
    machine.require_root()
    with state.locked():
        lab = state.load(lab_name)
        chosen = [one for one in lab.state.faults if name in ("", one.fault)]
        if name and not chosen:
            find(name)
            raise NotFound(f"lab {lab_name!r} does not have the fault {name}", _active(lab))
        for broken in reversed(chosen):
            lab = _heal(lab, broken)
    return tuple(find(broken.fault) for broken in chosen)


def _heal(lab: Lab, broken: Broken) -> Lab:
    fault = find(broken.fault)
    fault.damage.undo(lab, lab.plan.node(fault.node), broken.before)
    return _with_faults(lab, tuple(one for one in lab.state.faults if one != broken))


def _with_faults(lab: Lab, faults: tuple[Broken, ...]) -> Lab:
    """Write down which faults there are; the API tells of those that it knows."""
    changed = lab.with_state(msgspec.structs.replace(lab.state, faults=faults))
    state.save(changed)
    emptied = [find(one.fault).emptied for one in faults]
    fresh = manifests.endpointslices(lab.plan, without=emptied)
    target = lab.api / "endpointslices.json"
    if target.read_text() != fresh:
        target.with_suffix(".new").write_text(fresh)
        target.with_suffix(".new").replace(target)
    return changed


def _require_possible(lab: Lab, fault: Fault) -> None:
    if lab.plan.network not in fault.networks:
        raise Usage(
            f"{fault.name} needs a lab with --network {fault.networks[0]};"
            f" {lab.name!r} has {lab.plan.network}"
        )
    for active in (find(one.fault) for one in lab.state.faults):
        if active.touches == fault.touches:
            raise Usage(
                f"{active.name} already changed {fault.touches}",
                f"heal it first: kptrace lab heal {active.name}",
            )


def _active(lab: Lab) -> str:
    names = ", ".join(one.fault for one in lab.state.faults)
    return f"it has: {names}" if names else "it has none"


# --- in words ---------------------------------------------------------------------------------


def how_to_see(fault: Fault, lab_name: str) -> str:
    flag = "--lab" if lab_name == "default" else f"--lab-name {lab_name}"
    return f"kptrace {fault.target} -n {fault.namespace} --from pod/client {flag}"


def listing(lab_name: str) -> str:
    """Every fault in a line; those in the lab are marked, if it stands and can be read."""
    active = _faults_in(lab_name)
    lines = [
        f"{'*' if fault.name in active else ' '} {fault.name:<19}"
        f"  {fault.service.partition('/')[2]:<7}  {fault.words}"
        for fault in FAULTS
    ]
    option = "" if lab_name == "default" else f" --name {lab_name}"
    example = FAULTS[0]
    return "\n".join(
        [
            f"  {'FAULT':<19}  SERVICE  WHAT",
            *lines,
            "",
            f"break:  kptrace lab break {example.name}{option}",
            f"see:    {how_to_see(example, lab_name)}",
            f"heal:   kptrace lab heal{option}              (* is in the lab now)",
        ]
    )


def _faults_in(lab_name: str) -> frozenset[str]:
    try:
        return frozenset(one.fault for one in state.load(lab_name).state.faults)
    except CannotLook:
        return frozenset()
