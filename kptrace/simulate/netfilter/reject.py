"""Whether the answer of a REJECT leaves: it is the host's own packet, and passes its OUTPUT.

The answer belongs to the connection of the packet that it is about: RELATED, in the other direction
(nf_reject_ipv4.c and nf_conntrack_attach, net/netfilter). Its mark is 0.
"""

from __future__ import annotations

import copy

from kptrace.model import Flow, Packet, RuleRef
from kptrace.model.family import Family
from kptrace.simulate.branching import BranchPoints, enumerate_branches
from kptrace.simulate.ip.routing import RouteQuery, interface_address, lookup
from kptrace.simulate.ip.skb import Skb
from kptrace.simulate.netfilter.conntrack import SkbConntrack
from kptrace.simulate.netfilter.hooks import Netfilter, PacketDropped
from kptrace.simulate.snapshot.snapshot import Snapshot

RESET = "tcp reset"
_BRANCH_LIMIT = 16


def output_drop(snapshot: Snapshot, skb: Skb, reply: str) -> RuleRef | None:
    """Return the rule or policy of OUTPUT that drops the answer of a REJECT; None: none known.

    skb: the packet that was rejected; reply: what REJECT answers (``tcp reset``)
    """
    if not skb.flow.src or not skb.flow.dst:
        return None  # from rules alone: nobody knows which way the answer goes
    chains = snapshot.ruleset.base_chains(skb.family, "output")
    if all(chain.policy == "accept" and not len(chain.rules) for chain in chains):
        return None
    answer = _answer(snapshot, skb, reply)

    def walk(choices: BranchPoints) -> PacketDropped | None:
        there = Netfilter(snapshot, choices, lambda step: None, lambda kind, text: None)
        ended = there.run("output", copy.deepcopy(answer))
        return ended if isinstance(ended, PacketDropped) else None

    ways, _ = enumerate_branches(walk, _BRANCH_LIMIT)
    return next((way.result.ref for way in ways if way.result is not None), None)


def _answer(snapshot: Snapshot, skb: Skb, reply: str) -> Skb:
    flow = skb.flow.reverse
    if reply != RESET:
        ipv4 = skb.family is Family.IPV4
        own = interface_address(snapshot, skb.iif) if skb.iif and ipv4 else ""
        flow = Flow(protocol=skb.family.icmp, src=own or flow.src, dst=flow.dst)
    decision = lookup(snapshot, RouteQuery(flow=flow, mark=0))
    hop = decision.nexthops[0] if decision.nexthops else None
    tracked = skb.tracked and SkbConntrack(
        copy.deepcopy(skb.tracked.connection),
        "reply" if skb.tracked.direction == "original" else "original",
        related=True,
    )
    return Skb(
        netns=skb.netns,
        packet=Packet(flow=flow, flags="R" if reply == RESET else "", ttl=64),
        oif="lo" if decision.local else hop.interface if hop else "",
        hop=hop,
        tracked=tracked,
        untracked=skb.untracked,
    )
