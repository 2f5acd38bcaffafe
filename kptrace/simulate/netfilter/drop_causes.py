"""What a rule's drop or reject means: which cause of the catalogue, which object is to blame.

kube-proxy says in its comments (iptables) or in the names of its verdict maps and chains (nftables)
why it refuses; whatever else drops is a rule or a policy by its own name. A tunnel's packet that a
hook drops is the tunnel's matter.
"""

from __future__ import annotations

from kptrace.model import CauseId, Outcome
from kptrace.simulate.ip.skb import Skb
from kptrace.simulate.netfilter.hooks import PacketDropped
from kptrace.simulate.netfilter.ipvs import NO_SERVER
from kptrace.simulate.stages import Terminated

_NO_ENDPOINTS = ("no-endpoint-services", "no-endpoint-nodeports")


def drop_cause(killed: PacketDropped, skb: Skb) -> Terminated:
    """Return the end of a packet that a rule, a chain's policy or IPVS dropped."""
    ref = killed.ref
    if ref.backend == "ipvs":
        return _ipvs_cause(killed)
    object_name = f"{ref.table} {ref.chain} {ref.number or 'policy'}: {ref.text}"
    description = f"{ref.description or ref.text} ({ref.table} {ref.chain})"
    outcome, cause = _classify(killed, skb)
    return Terminated(outcome, cause, object_name, description)


def _ipvs_cause(killed: PacketDropped) -> Terminated:
    ref = killed.ref
    if ref.text == NO_SERVER:
        return Terminated(
            Outcome.NO_ENDPOINTS, CauseId.NO_ENDPOINTS, f"IPVS {ref.chain}", ref.description
        )
    return Terminated(
        Outcome.REJECTED, CauseId.IPVS_WEIGHT_ZERO, f"IPVS {ref.chain}", ref.description
    )


def _classify(killed: PacketDropped, skb: Skb) -> tuple[Outcome, CauseId]:
    refused = Outcome.REJECTED if killed.reply else Outcome.DROPPED
    if skb.packet.tunnel is not None:
        return refused, CauseId.TUNNEL_PORT_BLOCKED
    if killed.rule is None:
        return (
            refused,
            CauseId.FORWARD_POLICY_DROP if killed.hook == "forward" else CauseId.CHAIN_POLICY_DROP,
        )
    comment = killed.rule.comment
    if "has no local endpoints" in comment:
        return Outcome.DROPPED, CauseId.NO_LOCAL_ENDPOINTS
    if "has no endpoints" in comment:
        return Outcome.NO_ENDPOINTS, CauseId.NO_ENDPOINTS
    if any(name in _NO_ENDPOINTS for name in killed.via_map):
        if killed.reply:
            return Outcome.NO_ENDPOINTS, CauseId.NO_ENDPOINTS
        return Outcome.DROPPED, CauseId.NO_LOCAL_ENDPOINTS
    if killed.ref.chain == "KUBE-IPVS-FILTER":
        return Outcome.NOT_PROGRAMMED, CauseId.PROXY_RULES_MISSING
    if killed.ref.table == "kube-proxy" and killed.ref.chain == "cluster-ips-check":
        return Outcome.NOT_PROGRAMMED, CauseId.PROXY_RULES_MISSING
    from kptrace.rules.policy_chains import is_policy_chain  # few packets are killed

    if is_policy_chain(killed.ref.chain):
        return refused, CauseId.POLICY_DROP
    return refused, CauseId.RULE_REJECT if killed.reply else CauseId.RULE_DROP
