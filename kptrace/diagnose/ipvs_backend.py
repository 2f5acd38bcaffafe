"""Which server IPVS chose, from what it had to choose, and who confirms it.

No rule trace shows the choice: IPVS is no rule. The proof is the entry that it leaves behind, in
conntrack or, with ``net.ipv4.vs.conntrack=0``, in its own table of connections: it says where the
answer is to come from.
"""

from __future__ import annotations

from itertools import islice

from msgspec.structs import replace

from kptrace.diagnose.probe_evidence import ProbeEvidence
from kptrace.model import Flow, Netns, RuleRef
from kptrace.simulate.netfilter.ipvs import choice_description, other_servers, service_name

MOST = 7  # others that are told


def confirmed(evidence: ProbeEvidence, node: str, old: Flow, new: Flow) -> str:
    """Who has it in a table that this packet was sent on so; empty: nobody."""
    for entry in evidence.entries:
        sent_on = (entry.reply.src, entry.reply.sport) == (new.dst, new.dport)
        if entry.netns.node == node and entry.original == old and sent_on:
            return "IPVS' connection table" if "IPVS" in entry.status else "conntrack"
    return ""


def told(
    evidence: ProbeEvidence, node: str, rule: RuleRef, by: str, client: str
) -> tuple[RuleRef, tuple[RuleRef, ...]]:
    """The server that was taken, and those that it was chosen from with what each had to carry."""
    snapshot = evidence.snapshots.get(Netns(node=node))
    for service in snapshot.virtual.values() if snapshot else ():
        if service_name(service) == rule.chain and service.family == rule.family:
            text = choice_description(service, rule.number, by, client)
            return replace(rule, description=text), tuple(
                islice(other_servers(service, rule), MOST)
            )
    return rule, ()
