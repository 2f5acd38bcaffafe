"""A NetworkPolicy denied it: rules as nodes with Calico (three generations) and kube-router hold
them, taken from what people posted of theirs; only names and addresses are the test's.
"""

from __future__ import annotations

import json
from typing import Any

import pytest

from kptrace.diagnose.checks import filter_rules, network_policy
from kptrace.diagnose.diagnose import _outcome
from kptrace.model import Branch, Endpoint, Flow, Netns, Outcome, Packet, RuleRef, SimulatedStep

A, B = Netns(node="a"), Netns(node="b")
DNATED = Flow(protocol="tcp", src="10.244.1.10", sport=40000, dst="10.244.2.20", dport=8080)
SYN = Packet(flow=DNATED, flags="S", seq=0x4000_0000)

POD = "cali-tw-calicd14548c312"
CALICO = """*filter
:FORWARD ACCEPT [0:0]
:cali-FORWARD - [0:0]
:cali-to-wl-dispatch - [0:0]
:{pod} - [0:0]
:cali-pi-_qA9lGysOzwIsyVf0V23 - [0:0]
:cali-pi-_second - [0:0]
-A FORWARD -m comment --comment "cali:wUHhoiAYhphO9Mso" -j cali-FORWARD
-A cali-FORWARD -o cali+ -m comment --comment "cali:hkgP" -j cali-to-wl-dispatch
-A cali-to-wl-dispatch -o calicd14548c312 -m comment --comment "cali:x" -g {pod}
-A {pod} -m comment --comment "cali:1" -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A {pod} -m comment --comment "cali:2" -m comment --comment "{begins}" -j MARK --set-xmark 0x0/0x20000
-A {pod} -m comment --comment "cali:3" -m mark --mark 0x0/0x20000 -j cali-pi-_qA9lGysOzwIsyVf0V23
-A {pod} -m comment --comment "cali:4" -m mark --mark 0x0/0x20000 -j cali-pi-_second
-A {pod} -m comment --comment "cali:5" -m comment --comment "{ends}" -m mark --mark 0x0/0x20000 -j DROP
-A {pod} -m comment --comment "cali:6" -m comment --comment "Drop if no profiles matched" -j DROP
-A cali-pi-_qA9lGysOzwIsyVf0V23 -m comment --comment "cali:7" {first} -m set --match-set cali40s:a src -j MARK --set-xmark 0x10000/0x10000
-A cali-pi-_second -m comment --comment "cali:8" {second}
-A cali-pi-_second -s 10.244.1.0/24 -m comment --comment "cali:9" -j DROP
COMMIT
"""  # noqa: E501
END_OF_TIER = (
    ("filter", "FORWARD", 1, "jump"),
    ("filter", "cali-FORWARD", 1, "jump"),
    ("filter", "cali-to-wl-dispatch", 1, "goto"),
    ("filter", POD, 2, "continue"),
    ("filter", POD, 3, "jump"),
    ("filter", POD, 4, "jump"),
    ("filter", "cali-pi-_second", 1, "continue"),
    ("filter", POD, 5, "drop"),
)


def said(text: str) -> str:
    return f'-m comment --comment "{text}"' if text else ""


def calico(begins: str, ends: str, first: str, second: str) -> dict[Netns, dict[str, str]]:
    text = CALICO.format(pod=POD, begins=begins, ends=ends, first=said(first), second=said(second))
    return {B: {"iptables-nft-save.txt": text}}


GENERATIONS = {
    "2020": (
        calico("Start of policies", "Drop if no policies passed packet", "", ""),
        "policy chain cali-pi-_qA9lGysOzwIsyVf0V23, policy chain cali-pi-_second",
        "kubectl get networkpolicy -A",
    ),
    "2024": (
        calico(
            "Start of tier default",
            "Drop if no policies passed packet",
            "Policy team-b/knp.default.from-other-ns ingress",
            "Policy default.closed ingress",
        ),
        "NetworkPolicy team-b/from-other-ns, Calico GlobalNetworkPolicy default.closed,"
        " tier default",
        "kubectl get networkpolicy from-other-ns -n team-b -o yaml",
    ),
    "2026": (
        calico(
            "Start of tier default",
            "End of tier default. Drop if no policies passed packet",
            "KubernetesNetworkPolicy team-b/from-other-ns ingress",
            "NetworkPolicy team-b/second ingress",
        ),
        "NetworkPolicy team-b/from-other-ns, Calico NetworkPolicy team-b/second, tier default",
        "kubectl get networkpolicies.projectcalico.org second -n team-b -o yaml",
    ),
}


