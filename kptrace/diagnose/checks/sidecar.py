"""A service mesh's sidecar: the pod's own rules hand the connection to a proxy in the same pod.

Istio's init container (and Linkerd's) writes nat rules into the pod's namespace: what the pod sends
is redirected to a port of 127.0.0.1 before it leaves (15001), what comes for it to another (15006);
the proxy's own user is left out, or it would go round. So the packet's way ends at the proxy; what
that sends on is a connection of its own, with an address that the proxy chose and not kube-proxy.

Source: istio/tools/istio-iptables, linkerd2-proxy-init.
"""

from __future__ import annotations

from collections.abc import Iterator

from kptrace.diagnose.chain_traversal import DNAT
from kptrace.diagnose.phrases import end, rule_name
from kptrace.diagnose.probe_evidence import ProbeEvidence
from kptrace.model import Finding, Flow, Netns, RuleRef

# what the chains of each mesh begin with, what is asked where it sends on
MESHES = {
    "ISTIO_": ("Istio", "istioctl proxy-config endpoints {pod}.{namespace}"),
    "PROXY_INIT_": ("Linkerd", "linkerd diagnostics endpoints ADDRESS:PORT"),
    "KUMA_": ("Kuma", ""),
}


def diagnose(evidence: ProbeEvidence) -> Iterator[Finding]:
    for netns, ref, flow, port in _redirects(evidence):
        yield _sidecar(evidence, netns, ref, flow, port)


def _redirects(evidence: ProbeEvidence) -> Iterator[tuple[Netns, RuleRef, Flow, int]]:
    """As the rule trace told it in a pod; without one, as the pod's rules were read: where, which
    rule, the packet, and the port that it goes to (0: not known).
    """
    traced = False
    for traversal in evidence.passages:
        redirect = traversal.nat_rule(*DNAT) if traversal.place.pod else None
        if redirect is not None and traversal.packet is not None:
            traced = True
            yield traversal.place, redirect[0].ref, traversal.packet.flow, redirect[0].redirected
    if traced or evidence.branch is None:
        return
    for step in evidence.branch.steps:
        if step.action == "dnat" and step.netns.pod and step.rule and step.rule.backend != "bpf":
            flow = step.packet.innermost.flow
            yield step.netns, step.rule, flow, flow.dport


def _sidecar(evidence: ProbeEvidence, netns: Netns, ref: RuleRef, flow: Flow, port: int) -> Finding:
    mesh, ask = next(
        (known for start, known in MESHES.items() if ref.chain.startswith(start)), ("", "")
    )
    namespace, _, pod = netns.pod.partition("/")
    whose = f"{mesh}'s sidecar" if mesh else "a proxy in the pod"
    if netns == evidence.source.netns:
        to = (
            end(evidence.final.dst, evidence.final.dport) if evidence.final else "a port of its own"
        )
        summary = (
            f"pod {netns.pod} hands what it sends to {whose} ({to}), which opens a connection of "
            "its own to a backend of its choice"
        )
    else:
        to = f"port {port}" if port else "another port"
        summary = (
            f"pod {netns.pod} hands what comes for it to {whose} ({to}), which passes it on to "
            "the application or not"
        )
    return Finding(
        cause="sidecar",
        severity="info",
        node=netns.node,
        object=f"pod {netns.pod}: {rule_name(ref)}",
        summary=summary,
        evidence=(f"rule in the pod's own namespace: {rule_name(ref)}: {ref.text}",),
        remedy=(f"{ask.format(pod=pod, namespace=namespace)}  # where the proxy sends",)
        if ask
        else (),
    )
