"""The hooks of one namespace: every base chain in the kernel's order, conntrack and NAT between.

Theory (nf_conntrack_proto.c, nf_nat_proto.c, nf_nat_core.c): conntrack runs at -200 in prerouting
and output. All chains of type nat hang on one dispatcher at -100 (prerouting, output) and 100
(input, postrouting), whatever their own priorities, which only order them among themselves. It
asks them for the first packet of a connection, once for each side (destination, source), until one
has set up a translation; every packet is then translated as the connection says.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from functools import partial

from kptrace.model import NoteKind, RuleRef, SimulatedStep, Value
from kptrace.rules.describe.rule import describe
from kptrace.rules.model.expressions import (
    AnyOf,
    Comparison,
    Limit,
    NthMatch,
    RandomMatch,
    Recent,
    Socket,
    UnknownStatement,
    Verdict,
)
from kptrace.rules.model.ruleset import Chain, Rule
from kptrace.simulate.branching import BranchPoints, enumerate_branches
from kptrace.simulate.ip.routing import RouteQuery, lookup
from kptrace.simulate.ip.skb import Skb
from kptrace.simulate.netfilter.conntrack import Conntrack
from kptrace.simulate.netfilter.effects import Effect, NftBreak, RejectEffect, RuleEffects
from kptrace.simulate.netfilter.expressions import EvalContext
from kptrace.simulate.netfilter.ipvs import PRIORITIES, Ipvs, Refused, SentByIpvs
from kptrace.simulate.netfilter.registration_order import ChainEffect, in_order
from kptrace.simulate.netfilter.statements import act
from kptrace.simulate.snapshot.snapshot import Snapshot

_MATCHES = (Comparison, AnyOf, RandomMatch, NthMatch, Recent, Limit, Socket)
_CONNTRACK, _NAT_DST, _NAT_SRC = -200, -100, 100
_DESTINATION = frozenset({"prerouting", "output"})
# a kernel lets no chain be entered by way of itself; a hostile text may claim it
_MAX_CHAIN_VISITS = 1000
_NAT_PROBE_LIMIT = 64  # to find out whether a nat table would act at all


class PacketDropped(Value):
    """The packet ended in a hook.

    rule: None where the chain's policy did it
    reply: what REJECT sends (``icmp port-unreachable``, ``tcp reset``); empty: nothing
    via_map: the verdict maps that led there
    """

    hook: str
    ref: RuleRef
    rule: Rule | None = None
    reply: str = ""
    via_map: tuple[str, ...] = ()


Note = Callable[[SimulatedStep], None]
Stage = Callable[[Skb], "PacketDropped | SentByIpvs | None"]


class Netfilter:
    """The netfilter of one namespace with the connections that it has seen.

    add_step: called for every rule that matched, and every translation
    add_note: called for what could not be evaluated
    """

    def __init__(
        self,
        snapshot: Snapshot,
        choices: BranchPoints,
        add_step: Note,
        add_note: Callable[[NoteKind, str], None],
    ) -> None:
        self.snapshot = snapshot
        self.conntrack = Conntrack()
        self.ipvs = Ipvs(snapshot, choices, add_step)
        self._choices = choices
        self._add_step = add_step
        self._add_note = add_note

    def run(self, hook: str, skb: Skb) -> PacketDropped | SentByIpvs | None:
        """Run a hook on a packet, which is changed as the rules say.

        Returns None where it passes, PacketDropped where a rule or policy ends it, SentByIpvs where
        IPVS sends it on.
        """
        chains = self.snapshot.ruleset.base_chains(skb.family, hook)
        for stage in self._stages(hook, chains):
            ended = stage(skb)
            if ended:
                return ended
            if skb.rerouted and not self._has_route(skb):
                return None  # ip_route_me_harder failed: nobody further on is asked
        if hook in ("input", "postrouting") and skb.tracked and not skb.untracked:
            self.conntrack.confirm(skb.tracked.connection)
        return None

    def _has_route(self, skb: Skb) -> bool:
        return lookup(self.snapshot, RouteQuery(flow=skb.flow, mark=skb.rerouted_mark)).usable

    def _stages(self, hook: str, chains: Sequence[Chain]) -> Iterator[Stage]:
        """Yield what runs at the hook, by priority."""
        plain = [chain for chain in chains if chain.type != "nat"]
        nat = [chain for chain in chains if chain.type == "nat"]
        stages: list[tuple[int, Stage]] = [
            (chain.priority, partial(self._route if chain.type == "route" else self._base, chain))
            for chain in plain
        ]
        if hook in _DESTINATION:
            stages.append((_CONNTRACK, self._track))
        if hook != "forward":
            priority = _NAT_DST if hook in _DESTINATION else _NAT_SRC
            stages.append((priority, lambda skb: self._nat(hook, nat, skb)))
        if hook in PRIORITIES and self.snapshot.virtual:
            answer, request = PRIORITIES[hook]
            stages.append((answer, lambda skb: self.ipvs.answer(hook, skb)))
            if request is not None:
                stages.append((request, lambda skb: self._balance(hook, skb)))
        for _, stage in sorted(stages, key=lambda entry: entry[0]):
            yield stage

    def _balance(self, hook: str, skb: Skb) -> PacketDropped | SentByIpvs | None:
        decision = self.ipvs.request(hook, skb)
        if isinstance(decision, Refused):
            return PacketDropped(hook=hook, ref=decision.ref, reply="icmp port-unreachable")
        return decision

    # --- conntrack and NAT --------------------------------------------------------------------

    def _track(self, skb: Skb) -> None:
        if skb.tracked is None and not skb.untracked:
            skb.tracked = self.conntrack.track(skb.packet, skb.zone or 0)
            skb.zone = None  # the template that told it is put away

    def _nat(self, hook: str, chains: Sequence[Chain], skb: Skb) -> PacketDropped | None:
        tracked = skb.tracked
        if tracked is None and skb.zone is not None:
            self._mark_uncertain("a zone of conntrack was set for what it does not track")
        if tracked is None or skb.untracked:
            return None
        entry = tracked.connection
        side = "dnat_done" if hook in _DESTINATION else "snat_done"
        before = skb.flow.dst
        if tracked.state == "new" and not getattr(entry, side):
            killed = self._first(chains, side, skb)
            if killed:
                return killed
            setattr(entry, side, True)
        self._apply(hook, skb)
        if hook == "output" and skb.flow.dst != before:
            skb.reroute()
        return None

    def _first(self, chains: Sequence[Chain], side: str, skb: Skb) -> PacketDropped | None:
        assert skb.tracked is not None
        ordered = in_order(
            chains,
            lambda chain: self._effect(chain, side, skb),
            lambda matching, deciding: self._choose_first(matching, deciding, skb),
        )
        for chain in ordered:
            killed = self._base(chain, skb)
            if killed or getattr(skb.tracked.connection, side):
                return killed
        return None

    def _apply(self, hook: str, skb: Skb) -> None:
        """Apply the connection's translation, for the packets that no rule is asked about."""
        assert skb.tracked is not None
        entry, original = skb.tracked.connection, skb.tracked.direction == "original"
        if hook in _DESTINATION and (entry.dnat if original else entry.snat):
            new, old = skb.tracked.destination(), (skb.flow.dst, skb.flow.dport)
            if new != old:
                skb.set_destination(*new)
                self._step(
                    skb,
                    hook,
                    "dnat",
                    description=_translation_description(original, old[0], new[0]),
                )
        elif hook not in _DESTINATION and (entry.snat if original else entry.dnat):
            new, old = skb.tracked.source(), (skb.flow.src, skb.flow.sport)
            if new != old:
                skb.set_source(*new)
                self._step(
                    skb,
                    hook,
                    "snat",
                    description=_translation_description(original, old[0], new[0]),
                )

    def _choose_first(self, matching: Sequence[Chain], deciding: Sequence[Chain], skb: Skb) -> int:
        if len(deciding) > 1:
            tables = " and ".join(f"{chain.table.backend} {chain.table.name}" for chain in deciding)
            self._add_note(
                NoteKind.NAT_ORDER_UNKNOWN,
                f"both {tables} would translate: the table loaded last wins",
            )
        about = ("nat order", skb.netns, tuple(chain.table for chain in matching))
        return self._choices.guess(about, len(matching))

    def _effect(self, chain: Chain, side: str, skb: Skb) -> ChainEffect:
        """Run a nat chain on copies of the packet and its connection: nothing here is changed."""
        import copy  # few rulesets leave the order open

        def walk(choices: BranchPoints) -> ChainEffect:
            probe, steps = copy.deepcopy(skb), list[SimulatedStep]()
            assert probe.tracked is not None
            shadow = Netfilter(self.snapshot, choices, steps.append, lambda kind, text: None)
            killed = shadow._base(chain, probe)
            if killed is not None or getattr(probe.tracked.connection, side):
                return ChainEffect.DECIDES
            return ChainEffect.MATCHES if steps else ChainEffect.NONE

        effects = {branch.result for branch in enumerate_branches(walk, _NAT_PROBE_LIMIT)[0]}
        ranked = (ChainEffect.DECIDES, ChainEffect.MATCHES, ChainEffect.NONE)
        return next(effect for effect in ranked if effect in effects)

    def _route(self, chain: Chain, skb: Skb) -> PacketDropped | None:
        """Run a chain of type route: the route is looked up anew if it changed the mark or TOS."""
        before = skb.known_mark, skb.dscp
        killed = self._base(chain, skb)
        if (skb.known_mark, skb.dscp) != before:
            skb.reroute()
        return killed

    # --- chains and rules ---------------------------------------------------------------------

    def _base(self, base: Chain, skb: Skb) -> PacketDropped | None:
        """Run a base chain from its first rule to a verdict or its policy."""
        hook = base.hook
        frames = [iter(base.rules.candidates_for_destination(skb.flow.dst))]
        visits: Counter[str] = Counter()
        maps: tuple[str, ...] = ()
        while frames:
            rule = next(frames[-1], None)
            if rule is None:
                frames.pop()
                continue
            effect, via_map = self._rule(rule, hook, skb)
            maps += via_map
            match effect:
                case RejectEffect(reply=reply):
                    return PacketDropped(
                        hook=hook, ref=self._ref(rule), rule=rule, reply=reply, via_map=maps
                    )
                case Verdict(kind="accept"):
                    return None
                case Verdict(kind="drop"):
                    return PacketDropped(hook=hook, ref=self._ref(rule), rule=rule, via_map=maps)
                case Verdict(kind="return"):
                    frames.pop()
                case Verdict(kind="jump" | "goto" as kind, chain=name):
                    self._enter(frames, kind, name, base, visits, skb)
                case Verdict(kind="queue"):
                    self._mark_uncertain("a user-space program decides (queue), taken as accepted")
                    return None
        if base.policy == "accept":
            return None
        ref = _policy_ref(base)
        self._step(skb, hook, "dropped", ref)
        return PacketDropped(hook=hook, ref=ref)

    def _enter(
        self,
        frames: list[Iterator[Rule]],
        kind: str,
        name: str,
        base: Chain,
        visits: Counter[str],
        skb: Skb,
    ) -> None:
        if kind == "goto":
            frames.pop()
        chain = self.snapshot.ruleset.chain(base.table, name)
        visits[name] += 1
        if chain is None or visits[name] > _MAX_CHAIN_VISITS or len(frames) > _MAX_CHAIN_VISITS:
            self._mark_uncertain(f"chain {name} of {base.table.name} cannot be followed")
            return
        frames.append(iter(chain.rules.candidates_for_destination(skb.flow.dst)))

    def _rule(self, rule: Rule, hook: str, skb: Skb) -> tuple[Effect, tuple[str, ...]]:
        """Evaluate a rule's body from left to right; its step is added if no match was false."""
        context = EvalContext(skb, self.snapshot, self._choices, rule, self._add_note)
        if context.excluded(rule.body):
            return None, ()
        effects = RuleEffects()
        effect: Effect = None
        for part in rule.body:
            if isinstance(part, UnknownStatement):
                if part.match and not context.matches(part):
                    return None, ()
                if not part.match:
                    self._mark_uncertain(f"what `{part.text}` does is not known")
            elif isinstance(part, _MATCHES):
                if not context.matches(part):
                    return None, ()
            else:
                effect = act(part, context, effects)
                if isinstance(effect, NftBreak):
                    return None, ()
                if effect is not None and not _continues(effect):
                    break
        action = effects.action
        if isinstance(effect, RejectEffect):
            action = "rejected"
        elif isinstance(effect, Verdict) and effect.kind == "drop":
            action = "dropped"
        self._step(skb, hook, action, self._ref(rule))
        return effect, effects.via_map

    def _ref(self, rule: Rule) -> RuleRef:
        refs = self.snapshot.refs
        if id(rule) not in refs:
            refs[id(rule)] = rule, rule.ref(describe(rule))
        return refs[id(rule)][1]

    def _step(
        self, skb: Skb, hook: str, action: str, rule: RuleRef | None = None, description: str = ""
    ) -> None:
        self._add_step(
            SimulatedStep(
                netns=skb.netns,
                action=action,  # type: ignore[arg-type]
                packet=skb.packet,
                interface=skb.oif if hook in ("output", "postrouting") else skb.iif,
                hook=hook,
                rule=rule,
                description=description or (rule.description if rule else ""),
                deterministic=self._choices.certain and not skb.unknown_mark,
            )
        )

    def _mark_uncertain(self, description: str) -> None:
        self._choices.certain = False
        self._add_note(NoteKind.NOT_EVALUATED, description)


def _continues(effect: Effect) -> bool:
    return isinstance(effect, Verdict) and effect.kind == "continue"


def _policy_ref(chain: Chain) -> RuleRef:
    return RuleRef(
        backend=chain.table.backend,
        family=chain.table.family,
        table=chain.table.name,
        chain=chain.name,
        number=0,
        text=f"policy {chain.policy}",
        description=f"the chain's policy is {chain.policy.upper()}",
    )


def _translation_description(original: bool, old: str, new: str) -> str:
    how = "as its first packet was" if original else "conntrack takes the translation back"
    return f"{old} => {new}, {how}"