def only(found: Any) -> Any:
    findings = tuple(found)
    assert len(findings) == 1, findings
    return findings[0]


@pytest.mark.parametrize("generation", GENERATIONS)
def test_nobody_admits_it(probe: Any, generation: str) -> None:
    files, object, remedy = GENERATIONS[generation]
    case = probe(7, told=probe.hits(B, SYN, *END_OF_TIER), files=files)
    found = only(network_policy.diagnose(case))
    assert (found.cause, found.node, found.object) == ("policy-drop", "b", object)
    assert any(line.startswith(remedy) for line in found.remedy)
    assert "admit TCP port 8080 from 10.244.1.10 in a policy that selects the pod" in found.remedy
    assert "policies see 10.244.1.10:40000 > 10.244.2.20:8080 (TCP)" in found.evidence
    assert "pod shop/web-1" in found.summary
    assert "8080/TCP" in found.summary


def test_a_policy_denies_it_itself(probe: Any) -> None:
    files, _, _ = GENERATIONS["2026"]
    steps = (*END_OF_TIER[:-1], ("filter", "cali-pi-_second", 2, "drop"))
    found = only(network_policy.diagnose(probe(7, told=probe.hits(B, SYN, *steps), files=files)))
    assert found.object == "Calico NetworkPolicy team-b/second, tier default"
    assert "denies 8080/TCP" in found.summary
    assert not any("admit " in line for line in found.remedy)


def test_no_policy_at_all_but_a_profile(probe: Any) -> None:
    files, _, _ = GENERATIONS["2026"]
    steps = (*END_OF_TIER[:3], ("filter", POD, 6, "drop"))
    found = only(network_policy.diagnose(probe(7, told=probe.hits(B, SYN, *steps), files=files)))
    assert found.object == f"filter {POD} 6"
    assert "no policy selects pod shop/web-1, and its profile" in found.summary


def test_what_else_drops_in_a_pods_chain_is_no_policy(probe: Any) -> None:
    text = f"""*filter
:FORWARD ACCEPT [0:0]
:{POD} - [0:0]
-A FORWARD -g {POD}
-A {POD} -m comment --comment "cali:2" -m conntrack --ctstate INVALID -j DROP
COMMIT
"""
    steps = (("filter", "FORWARD", 1, "goto"), ("filter", POD, 1, "drop"))
    told = probe.hits(B, SYN, *steps)
    case = probe(7, told=told, files={B: {"iptables-nft-save.txt": text}})
    assert not tuple(network_policy.diagnose(case))
    assert only(filter_rules.diagnose(case)).cause == "rule-drop"


def test_names_that_are_commands_are_no_names(probe: Any) -> None:
    files = calico(
        "Start of tier default",
        "End of tier default. Drop if no policies passed packet",
        "KubernetesNetworkPolicy x/$(reboot) ingress",
        "NetworkPolicy a/b;reboot ingress",
    )
    found = only(
        network_policy.diagnose(probe(7, told=probe.hits(B, SYN, *END_OF_TIER), files=files))
    )
    assert "reboot" not in found.object
    assert not any("reboot" in line for line in found.remedy)


# --- kube-router ----------------------------------------------------------------------------------

FIREWALL = "KUBE-POD-FW-24CAQJ4LYSAY3PHB"
KUBE_ROUTER = f"""*filter
:FORWARD ACCEPT [0:0]
:KUBE-ROUTER-FORWARD - [0:0]
:{FIREWALL} - [0:0]
:KUBE-NWPLCY-5VLCZNPWIAXAL2HB - [0:0]
-A FORWARD -j KUBE-ROUTER-FORWARD
-A KUBE-ROUTER-FORWARD -d 10.244.2.20/32 -j {FIREWALL}
-A {FIREWALL} -d 10.244.2.20/32 -m comment --comment "run through nw policy argocd-network-policy" -j KUBE-NWPLCY-5VLCZNPWIAXAL2HB
-A {FIREWALL} -m comment --comment "rule to log dropped traffic POD name:web-1 namespace: shop" -m mark ! --mark 0x10000/0x10000 -m limit --limit 10/min --limit-burst 10 -j NFLOG --nflog-group 100
-A {FIREWALL} -m comment --comment "rule to REJECT traffic destined for POD name:web-1 namespace: shop" -m mark ! --mark 0x10000/0x10000 -j REJECT --reject-with icmp-port-unreachable
COMMIT
"""  # noqa: E501


