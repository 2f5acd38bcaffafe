"""The way in which a NetworkPolicy too many damages a Calico lab, and the way back."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress

from kptrace.lab import host_commands, load_rules, network_policy
from kptrace.lab.address_plan import NodePlan
from kptrace.lab.dataplane.calico import policy as felix_policy
from kptrace.lab.dataplane.calico import rules as felix
from kptrace.lab.faults.actions import Before
from kptrace.lab.network_policy import Policy
from kptrace.lab.state import Lab
from kptrace.model import Value


class DenyPolicy(Value):
    """One more policy is applied; Felix writes the chains of the pods that it selects anew."""

    policy: Policy

    def before(self, lab: Lab, node: NodePlan) -> Before:
        return {}

    def apply(self, lab: Lab, node: NodePlan) -> None:
        usual = network_policy.healthy(lab.plan)
        for family in (0, 1):
            sets = "".join(f"{line}\n" for line in self._sets(lab, family))
            host_commands.run(("ipset", "-exist", "restore"), sets, node.netns)
            _write(lab, node, family, usual, (*usual, self.policy))

    def undo(self, lab: Lab, node: NodePlan, before: Before) -> None:
        usual = network_policy.healthy(lab.plan)
        for family in (0, 1):
            _write(lab, node, family, (*usual, self.policy), usual)
            for name in felix_policy.ipsets(lab.plan, (self.policy,), family):
                with suppress(host_commands.CommandFailed):
                    host_commands.run(("ipset", "destroy", name), netns=node.netns)

    def _sets(self, lab: Lab, family: int) -> list[str]:
        return felix.selectors(lab.plan, family, (self.policy,))


def _write(
    lab: Lab, node: NodePlan, family: int, old: Sequence[Policy], new: Sequence[Policy]
) -> None:
    before, after = (felix.pod_rules(lab.plan, node, family, policies) for policies in (old, new))
    load_rules.restore(lab.plan, node, family, load_rules.with_deletions(before, after))
