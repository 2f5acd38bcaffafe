"""``ipset list`` as ``ipset save`` prints it."""

from __future__ import annotations

import pytest

from kptrace.model.errors import ParseError
from kptrace.rules.ipset.listing import listing_to_save, looks_like

LISTED = """\
Name: KUBE-CLUSTER-IP
Type: hash:ip,port
Revision: 6
Header: family inet hashsize 1024 maxelem 65536
Size in memory: 448
References: 2
Number of entries: 1
Members:
10.96.0.1,tcp:443 comment "a: b"

Name: EMPTY
Type: hash:ip
Header: family inet
Members:
"""


def test_sets_and_elements() -> None:
    assert looks_like(LISTED)
    assert listing_to_save(LISTED, "ipset-list.txt") == (
        "create KUBE-CLUSTER-IP hash:ip,port family inet hashsize 1024 maxelem 65536\n"
        'add KUBE-CLUSTER-IP 10.96.0.1,tcp:443 comment "a: b"\n'
        "create EMPTY hash:ip family inet\n"
    )


def test_a_line_of_another_form_is_refused() -> None:
    with pytest.raises(ParseError, match=r"x:2: .* is no line of ipset list"):
        listing_to_save("Name: a\nhello\n", "x")
