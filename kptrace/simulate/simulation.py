"""The simulation of one branch: one packet through the topology, and what is noted on the way.

It holds what all stages share: the topology, the choices of this branch, each namespace's netfilter
with its connections, the steps so far. The stages themselves are in ``simulate/ip``,
``simulate/tunnels`` and ``simulate/bpf``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from kptrace.model import (
    BranchNote,
    CauseId,
    Flow,
    Netns,
    NoteKind,
    Outcome,
    SimulatedStep,
    StepAction,
)
from kptrace.simulate.branching import BranchPoints
from kptrace.simulate.ip.routing import RouteLookupResult
from kptrace.simulate.ip.skb import Skb
from kptrace.simulate.netfilter.drop_causes import drop_cause
from kptrace.simulate.netfilter.hooks import Netfilter, PacketDropped
from kptrace.simulate.snapshot.network import Nexthop
from kptrace.simulate.snapshot.snapshot import Snapshot
from kptrace.simulate.stages import Terminated
from kptrace.simulate.topology import Topology

if TYPE_CHECKING:
    from kptrace.simulate.snapshot.unread_rules import UnreadRules


class Simulation:
    """One branch.

    asked: the flow that is asked about
    sent_flow: that flow, with the source that was chosen
    replying: whether the answer is under way
    steps, notes, missing: what the branch will report
    bypassed: sysctls of bridges that a frame crossed without netfilter
    """

    def __init__(self, topology: Topology, choices: BranchPoints, asked: Flow) -> None:
        self.topology = topology
        self.choices = choices
        self.asked = asked
        self.steps: list[SimulatedStep] = []
        self.notes: list[BranchNote] = []
        self.missing: list[str] = []
        self.bypassed: list[str] = []
        self.replying = False
        self.sent_flow = asked
        self._netfilter: dict[Netns, Netfilter] = {}

    def at(self, skb: Skb) -> Snapshot:
        """Return the snapshot of the namespace that the packet is in."""
        return self.topology.snapshots[skb.netns]

    def add_note(self, kind: NoteKind, text: str) -> None:
        """Add a note to the branch, once."""
        note = BranchNote(kind=kind, text=text)
        if note not in self.notes:
            self.notes.append(note)

    def note_missing(self, what: str) -> None:
        """Name something that was not read, once."""
        if what not in self.missing:
            self.missing.append(what)

    def netfilter(self, netns: Netns) -> Netfilter:
        """Return the netfilter of a namespace, with the connections that it has seen in this
        branch.
        """
        if netns not in self._netfilter:
            snapshot = self.topology.snapshots[netns]
            # a pod's own rulesets are dumped only where something is known to write them; sets and
            # IPVS that are missing are told where a rule or an address would have needed them
            rules = {"ip6tables-save.txt" if self.asked.ipv6 else "iptables-save.txt"}
            rules = set() if netns.pod else rules | {"nft-ruleset.json"}
            lacking = [name for name in snapshot.ruleset.missing if name in rules]
            for name in (*snapshot.missing, *lacking):
                self.note_missing(f"{netns.node}/{netns.name}: {name}")
            self._netfilter[netns] = Netfilter(
                snapshot, self.choices, self.steps.append, self.add_note
            )
        return self._netfilter[netns]

    def hook(self, name: str, skb: Skb) -> bool:
        """Run a hook. Raises Terminated with the cause where it drops the packet.

        Returns True where IPVS took the packet and it is to be sent by its new destination.
        """
        ended = self.netfilter(skb.netns).run(name, skb)
        if isinstance(ended, PacketDropped):
            self._follow_refusal(ended, skb)
            raise drop_cause(ended, skb)
        return ended is not None

    def _follow_refusal(self, killed: PacketDropped, skb: Skb) -> None:
        if not killed.reply:
            return
        from kptrace.simulate.netfilter.reject import (  # few packets are refused
            output_drop,
        )

        ref = output_drop(self.at(skb), skb, killed.reply)
        if ref is not None:
            rule = f"{ref.table} {ref.chain} {ref.number or 'policy'} of {skb.netns.node}"
            self.add_note(
                NoteKind.REJECT_NOT_SENT,
                f"the sender may get no answer: {rule} drops the answer of the REJECT",
            )

    def add_step(
        self,
        action: StepAction,
        skb: Skb,
        interface: str = "",
        direction: str = "",
        hook: str = "",
        description: str = "",
    ) -> None:
        """Add a step that shows the packet as it is now."""
        self.steps.append(
            SimulatedStep(
                netns=skb.netns,
                action=action,
                packet=skb.packet,
                interface=interface,
                direction=direction,  # type: ignore[arg-type]
                hook=hook,
                description=description,
                deterministic=self.choices.certain and not skb.unknown_mark,
            )
        )

    def end(
        self,
        skb: Skb,
        outcome: Outcome,
        cause: CauseId | None,
        object_name: str,
        description: str,
        interface: str = "",
    ) -> Terminated:
        """Add the step at which the packet ends, and return the Terminated to raise.

        An inconclusive end adds no step and makes the branch uncertain.
        """
        if outcome is Outcome.INCONCLUSIVE:
            self.choices.certain = False
        else:
            rejected = outcome in (Outcome.REJECTED, Outcome.NO_ENDPOINTS)
            self.add_step(
                "rejected" if rejected else "dropped",
                skb,
                interface or skb.iif,
                description=description,
            )
        return Terminated(outcome, cause, object_name, description)

    def unread_rules(self, skb: Skb) -> UnreadRules | None:
        """Return what must be read of the node's rules before an absence of one is known."""
        from kptrace.simulate.snapshot.unread_rules import unread_rules  # few packets need it

        node = self.topology.snapshots.get(Netns(node=skb.netns.node), self.at(skb))
        return unread_rules(node, skb.family)

    def untranslated(
        self, skb: Skb, object_name: str, description: str, interface: str = ""
    ) -> Terminated:
        """End a packet to a Service that no rule translated: a fault only where all rules that
        could do it were read.
        """
        unread = self.unread_rules(skb)
        if unread:
            text = f"no rule that was read translates {object_name}; {unread.description}"
            return self.end(skb, Outcome.INCONCLUSIVE, None, object_name, text)
        cause = CauseId.PROXY_RULES_MISSING
        return self.end(skb, Outcome.NOT_PROGRAMMED, cause, object_name, description, interface)

    def pick_hop(self, skb: Skb, decision: RouteLookupResult) -> Nexthop:
        """Choose one of the route's nexthops, by weight."""
        if not decision.certain:
            self.choices.certain = False
            self.add_note(
                NoteKind.NOT_EVALUATED, f"an ip rule of {skb.netns.node} cannot be evaluated"
            )
        hops = decision.nexthops
        return hops[self.choices.pick([float(hop.weight) for hop in hops])]
