"""Causes in IPVS: a virtual service that no packet reaches, or that has nobody to send to.

The state is the node's own (``ipvsadm``, the addresses on kube-ipvs0); that the packet was not
translated, and how its sender was refused, is what the taps and the sender saw. Under IPVS a
Service without endpoints refuses by an ICMP error of the kernel's, not by a rule.
"""

from __future__ import annotations

from collections.abc import Iterator

from kptrace.diagnose.checks.service_proxy import endpoints_words, proxy_node, refusal
from kptrace.diagnose.phrases import end, entry_words, last_seen, next_predicted
from kptrace.diagnose.probe_evidence import ProbeEvidence
from kptrace.model import Finding, Flow, Netns
from kptrace.rules.ipvs.ipvsadm import VirtualService

DEVICE = "kube-ipvs0"
CONNTRACK = "net.ipv4.vs.conntrack"
# how a packet ends that should have been masqueraded, and the answer to one that was not tracked
_FORGED = frozenset({"martian", "rp-filter"})
_STRAYS = frozenset({"policy-drop", "rule-drop", "chain-policy-drop", "reply-not-translated"})


def diagnose(evidence: ProbeEvidence) -> Iterator[Finding]:
    resolution = evidence.resolution
    if not evidence.is_service:
        return
    if evidence.backend is not None:
        yield from _untracked(evidence)
        return
    snapshot = evidence.snapshots.get(Netns(node=proxy_node(evidence)))
    key = resolution.protocol, resolution.address, resolution.port
    service = snapshot.virtual.get(key) if snapshot else None
    if snapshot is None or service is None:
        return
    asked = Flow(
        protocol=resolution.protocol, src="", dst=resolution.address, dport=resolution.port
    )
    if snapshot.unbound(asked):
        yield _unbound(evidence)
    elif not any(server.weight for server in service.servers):
        yield _nobody(evidence, service)


def _untracked(evidence: ProbeEvidence) -> Iterator[Finding]:
    """IPVS sent it on, and how it ended is what happens to a packet that nobody tracks."""
    branch = evidence.branch
    steps = branch.steps if branch else ()
    taken = next((s for s in steps if s.rule is not None and s.rule.backend == "ipvs"), None)
    if (
        branch is None
        or taken is None
        or not branch.deterministic
        or next_predicted(evidence) is not None
    ):
        return
    snapshot = evidence.snapshots.get(taken.netns)
    returns = any(step.action == "reply" for step in steps)
    typical = branch.cause in _FORGED or (returns and branch.cause in _STRAYS)
    if snapshot is None or snapshot.sysctl(CONNTRACK) != 0 or not typical:
        return
    node = taken.netns.node
    yield Finding(
        cause="ipvs-conntrack-off",
        severity="error",
        node=node,
        object=CONNTRACK,
        summary=f"{CONNTRACK} is 0 on {node}: what IPVS sends on is not tracked, so it is not "
        "masqueraded and its answers belong to no connection",
        evidence=(
            f"sysctl {CONNTRACK} = 0 on {node}",
            *last_seen(evidence),
            f"what ends it there: {branch.full_description}",
            *((entry_words(evidence.entry),) if evidence.entry else ()),
        ),
        remedy=(
            f"sysctl -w {CONNTRACK}=1  # on {node}",
            f"and find what set it to 0: kube-proxy sets it to 1 when it starts on {node}",
        ),
    )


def _unbound(evidence: ProbeEvidence) -> Finding:
    node, address = proxy_node(evidence), evidence.resolution.address
    lines = [
        f"the addresses of {node}: none is {address}",
        f"IPVS on {node} has a service for {_asked(evidence)}",
        *last_seen(evidence),
    ]
    if evidence.entry is not None:
        lines.append(entry_words(evidence.entry))
    return Finding(
        cause="ipvs-address-missing",
        severity="error",
        node=node,
        object=f"{address} on {DEVICE}",
        summary=f"{address} is not on {DEVICE} of {node}, so its packets never reach IPVS there",
        evidence=tuple(lines),
        remedy=(
            f"restart kube-proxy on {node}: it puts its addresses back",
            f"ip addr add {address} dev {DEVICE}  # on {node}, until then",
        ),
    )


def _nobody(evidence: ProbeEvidence, service: VirtualService) -> Finding:
    node, named = proxy_node(evidence), evidence.resolution.service
    assert named is not None
    ready = any(e.ready for e in evidence.resolution.endpoints)
    cause, what = "no-endpoints", "no server"
    if service.servers:
        cause, what = "ipvs-weight-zero", "only servers of weight 0"
    elif ready:
        cause = "ipvs-no-server"
    servers = ", ".join(f"{end(s.address, s.port)} weight {s.weight}" for s in service.servers)
    look = f"ipvsadm -Ln  # on {node}: servers and weights"
    return Finding(
        cause=cause,
        severity="error",
        node=node,
        object=f"IPVS {_asked(evidence)}",
        summary=f"IPVS on {node} refuses {named.key}: it has {what} for {_asked(evidence)}",
        evidence=(
            f"IPVS on {node}: {_asked(evidence)}, scheduler {service.scheduler},"
            f" {servers or 'no server'}",
            endpoints_words(evidence),
            *refusal(evidence),
            *last_seen(evidence),
        ),
        remedy=(look, f"restart kube-proxy on {node}: it writes its servers anew")
        if ready
        else (f"kubectl -n {named.namespace} describe svc {named.name}", look),
    )


def _asked(evidence: ProbeEvidence) -> str:
    resolution = evidence.resolution
    return f"{end(resolution.address, resolution.port)}/{resolution.protocol}"
