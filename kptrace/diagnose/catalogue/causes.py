"""The catalogue of causes: stable id -> what is wrong, what follows from it, how to fix it. Pure.

A finding names its cause by one of these ids; the README's list, ``kptrace causes`` and the "So"
line of a report are made from this table. An id never changes its meaning and is never used again
for another one.
"""

from __future__ import annotations

from kptrace.diagnose.catalogue.cause import Cause
from kptrace.diagnose.catalogue.cluster_causes import DNS, OLDER, OPEN, SERVICE
from kptrace.diagnose.catalogue.limit_causes import LIMITS
from kptrace.diagnose.catalogue.node_causes import FORWARDING, NETFILTER, TUNNEL

__all__ = ["CAUSES", "FAMILIES", "Cause", "cause"]

FAMILIES = (SERVICE, NETFILTER, FORWARDING, TUNNEL, DNS, OLDER, LIMITS, OPEN)

CAUSES: dict[str, Cause] = {id: entry for family in FAMILIES for id, entry in family.items()}


def cause(id: str) -> Cause | None:
    """The entry of this id; None for one that a plugin made up and this catalogue lacks."""
    return CAUSES.get(id)
