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
    """What became of the packet (DESIGN section 2)."""

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
    """One thing that the snapshots say will be done to the packet, and the packet afterwards.

    ``seen`` is a crossing of ``interface`` in ``direction`` at which a capture would show it.
    ``deterministic`` is false from the first match on that nobody here can evaluate, and while the
    packet's mark is one that nobody here can compute.
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


class Branch(Value):
    """One way the packet can go. ``weight`` is its probability; the weights of all sum to 1.

    blame: the object that ends an undelivered branch (a rule, a route, a sysctl), for findings;
    cause: the stable id of what that is, where the walk itself knows it (``ip-forward-off``).
    """

    weight: float
    steps: tuple[SimulatedStep, ...]
    outcome: Outcome
    deterministic: bool = True
    backend: Endpoint | None = None
    cause: CauseId | None = None
    object: str = ""
    description: str = ""


class Prediction(Value):
    """All branches, the likeliest first."""

    branches: tuple[Branch, ...] = ()
    missing: tuple[str, ...] = ()
