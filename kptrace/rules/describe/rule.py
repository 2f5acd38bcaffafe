"""Describe one rule in a short English phrase: ``describe(rule)``.

Rules of kube-proxy, Flannel and Calico are recognised by the names of their chains and by
kube-proxy's comments (proxier.go of each mode); any other rule is described by what it does and why
it matched: ``marks it for masquerade because the source is outside 10.244.0.0/16``. Comments and
names are untrusted data: they are quoted, never interpreted.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from kptrace.rules.describe.chain import CALICO, CHAINS, MAPS
from kptrace.rules.describe.match import (
    chance_text,
    explain_condition,
    explain_match,
    hex_text,
    value_text,
)
from kptrace.rules.kubeproxy.chain_names import read_nftables_name
from kptrace.rules.model.expressions import (
    AnonymousMap,
    BitwiseExpr,
    Comparison,
    Concat,
    Const,
    Dnat,
    Expr,
    Field,
    Hash,
    Log,
    MapLookup,
    Masquerade,
    NoEffect,
    NoTrack,
    NumGen,
    Part,
    RandomMatch,
    Recent,
    Redirect,
    Reject,
    SetField,
    SetRef,
    SetUpdate,
    Snat,
    Tproxy,
    UnknownStatement,
    Verdict,
    VerdictMap,
)
from kptrace.rules.model.ruleset import Rule

MASQUERADE_CHAINS = frozenset({"KUBE-MARK-MASQ", "mark-for-masquerade", "CNI-HOSTPORT-SETMARK"})

_UNMARKING_CHAINS = frozenset({"KUBE-POSTROUTING", "masquerading"})
_MARKS = "marks it for masquerade"
# kube-proxy marks and the kubelet's KUBE-FIREWALL drops, up to Kubernetes 1.25
_MARK_DROP = "KUBE-MARK-DROP"
_MARKS_DROP = "marks it to be dropped"

_SERVICE_CHAIN = re.compile(r"KUBE-(SVC|SVL|XLB|EXT|FW)-[A-Z2-7]{16}")
_BACKEND_CHAIN = re.compile(r"KUBE-SEP-[A-Z2-7]{16}")
_TO_BACKEND = re.compile(r".+ -> (\S+)")
_SERVICE_NAME = re.compile(r"[a-z0-9.-]+/[a-z0-9.-]+(:[a-z0-9-]*)?")
_HASH_COMMENT = re.compile(r"cali:\S+ ?")
_UNINFORMATIVE = frozenset({"flanneld masq", "flanneld forward", "kubernetes forwarding rules"})
_MAX_LISTED = 3
_MAX_LENGTH = 90
_MAX_WITH_REASON = 66


def describe(rule: Rule) -> str:
    """What a rule that matched does, and why it matched; at most 90 characters."""
    text = _kube_proxy_rule(rule) or _any_rule(rule)
    return text if len(text) <= _MAX_LENGTH else text[: _MAX_LENGTH - 1] + "…"


def _kube_proxy_rule(rule: Rule) -> str:
    """A rule that picks a Service or a backend, or marks for masquerade; empty for any other."""
    for part in rule.body:
        match part:
            case Verdict(kind="jump" | "goto", chain=chain):
                return _toward(rule, chain)
            case VerdictMap(key=NumGen() | Hash(), map=AnonymousMap(items=items)):
                return _choice([_backend_name(entry.data) for entry in items])
            case VerdictMap(map=SetRef(name=name)) if name in MAPS:
                return MAPS[name]
            case Dnat(addr=MapLookup(key=NumGen() | Hash(), map=AnonymousMap(items=items))):
                return _choice([_address(entry.data) for entry in items])
    return ""


def _toward(rule: Rule, chain: str) -> str:
    if chain in MASQUERADE_CHAINS:
        return _with_reason(_MARKS, rule)
    if chain == _MARK_DROP:
        return f"{_MARKS_DROP}: {rule.comment}" if rule.comment else _with_reason(_MARKS_DROP, rule)
    if _BACKEND_CHAIN.fullmatch(chain):
        return _backend(rule, chain)
    if _SERVICE_CHAIN.fullmatch(chain):
        return _service(rule, chain)
    name = read_nftables_name(chain)
    if name is None:
        return _any_rule(rule)
    if name.kind == "endpoint":
        sticky = any(
            isinstance(part, Comparison) and _refers_to(part.right, "affinity-")
            for part in rule.body
        )
        return f"{'same backend as before' if sticky else 'backend'} {_backend_name(chain)}"
    if name.kind in _PARTS_BY_NAME and read_nftables_name(rule.chain) is not None:
        return _with_reason(f"goes on to {_PARTS_BY_NAME[name.kind]}", rule)
    port = f":{name.port}" if name.port else ""
    suffixes = {
        "local": ", local endpoints",
        "external": " from outside",
        "firewall": ", its sources",
    }
    return f"{name.namespace}/{name.name}{port}{suffixes.get(name.kind, '')}"


def _refers_to(expr: Expr, start: str) -> bool:
    return isinstance(expr, SetRef) and expr.name.startswith(start)


def _backend(rule: Rule, chain: str) -> str:
    """A rule of a Service's chain. In big clusters no comment names the backend."""
    named = _TO_BACKEND.fullmatch(rule.comment)
    backend = f"backend {named.group(1) if named else chain}"
    for part in rule.body:
        if isinstance(part, Recent):
            return f"same {backend} as within the last {part.seconds} s"
        if isinstance(part, RandomMatch):
            return f"{chance_text(part.probability)} (of those left): {backend}"
    return f"the only backend left: {backend.removeprefix('backend ')}"


