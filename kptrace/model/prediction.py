"""What the rules imply: steps, branches, the predicted outcome."""

from __future__ import annotations

from enum import StrEnum
from typing import Literal

from kptrace.model.base import Value
from kptrace.model.causes import CauseId
from kptrace.model.cluster import Endpoint
from kptrace.model.netns import Netns
from kptrace.model.packet import Packet


class RuleRef(Value):
    """A rule that matched. ``number`` is its 1-based place in the chain, 0 the chain's policy."""

    backend: Literal["legacy", "nft", "ipvs", "bpf"]
    family: str
    table: str
    chain: str
    number: int
    text: str
    description: str = ""


class Outcome(StrEnum):
    """What became of the packet."""

    DELIVERED = "delivered"
    REFUSED = "refused"
    REJECTED = "rejected"
    DROPPED = "dropped"
    NO_ENDPOINTS = "no-endpoints"
    NOT_PROGRAMMED = "not-programmed"
    UNRESOLVED = "unresolved"
    INCONCLUSIVE = "inconclusive"


StepAction = Literal[
    "sent",
    "seen",
    "rule",
    "mark",
    "dnat",
    "snat",
    "route",
    "neighbour",
    "encap",
    "decap",
    "delivered",
    "rejected",
    "dropped",
    "reply",
]


class SimulatedStep(Value):
    """One thing that is done to the packet by the snapshots, and the packet afterwards.

    action: ``seen`` is a crossing of ``interface`` in ``direction`` at which a capture would show
    it
    deterministic: false from the first match on that cannot be evaluated, and while the packet's
    mark
        is one that cannot be computed
    """

    netns: Netns
    action: StepAction
    packet: Packet
    interface: str = ""
    direction: Literal["", "in", "out"] = ""
    hook: str = ""
    rule: RuleRef | None = None
    description: str = ""
    deterministic: bool = True


class NoteKind(StrEnum):
    """What a note of a simulated branch is about."""

    REJECT_NOT_SENT = "reject-not-sent"  # OUTPUT drops the answer of a REJECT rule
    NEW_CLIENT_ASSUMED = "new-client-assumed"  # affinity and recent lists are in no dump
    NOT_EVALUATED = "not-evaluated"  # a rule or statement that the simulation cannot evaluate
    NAT_ORDER_UNKNOWN = "nat-order-unknown"  # two nat tables would translate the packet
    NEIGHBOUR_UNKNOWN = "neighbour-unknown"  # nobody known answers for the next hop
    BPF_NOT_READ = "bpf-not-read"  # a BPF program decides, and it is not read


class BranchNote(Value):
    """A remark on a simulated branch: what limits it, or what happens beside the packet's path."""

    kind: NoteKind
    text: str


class Branch(Value):
    """One way the packet can go.

    weight: its probability; the weights of all branches sum to 1
    deterministic: false where a match was guessed that cannot be evaluated
    cause: what ends an undelivered branch, where the simulation itself knows it
    object: what is to blame for that (a rule, a route, a sysctl), for findings
    description: how the branch ends, in plain English
    notes: what limits the answer, in the order in which it was met
    """

    weight: float
    steps: tuple[SimulatedStep, ...]
    outcome: Outcome
    deterministic: bool = True
    backend: Endpoint | None = None
    cause: CauseId | None = None
    object: str = ""
    description: str = ""
    notes: tuple[BranchNote, ...] = ()

    @property
    def full_description(self) -> str:
        """The description and the notes in one line, for people."""
        texts = (self.description, *(note.text for note in self.notes))
        return "; ".join(text for text in texts if text)

    def notes_of(self, kind: NoteKind) -> tuple[str, ...]:
        """The texts of the notes of one kind."""
        return tuple(note.text for note in self.notes if note.kind is kind)


class Prediction(Value):
    """All branches, the likeliest first."""

    branches: tuple[Branch, ...] = ()
    missing: tuple[str, ...] = ()
