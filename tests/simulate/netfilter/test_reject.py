"""A refusal is the node's own packet: what the node sends may be forbidden, too."""

from __future__ import annotations

from typing import Any

import pytest

from kptrace.model import NoteKind, Outcome

EMPTY = "10.96.0.52"  # REJECT, icmp-port-unreachable
RULE = "-A OUTPUT -m conntrack --ctstate NEW -j KUBE-SERVICES\n"
POLICY = ":OUTPUT ACCEPT [0:0]\n:KUBE-FORWARD"


@pytest.mark.parametrize(
    ("old", "new", "ends"),
    [
        (RULE, RULE, ""),
        (RULE, RULE + "-A OUTPUT -p icmp -j DROP\n", "filter OUTPUT 2 of node-a"),
        (RULE, RULE + "-A OUTPUT -p tcp -j DROP\n", ""),
        (RULE, RULE + "-A OUTPUT -d 10.244.2.0/24 -j DROP\n", ""),
        (
            RULE,
            RULE + "-A OUTPUT -o cni0 -j REJECT --reject-with icmp-host-prohibited\n",
            "filter OUTPUT 2 of node-a",
        ),
        (POLICY, POLICY.replace("ACCEPT", "DROP"), "filter OUTPUT policy of node-a"),
    ],
)
def test_whether_its_sender_hears_of_it(cluster: Any, old: str, new: str, ends: str) -> None:
    cluster.edit(cluster.a, old, new)
    (branch,) = cluster.ask(EMPTY).branches
    assert branch.outcome is Outcome.NO_ENDPOINTS
    assert branch.deterministic  # that the packet was refused
    expected = f"the sender may get no answer: {ends} drops the answer of the REJECT"
    assert branch.notes_of(NoteKind.REJECT_NOT_SENT) == ((expected,) if ends else ())


def test_it_is_related_to_the_connection(cluster: Any) -> None:
    """Of a host that lets out only what belongs to something."""
    cluster.edit(cluster.a, POLICY, POLICY.replace("ACCEPT", "DROP"))
    cluster.edit(cluster.a, RULE, RULE + "-A OUTPUT -m conntrack --ctstate RELATED -j ACCEPT\n")
    (branch,) = cluster.ask(EMPTY).branches
    assert branch.notes == ()