def _service(rule: Rule, chain: str) -> str:
    """A rule that leads to a Service's chain, or from one of its chains to another."""
    comment = rule.comment
    if not comment:
        return _with_reason(f"goes on to {_PARTS_OF_SERVICE[chain[5:8]]} ({chain})", rule)
    ports = (part for part in rule.body if isinstance(part, Comparison))
    port = next((value_text(part.right) for part in ports if _is_port(part.left)), "")
    if _SERVICE_NAME.fullmatch(comment) and port:
        return f"{comment.removesuffix(':')} NodePort {port}"
    return comment


_PARTS_BY_NAME = {"service": "its endpoints", "local": "its endpoints on this node"}
_PARTS_OF_SERVICE = {
    "SVC": "its endpoints",
    "SVL": "its endpoints on this node",
    "XLB": "its way in from outside",
    "EXT": "its way in from outside",
    "FW-": "its source ranges",
}


def _is_port(expr: Expr) -> bool:
    return isinstance(expr, Field) and expr.key.endswith(" dport")


def _choice(names: Sequence[str]) -> str:
    if len(names) == 1:
        return f"the only backend {names[0]}"
    if len(names) <= _MAX_LISTED:
        return f"1 in {len(names)} chance each: {', '.join(names)}"
    return f"1 in {len(names)} chance each: {', '.join(names[:2])}, … ({len(names)} backends)"


def _backend_name(data: object) -> str:
    chain = data.chain if isinstance(data, Verdict) else str(data)
    name = read_nftables_name(chain)
    if name is None or not name.address:
        return chain
    return _joined(name.address, name.endpoint_port)


def _address(expr: object) -> str:
    match expr:
        case Concat(parts=(Const(value=address), Const(value=port))):
            return _joined(address, port)
        case Const(value=address):
            return str(address)
        case _:
            return "somewhere"


def _joined(address: str | int, port: str | int) -> str:
    return f"[{address}]:{port}" if ":" in str(address) else f"{address}:{port}"


# --- everything else --------------------------------------------------------------------------


def _any_rule(rule: Rule) -> str:
    actions = [text for part in rule.body if (text := _action(part, rule.chain))]
    comment = _HASH_COMMENT.sub("", rule.comment).strip()
    action = " and ".join(actions) or comment or "counts it"
    for part in rule.body:
        if isinstance(part, RandomMatch):
            return f"{chance_text(part.probability)}: {action}"
    if any(isinstance(part, Dnat | Snat) for part in rule.body):
        return action
    if comment and comment not in _UNINFORMATIVE and _ends(rule):
        return f"{action}: {comment}"
    return _with_reason(action, rule)


def _ends(rule: Rule) -> bool:
    """Whether a rule discards the packet: its comment then gives the best reason."""
    return any(
        isinstance(part, Reject) or (isinstance(part, Verdict) and part.kind == "drop")
        for part in rule.body
    )


def _with_reason(action: str, rule: Rule) -> str:
    """The action with as many conditions as fit, those that say most first."""
    if rule.chain.startswith(("KUBE-SEP-", "endpoint-")) and action == _MARKS:
        return f"{action} because the source is the backend itself"
    conditions = [part for part in rule.body if explain_condition(part)]
    chosen: list[Part] = []
    for part in sorted(conditions, key=_weight):
        longer = [candidate for candidate in conditions if candidate in chosen or candidate is part]
        if not chosen or len(action) + len(explain_match(longer)) <= _MAX_WITH_REASON:
            chosen = longer
    reason = explain_match(chosen)
    return f"{action} because {reason}" if reason else action


def _weight(part: Part) -> int:
    """The order of conditions: the reader knows where a packet goes, so those come last."""
    match part:
        case Comparison(left=Field(key=key)):
            return next((weight for end, weight in _WEIGHTS.items() if key.endswith(end)), 0)
        case _:
            return 0


