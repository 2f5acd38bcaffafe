"""JUnit as CI systems read it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree

import msgspec

from kptrace.model import Outcome, Target, Trace, TraceRequest
from kptrace.model.errors import NotFoundError
from kptrace.render.junit import junit as junit_of
from kptrace.verify.results import Expectation, Result, seen, unseen

GOLDEN = Path(__file__).parent / "golden"


def result(trace: Trace, *expect: Outcome, name: str = "", line: int = 0) -> Result:
    question = TraceRequest(target=trace.target, expect=expect)
    return seen(Expectation(request=question, name=name, line=line), trace)


def junit(*traces: Trace, expect: tuple[Outcome, ...] = ()) -> str:
    numbered = enumerate(traces, 2)
    return junit_of([result(trace, *expect, line=line) for line, trace in numbered], {})


def case(xml: str) -> ElementTree.Element:
    found = ElementTree.fromstring(xml).find("testsuite/testcase")
    assert found is not None
    return found


def test_golden(samples: dict[str, Trace], golden: Callable[[Path, str], None]) -> None:
    several = (samples[n] for n in ("delivered-vxlan", "dropped-tunnel-port", "inconclusive"))
    golden(GOLDEN / "three.junit.xml", junit(*several))


def test_counts(samples: dict[str, Trace]) -> None:
    names = ("delivered-vxlan", "delivered-udp", "dropped-tunnel-port", "inconclusive")
    root = ElementTree.fromstring(junit(*(samples[name] for name in names)))
    for element in (root, root[0]):
        counts = [element.get(key) for key in ("tests", "failures", "errors", "skipped")]
        assert counts == ["4", "1", "0", "1"]
        assert element.get("time") == "0.000498"
    assert root[0].get("timestamp") == "2026-09-21T14:13:20+00:00"


def test_names(samples: dict[str, Trace]) -> None:
    found = case(junit(samples["delivered-vxlan"]))
    assert found.get("classname") == "kptrace.shop.remote"
    assert found.get("name") == "tcp/80 from pod/client on node-a to 10.96.41.7:80"
    assert found.get("time") == "0.000410"
    assert found.find("failure") is None
    assert "DELIVERED" in (found.findtext("system-out") or "")


def test_a_failure_tells_all_in_its_body(samples: dict[str, Trace]) -> None:
    failure = case(junit(samples["dropped-tunnel-port"])).find("failure")
    assert failure is not None
    assert failure.get("type") == "dropped"
    assert failure.get("message") == "the VXLAN packet reached node-b and was dropped there"
    assert "tunnel-port-blocked" in (failure.text or "")
    assert "iptables-nft -D INPUT" in (failure.text or "")


def test_what_was_expected_passes(samples: dict[str, Trace]) -> None:
    dropped = junit(samples["dropped-tunnel-port"], expect=(Outcome.DROPPED,))
    assert case(dropped).find("failure") is None
    delivered = junit(samples["delivered-vxlan"], expect=(Outcome.DROPPED, Outcome.REJECTED))
    failure = case(delivered).find("failure")
    assert failure is not None
    assert failure.get("type") == "delivered"


def test_inconclusive_is_skipped_unless_expected(samples: dict[str, Trace]) -> None:
    assert case(junit(samples["inconclusive"])).find("skipped") is not None
    expected = junit(samples["inconclusive"], expect=(Outcome.INCONCLUSIVE,))
    assert case(expected).find("skipped") is None


def test_an_error() -> None:
    target = Target(kind="service", text="svc/\x1bweb", name="\x1bweb", namespace="shop")
    asked = Expectation(request=TraceRequest(target=target))
    found = case(
        junit_of([unseen(asked, NotFoundError("no Service \x07", "did you mean web?"))], {})
    )
    error = found.find("error")
    assert error is not None
    assert error.get("type") == "NotFoundError"
    assert error.get("message") == r"no Service \x07"
    assert error.text == "no Service \\x07\ndid you mean web?"
    assert found.get("classname") == r"kptrace.shop.\x1bweb"
    assert found.get("name") == r"svc/\x1bweb (shop) from a chosen source"


def test_where_it_was_stands_first(samples: dict[str, Trace]) -> None:
    about = {"kptrace": "1", "node node-a": "kubelet v1.36.2 \x1b"}
    suite = ElementTree.fromstring(junit_of([result(samples["refused"])], about))[0]
    assert suite[0].tag == "properties"
    assert [(each.get("name"), each.get("value")) for each in suite[0]] == [
        ("kptrace", "1"),
        ("node node-a", r"kubelet v1.36.2 \x1b"),
    ]


def test_no_two_cases_have_one_name(samples: dict[str, Trace]) -> None:
    one = samples["delivered-vxlan"]
    made = junit_of([result(one, line=3), result(one, line=5), result(one, name="web")], {})
    way = "tcp/80 from pod/client on node-a to 10.96.41.7:80"
    assert [each.get("name") for each in ElementTree.fromstring(made).iter("testcase")] == [
        f"{way} (line 3)",
        f"{way} (line 5)",
        f"web: {way}",
    ]


def test_a_failure_says_what_was_expected(samples: dict[str, Trace]) -> None:
    made = junit_of([result(samples["delivered-vxlan"], Outcome.DROPPED, Outcome.REJECTED)], {})
    failure = case(made).find("failure")
    assert failure is not None
    assert (failure.get("message") or "").endswith("; expected dropped or rejected")


def test_any_report_is_well_formed(sample: tuple[str, Trace]) -> None:
    assert case(junit(sample[1])).get("name")


def test_without_a_resolution_the_target_names_the_case(samples: dict[str, Trace]) -> None:
    bare = msgspec.structs.replace(samples["unresolved"], resolution=None)
    assert case(junit(bare)).get("name") == "svc/remote from pod/client on node-a"
