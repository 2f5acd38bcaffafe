"""The document forms: whole, in order, and harmless on a terminal."""

from __future__ import annotations

import json as stdlib
from collections.abc import Callable
from pathlib import Path

import msgspec
import yaml as pyyaml

from kptrace.model import Trace
from kptrace.render.json import json, yaml

GOLDEN = Path(__file__).parent / "golden"

CONTRACT = [
    "apiVersion",
    "kind",
    "target",
    "source",
    "outcome",
    "resolution",
    "prediction",
    "hops",
    "findings",
    "evidence",
]


def test_golden(samples: dict[str, Trace], golden: Callable[[Path, str], None]) -> None:
    golden(GOLDEN / "inconclusive.json", json(samples["inconclusive"]))
    golden(GOLDEN / "inconclusive.yaml", yaml(samples["inconclusive"]))


def test_json_holds_the_whole_report(sample: tuple[str, Trace]) -> None:
    assert msgspec.json.decode(json(sample[1]), type=Trace) == sample[1]


def test_yaml_holds_the_same(sample: tuple[str, Trace]) -> None:
    assert pyyaml.safe_load(yaml(sample[1])) == stdlib.loads(json(sample[1]))


def test_the_contract_stands_in_order(sample: tuple[str, Trace]) -> None:
    keys = list(stdlib.loads(json(sample[1])))
    assert keys[: len(CONTRACT)] == CONTRACT
    assert list(pyyaml.safe_load(yaml(sample[1]))) == keys


def test_a_hop_has_the_promised_fields(samples: dict[str, Trace]) -> None:
    hop = stdlib.loads(json(samples["delivered-vxlan"]))["hops"][2]
    assert hop["action"] == "dnat"
    assert {"node", "netns", "interface", "direction", "packet", "rule", "offsetUs"} <= set(hop)
    assert hop["rule"]["chain"] == "KUBE-SEP-M7Q2ZL3WAUDYV6GF"


def test_a_text_for_people_ends_with_a_newline(sample: tuple[str, Trace]) -> None:
    for form in (json, yaml):
        assert form(sample[1]).endswith("\n")
        assert not form(sample[1]).endswith("\n\n")


def test_hostile_text_is_escaped_and_stays_what_it_is(samples: dict[str, Trace]) -> None:
    # C1's CSI, DEL, a bidirectional override, a character beyond the first plane, half a pair
    nasty = "\x9b2J\x7f\u202e\U000e0041\u2028 Zürich"
    trace = msgspec.structs.replace(samples["inconclusive"], summary=nasty)
    for form, load in ((json, stdlib.loads), (yaml, pyyaml.safe_load)):
        written = form(trace)
        assert all(line.isprintable() for line in written.split("\n"))
        assert load(written)["summary"] == nasty
