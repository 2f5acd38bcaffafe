"""Denials in a Service's ways in: what a policy wants is told, and is a fault only by request.

Rules of a real kube-proxy, with a pod's chain beside them as Felix writes it.
"""

from __future__ import annotations

from render.explanations import IPTABLES, OUTSIDE, Case, explained

from kptrace.cli.explain_request import exit_code
from kptrace.model import Explanation, Outcome, ServiceEntrypoint
from kptrace.render.explain import explain as text_of

BACKENDS = ("10.244.1.11", "10.244.1.12", "10.244.2.11")
CHAINS = """:cali-tw-cali1 - [0:0]
:cali-pi-_a - [0:0]
{dispatch}-A cali-tw-cali1 -m comment --comment "cali:1" -m comment --comment "Start of tier default" -j MARK --set-xmark 0x0/0x20000
-A cali-tw-cali1 -m comment --comment "cali:2" -m mark --mark 0x0/0x20000 -j cali-pi-_a
-A cali-tw-cali1 -m comment --comment "cali:3" -m mark --mark 0x10000/0x10000 -j RETURN
-A cali-tw-cali1 -m comment --comment "cali:4" -m comment --comment "End of tier default. Drop if no policies passed packet" -j DROP
-A cali-pi-_a -s 172.30.0.0/24 -m comment --comment "cali:5" -m comment --comment "KubernetesNetworkPolicy default/web-from-nodes ingress" -j MARK --set-xmark 0x10000/0x10000
"""  # noqa: E501
NAME = "NetworkPolicy default/web-from-nodes, tier default"


def denying(*backends: str, rule: str = "") -> Case:
    """These backends' pods are on this node, and selected by the policy."""
    dispatch = "".join(f"-I FORWARD -d {one}/32 -g cali-tw-cali1\n" for one in backends)

    def edit(text: str) -> str:
        if "10.96.1." not in text:  # the other family's
            return text
        head, mark, rest = text.partition("*filter\n")
        body, end, after = rest.partition("COMMIT")
        chains = CHAINS.format(dispatch=dispatch.replace("-I", "-A"))
        first = body.index("-A ")
        return f"{head}{mark}{body[:first]}{chains}{rule}{body[first:]}{end}{after}"

    return Case(IPTABLES, edit)


def ways(made: Explanation, kind: str = "clusterIP") -> dict[str, ServiceEntrypoint]:
    return {one.sender: one for port in made.ports for one in port.entries if one.kind == kind}


def test_what_a_policy_wants_is_no_fault() -> None:
    made = explained("web", denying(*BACKENDS))
    (told,) = (one for one in made.findings if one.cause == "policy-drop")
    assert (told.severity, told.node, told.object) == ("info", "node-a", NAME)
    assert told.evidence[0].startswith("for default/web, from a pod (10.244.1.254) by ")
    assert "filter cali-tw-cali1 4: " in told.evidence[1]
    assert exit_code(made) == 0
    assert {one.sender: one.denied_by for one in ways(made).values()} == {
        "pod": NAME,
        "node": "",  # the node itself does not pass FORWARD
        "outside": NAME,
    }
    assert ways(made)["pod"].outcome is Outcome.DROPPED
    assert ways(made)["node"].outcome is Outcome.DELIVERED


def test_who_asks_for_one_sender_asks_why() -> None:
    made = explained("web", denying(*BACKENDS), OUTSIDE)
    (told,) = (one for one in made.findings if one.cause == "policy-drop")
    assert (told.severity, told.object) == ("error", NAME)
    assert "admit TCP port 8080 from 198.51.100.9 in a policy that selects the pod" in told.remedy
    assert exit_code(made) == 1


def test_it_is_said_for_which_backends() -> None:
    """Another node's backends have their policies there."""
    made = explained("web", denying("10.244.1.11"))
    assert ways(made)["pod"].description == "for 1 of 3 backends: 10.244.1.11:8080"
    assert ways(explained("web", denying(*BACKENDS)))["pod"].description == ""


def test_a_policy_hides_no_fault() -> None:
    """A rule that is no policy's drops another backend; and one is stale."""
    rule = "-A FORWARD -d 10.244.1.12/32 -j DROP\n"
    made = explained("web", denying("10.244.1.11", rule=rule))
    assert {one.cause for one in made.findings if one.severity == "error"} == {"rule-drop"}
    case = denying(*BACKENDS)
    edit = case._edit
    case._edit = lambda text: edit(text).replace("10.244.2.11:8080", "10.244.2.77:8080")
    assert {one.cause for one in explained("web", case).findings if one.severity == "error"} == {
        "endpoint-missing",
        "stale-dnat",
    }


def test_the_text() -> None:
    text = text_of(explained("web", denying(*BACKENDS)))
    assert text.splitlines()[0].endswith("DELIVERED where policies admit it")
    flat = " ".join(text.split())
    assert f"from a pod (10.244.1.254), outside (203.0.113.7) DENIED by {NAME}" in flat
    assert "no fault where that is wanted" in flat
    asked = text_of(explained("web", denying(*BACKENDS), OUTSIDE))
    assert asked.splitlines()[0].endswith("DENIED by a policy")
    assert "does not admit 8080/TCP" in " ".join(asked.split())
