"""Find the packet fields that ``src,dst`` of an ipset match or target means, by the set's type."""

from __future__ import annotations

from collections.abc import Sequence

from kptrace.rules.iptables.options import Context, field
from kptrace.rules.model.expressions import Concat, Expr, UnknownExpr


def ipset_key(context: Context, name: str, directions: Sequence[str]) -> Expr:
    """The key that is looked up in set ``name``: a direction for each dimension (ipset(8)).

    With fewer directions than dimensions nothing is in the set (ip_set_test returns 0): the key is
    then too short to be found. If the set was not read, the key is an UnknownExpr.
    """
    ipset = context.ipset(name)
    dimensions = ipset.type if ipset else ()
    if not dimensions:
        return UnknownExpr(text=",".join(directions))
    parts: list[Expr] = []
    index_of_direction = 0
    for index, kind in enumerate(dimensions):
        if index_of_direction == len(directions):
            break
        if kind == "inet_proto" and dimensions[index + 1 : index + 2] == ("inet_service",):
            parts.append(field("meta l4proto"))
            continue  # protocol and port are one dimension of an ipset
        parts.append(_dimension(kind, directions[index_of_direction]))
        index_of_direction += 1
    return parts[0] if len(parts) == 1 else Concat(parts=tuple(parts))


def _dimension(kind: str, side: str) -> Expr:
    source = side == "src"
    match kind:
        case "ipv4_addr" | "ipv6_addr":
            # a set of the other family never holds the packet's address
            family = "ip" if kind == "ipv4_addr" else "ip6"
            return field(f"{family} saddr" if source else f"{family} daddr")
        case "inet_service":
            return field("th sport" if source else "th dport")
        case "ifname":
            return field("meta iifname" if source else "meta oifname")
        case "mark":
            return field("meta mark")
        case "ether_addr":
            return field("ether saddr" if source else "ether daddr")
        case _:
            return UnknownExpr(text=f"{kind} {side}")