def test_kube_router_rejects(probe: Any) -> None:
    hits = probe.hits(
        B,
        SYN,
        ("filter", "FORWARD", 1, "jump"),
        ("filter", "KUBE-ROUTER-FORWARD", 1, "jump"),
        ("filter", FIREWALL, 1, "jump"),
        ("filter", FIREWALL, 2, "continue"),
        ("filter", FIREWALL, 3, "drop"),
    )
    case = probe(7, told=hits, files={B: {"iptables-nft-save.txt": KUBE_ROUTER}}, result="refused")
    found = only(network_policy.diagnose(case))
    assert (found.cause, found.node) == ("policy-drop", "b")
    assert found.object == "NetworkPolicy shop/argocd-network-policy"
    assert "does not admit 8080/TCP that pod shop/web-1 receives" in found.summary
    assert _outcome(case, found) is Outcome.REJECTED


# --- without a rule trace -------------------------------------------------------------------------


def test_the_rules_that_were_read_say_it_too(probe: Any) -> None:
    files, object, _ = GENERATIONS["2026"]
    texts = [
        line.partition(f"-A {POD} ")[2] for line in files[B]["iptables-nft-save.txt"].split("\n")
    ]
    own = [text for text in texts if text]
    steps = [
        SimulatedStep(
            netns=B,
            action="rule",
            packet=SYN,
            hook="forward",
            rule=RuleRef(
                backend="nft", family="ip", table="filter", chain=POD, number=n, text=own[n - 1]
            ),
        )
        for n in (2, 3, 4, 5)
    ]
    end = SimulatedStep(netns=B, action="dropped", packet=SYN)
    branch = Branch(
        weight=1.0,
        steps=(*steps, end),
        outcome=Outcome.DROPPED,
        cause="policy-drop",
        backend=Endpoint(address="10.244.2.20", port=8080),
    )
    found = only(network_policy.diagnose(probe(7, files=files, branch=branch)))
    assert (found.cause, found.node, found.object) == ("policy-drop", "b", object)
    assert found.evidence[0].startswith(f"by the rules that were read: filter {POD} 5: ")


# --- Felix in nftables mode -----------------------------------------------------------------------


def nft(*told: dict[str, Any]) -> dict[Netns, dict[str, str]]:
    return {B: {"nft-ruleset.json": json.dumps({"nftables": list(told)})}}


def nft_rule(chain: str, handle: int, comment: str, *expr: dict[str, Any]) -> dict[str, Any]:
    where = {"family": "ip", "table": "calico", "chain": chain, "handle": handle}
    return {"rule": {**where, "comment": comment, "expr": list(expr)}}


def test_felix_in_nftables_mode(probe: Any) -> None:
    """One table of its own; the comments of a rule stand behind its hash (felix/nftables)."""
    base, pod, own = "filter-FORWARD", "filter-cali-tw-calicd14548c312", "filter-cali-pi-_a"
    chains = [
        {"chain": {"family": "ip", "table": "calico", "name": name, "handle": n}}
        for n, name in enumerate((pod, own), 3)
    ]
    hook = {"type": "filter", "hook": "forward", "prio": 0, "policy": "accept"}
    first = {"chain": {"family": "ip", "table": "calico", "name": base, "handle": 2, **hook}}
    files = nft(
        {"table": {"family": "ip", "name": "calico", "handle": 1}},
        first,
        *chains,
        nft_rule(base, 10, "cali:w", {"goto": {"target": pod}}),
        nft_rule(pod, 11, "cali:a; Start of tier default", {"counter": None}),
        nft_rule(pod, 12, "cali:b", {"jump": {"target": own}}),
        nft_rule(
            pod,
            13,
            "cali:c; End of tier default. Drop if no policies passed packet",
            {"drop": None},
        ),
        nft_rule(own, 14, "cali:d; KubernetesNetworkPolicy shop/closed ingress", {"counter": None}),
    )
    hits = probe.hits(
        B,
        SYN,
        ("calico", base, 1, "goto"),
        ("calico", pod, 1, "continue"),
        ("calico", pod, 2, "jump"),
        ("calico", own, 1, "continue"),
        ("calico", pod, 3, "drop"),
    )
    found = only(network_policy.diagnose(probe(7, told=hits, files=files)))
    assert (found.cause, found.object) == (
        "policy-drop",
        "NetworkPolicy shop/closed, tier default",
    )
