"""The catalogue is whole, and fit to be read on one line each."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import kptrace
from kptrace.diagnose.catalogue.causes import CAUSES, FAMILIES, cause

PROMISED = [
    "proxy-rules-missing",
    "stale-dnat",
    "no-endpoints",
    "no-local-endpoints",
    "forward-policy-drop",
    "bridge-nf-off",
    "tunnel-port-blocked",
    "ip-forward-off",
    "fdb-stale",
    "fdb-missing",
    "vtep-neighbour-missing",
    "pod-route-missing",
    "no-listener",
    "rule-drop",
    "rule-reject",
    "rp-filter",
    "blackhole-route",
    "hairpin-off",
    "link-down",
    "neighbour-failed",
    "policy-drop",
    "mtu-exceeded",
    "dns-address-differs",
    "dns-nxdomain",
    "dns-timeout",
    "dns-servfail",
]


def test_every_promised_id_is_there() -> None:
    assert set(PROMISED) <= set(CAUSES)


def test_no_id_stands_twice() -> None:
    assert len(CAUSES) == sum(map(len, FAMILIES))


@pytest.mark.parametrize("id", CAUSES)
def test_an_entry_is_whole(id: str) -> None:
    entry = CAUSES[id]
    assert entry.id == id
    assert re.fullmatch(r"[a-z]+(-[a-z]+)*", id)
    assert len(entry.title) <= 56
    for text in (entry.title, entry.meaning, entry.impact, entry.fix):
        assert text.strip() == text != ""
        assert not text.endswith(".")
        assert text.isascii()


def test_an_unknown_id_is_nothing() -> None:
    assert cause("made-up") is None
    assert cause("mtu-exceeded") is CAUSES["mtu-exceeded"]


def test_whatever_the_code_names_as_a_cause_is_in_the_catalogue() -> None:
    named = re.compile(
        r'cause ?= ?"([a-z-]+)"|cause="([a-z-]+)" if|story\.end\([^,]+, [^,]+, "([a-z-]+)"'
        r'|cause = "[a-z-]+" if .* else "([a-z-]+)"'
    )
    texts = (path.read_text() for path in Path(kptrace.__file__).parent.rglob("*.py"))
    found = {id for text in texts for match in named.finditer(text) for id in match.groups() if id}
    assert len(found) > 20
    assert found <= set(CAUSES)
