"""Which NetworkPolicy denied a packet, by the rules that matched."""

from __future__ import annotations

import pytest

from kptrace.model import RuleRef
from kptrace.rules.load import load_ruleset
from kptrace.rules.policy_chains import PolicyName, is_policy_chain, policy_denial


def ref(chain: str, text: str) -> RuleRef:
    return RuleRef(
        backend="legacy",
        family="ip",
        table="filter",
        chain=chain,
        number=1,
        text=text,
        description="",
    )


def tier(name: str, *policies: str) -> list[RuleRef]:
    begin = f'-m comment --comment "cali:x" -m comment --comment "Start of tier {name}" -j MARK'
    end = f'-m comment --comment "End of tier {name}. Drop if no policies passed packet" -j DROP'
    asked = [ref("cali-tw-cali1", f"-j {policy}") for policy in policies]
    return [ref("cali-tw-cali1", begin), *asked, ref("cali-tw-cali1", end)]


RULES = """\
*filter
:FORWARD ACCEPT [0:0]
:cali-pi-_abc - [0:0]
:cali-pi-_old - [0:0]
-A cali-pi-_abc -m comment --comment "Policy web/knp.default.deny ingress"
-A cali-pi-_old -j RETURN
COMMIT
"""


def test_a_policy_of_kubernetes_that_admits_nothing() -> None:
    denial = policy_denial(
        tier("default", "cali-pi-_abc"), load_ruleset({"iptables-save.txt": RULES})
    )
    assert denial is not None
    assert denial.policies == (
        PolicyName(kind="networkpolicy", name="deny", namespace="web", tier="default"),
    )
    assert (denial.direction, denial.tier, denial.explicit) == ("ingress", "default", False)


def test_a_policy_whose_name_no_comment_holds() -> None:
    denial = policy_denial(
        tier("default", "cali-pi-_old"), load_ruleset({"iptables-save.txt": RULES})
    )
    assert denial is not None
    assert (denial.policies, denial.unnamed_chains) == ((), ("cali-pi-_old",))


def test_an_explicit_deny() -> None:
    rules = [ref("cali-pi-_abc", "-j DROP")]
    denial = policy_denial(rules, load_ruleset({"iptables-save.txt": RULES}))
    assert denial is not None
    assert denial.explicit
    assert [str(policy) for policy in denial.policies] == ["NetworkPolicy web/deny"]


def test_kube_router() -> None:
    run = '-d 10.244.0.5/32 -m comment --comment "run through nw policy deny" -j KUBE-NWPLCY-A'
    end = '-m comment --comment "REJECT traffic for POD name:api namespace: web" -j REJECT'
    rules = [ref("KUBE-POD-FW-X", run), ref("KUBE-POD-FW-X", end)]
    denial = policy_denial(rules, None)
    assert denial is not None
    assert (denial.pod, denial.direction) == ("web/api", "ingress")
    assert [policy.name for policy in denial.policies] == ["deny"]


@pytest.mark.parametrize(
    ("chain", "expected"),
    [
        ("cali-tw-cali1234", True),
        ("cali-pi-_abc", True),
        ("filter-cali-po-_abc", True),
        ("KUBE-POD-FW-X", True),
        ("KUBE-NWPLCY-X", True),
        ("cali-FORWARD", False),
        ("KUBE-FORWARD", False),
    ],
)
def test_chains_of_policy_controllers(chain: str, expected: bool) -> None:
    assert is_policy_chain(chain) is expected


def test_a_drop_of_nobody() -> None:
    assert policy_denial([ref("FORWARD", "-j DROP")], None) is None
