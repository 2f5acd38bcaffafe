from __future__ import annotations

from kptrace.lab.load_rules import chains, with_deletions

BEFORE = """*filter
:KUBE-SERVICES - [0:0]
COMMIT
*nat
:KUBE-SEP-A - [0:0]
:KUBE-SERVICES - [0:0]
:KUBE-SVC-A - [0:0]
-A KUBE-SERVICES -j KUBE-SVC-A
-A KUBE-SVC-A -j KUBE-SEP-A
COMMIT
"""
AFTER = """*filter
:KUBE-SERVICES - [0:0]
-A KUBE-SERVICES -d 10.96.1.2/32 -j REJECT
COMMIT
*nat
:KUBE-SERVICES - [0:0]
COMMIT
"""


def test_chains_belong_to_tables() -> None:
    assert list(chains(BEFORE)) == [
        ("filter", "KUBE-SERVICES"),
        ("nat", "KUBE-SEP-A"),
        ("nat", "KUBE-SERVICES"),
        ("nat", "KUBE-SVC-A"),
    ]


def test_chains_that_are_gone_are_emptied_first_and_deleted_last() -> None:
    """Both are named before any is deleted: one may still jump to the other."""
    assert (
        with_deletions(BEFORE, AFTER)
        == """*filter
:KUBE-SERVICES - [0:0]
-A KUBE-SERVICES -d 10.96.1.2/32 -j REJECT
COMMIT
*nat
:KUBE-SEP-A - [0:0]
:KUBE-SVC-A - [0:0]
:KUBE-SERVICES - [0:0]
-X KUBE-SEP-A
-X KUBE-SVC-A
COMMIT
"""
    )


def test_nothing_is_gone() -> None:
    assert with_deletions(AFTER, BEFORE) == BEFORE