_WEIGHTS = {" dport": 2, " daddr": 3, " l4proto": 4}


def _action(part: Part, chain: str) -> str:
    if isinstance(part, Verdict):
        return _verdict(part)
    if isinstance(part, SetField):
        return _assign(part, chain)
    if isinstance(part, UnknownStatement):
        return "" if part.match else f"does something unknown: {part.text}"
    formatter = _ACTION_TEXTS.get(type(part))
    return formatter(part) if formatter else ""


def _verdict(verdict: Verdict) -> str:
    if verdict.kind in ("jump", "goto"):
        return f"goes on {_chain_text(verdict.chain)}"
    return _VERDICTS[verdict.kind]


def _chain_text(chain: str) -> str:
    for start, prefix_text in CALICO.items():
        if chain.startswith(start):
            return prefix_text + chain.removeprefix(start)
    return CHAINS.get(chain, f"to {chain}")


_VERDICTS = {
    "accept": "lets it pass",
    "drop": "drops it",
    "return": "leaves the chain",
    "continue": "goes on",
    "queue": "hands it to a program",
}


def _assign(part: SetField, chain: str) -> str:
    """A changed field; kube-proxy's masquerade mark by its meaning.

    kube-proxy clears the mark before it masquerades, so that the packet is not masqueraded twice.
    """
    key = part.field.key
    subject = _ASSIGNED.get(key, key)
    mark = key == "meta mark"
    match part.value:
        case BitwiseExpr(op="xor") if mark and chain in _UNMARKING_CHAINS:
            return "clears the masquerade mark"
        case BitwiseExpr() if mark and chain in MASQUERADE_CHAINS:
            return _MARKS
        case BitwiseExpr(op="or", left=Field(), right=Const(value=0x4000)) if mark:
            return _MARKS
        case BitwiseExpr(op="or", left=Field(), right=bits):
            return f"sets {hex_text(bits)} of {subject}"
        case BitwiseExpr(
            op="xor",
            left=BitwiseExpr(op="and", right=Const(value=int(kept))),
            right=Const() as bits,
        ):
            return _changed(subject, ~kept & 0xFFFFFFFF, bits)
        case BitwiseExpr(op="xor", left=Field(), right=bits):
            return f"flips {hex_text(bits)} of {subject}"
        case BitwiseExpr():
            return f"changes bits of {subject}"
        case Field(key=other):
            return f"sets {subject} to {_ASSIGNED.get(other, other)}"
        case Const() as const if key == "meta nftrace":
            return "traces it" if const.value else "does not trace it"
        case expr:
            shown = hex_text(expr) if key.endswith(" mark") else value_text(expr)
            return f"sets {subject} to {shown}"


def _changed(subject: str, mask: int, bits: Const) -> str:
    """The effect of ``--set-xmark BITS/MASK``."""
    if bits.value == 0:
        return f"clears {mask:#x} of {subject}"
    if bits.value == mask:
        return f"sets {mask:#x} of {subject}"
    return f"sets {hex_text(bits)}/{mask:#x} of {subject}"


_ASSIGNED = {"meta mark": "the mark", "ct mark": "the connection's mark", "ct zone": "the zone"}


def _translated(word: str, part: Dnat | Snat) -> str:
    addr = value_text(part.addr) if part.addr else ""
    port = value_text(part.port) if part.port else ""
    if isinstance(part.addr, MapLookup):
        return f"{word} to what a map gives"
    return f"{word} to {_joined(addr, port) if port else addr}"


_UPDATES = {"add": "adds it to", "update": "keeps it in", "delete": "deletes it from"}
_NOTES = {
    "TCPMSS": "limits the segment size",
    "CHECKSUM": "fills in the checksum",
    "TEE": "sends a copy elsewhere",
    "dup": "sends a copy elsewhere",
    "flow": "lets a flowtable take the connection over",
}
_ACTION_TEXTS: dict[type, Callable[..., str]] = {
    Dnat: lambda part: _translated("DNAT", part),
    Snat: lambda part: _translated("SNAT", part),
    Masquerade: lambda part: "masquerades it as this node",
    Redirect: lambda part: (
        f"redirects it to port {value_text(part.port)} of this node"
        if part.port
        else "redirects it to this node"
    ),
    Reject: lambda part: "rejects it",
    NoTrack: lambda part: "keeps it out of conntrack",
    Tproxy: lambda part: "hands it to a local proxy",
    Log: lambda part: "logs it",
    SetUpdate: lambda part: (
        "remembers the client"
        if part.set.name.startswith("affinity-")
        else f"{_UPDATES.get(part.op, part.op)} set {part.set.name}"
    ),
    NoEffect: lambda part: _NOTES.get(part.text.split(" ")[0], ""),
    VerdictMap: lambda part: "does what a map says for it",
}
