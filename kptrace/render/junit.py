"""Results as JUnit XML for CI: one test case a result. Pure.

What readers do with it decided the shape: GitLab shows ``classname`` as the suite, may show only
the body of a failure, and drops cases of equal names; Jenkins keeps one failure a case. So the
classname has namespace and Service, the name says port, start and address, and the one failure
tells its reason in the attribute and the whole in its body.

    the expected outcome        passed
    inconclusive, not tried     skipped (nothing was claimed)
    another outcome             failure, its type the outcome
    could not be looked at      error

Where it was (versions, proxy, network) stands in the suite's properties.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from xml.etree import ElementTree

from kptrace.diagnose.phrases import end
from kptrace.model import Trace
from kptrace.render.sanitize import clean
from kptrace.render.text import text
from kptrace.render.verify_result import start, subject, why
from kptrace.verify.results import Result

TAGS = {"failed": "failure", "error": "error", "inconclusive": "skipped", "untried": "skipped"}


def junit(results: Sequence[Result], about: Mapping[str, str]) -> str:
    """about: the properties."""
    names = Counter(map(_name, results))
    return _suites([_case(result, names[_name(result)] > 1) for result in results], about)


def _case(result: Result, repeated: bool) -> ElementTree.Element:
    asked, trace = result.expectation, result.trace
    target = asked.request.target
    suite = ".".join(filter(None, ("kptrace", target.namespace, target.name)))
    name = f"{_name(result)} (line {asked.line})" if repeated else _name(result)
    evidence = ElementTree.Element("testcase", classname=clean(suite), name=clean(name))
    elapsed = trace.elapsed_us if trace else None
    evidence.set("time", f"{(elapsed or 0) / 1e6:.6f}")
    text = _told(result)
    if result.status in TAGS:
        element = ElementTree.SubElement(evidence, TAGS[result.status])
        if element.tag != "skipped":
            element.set("type", _type(result))
        element.set("message", clean(why(result)))
        element.text = _body(text)
    if trace is not None:
        ElementTree.SubElement(evidence, "system-out").text = _body(text)
        if sent := [probe_result.sent_ns for probe_result in trace.evidence.probe_results]:
            evidence.set("timestamp", datetime.fromtimestamp(min(sent) / 1e9, UTC).isoformat())
    return evidence


def _told(result: Result) -> str:
    if result.error is not None:
        return result.error.text
    assert result.trace is not None
    return text(result.trace)


def _type(result: Result) -> str:
    if result.error is not None:
        return result.error.kind
    assert result.trace is not None
    return result.trace.outcome.value


def _name(result: Result) -> str:
    """``tcp/80 from pod/client on node-a to 10.96.41.7:80``, behind the name that it was given."""
    name = result.expectation.name
    text = _way(result, result.trace) if result.trace else subject(result)
    return f"{name}: {text}" if name else text


def _way(result: Result, trace: Trace) -> str:
    resolution = trace.resolution
    if resolution is None:
        return f"{trace.target.text} from {start(result)}"
    where = end(resolution.address, resolution.port) if resolution.address else trace.target.text
    return f"{resolution.protocol}/{resolution.port} from {start(result)} to {where}"


def _body(text: str) -> str:
    return "\n".join(clean(line) for line in text.split("\n"))


def _suites(evidence_list: list[ElementTree.Element], about: Mapping[str, str]) -> str:
    texts_by_name = {"name": "kptrace", "tests": str(len(evidence_list))}
    for plural, tag in (("failures", "failure"), ("errors", "error"), ("skipped", "skipped")):
        texts_by_name[plural] = str(
            sum(evidence.find(tag) is not None for evidence in evidence_list)
        )
    texts_by_name["time"] = (
        f"{sum(float(evidence.get('time', '0')) for evidence in evidence_list):.6f}"
    )
    root = ElementTree.Element("testsuites", texts_by_name)
    suite = ElementTree.SubElement(root, "testsuite", dict(texts_by_name))
    if about:
        properties = ElementTree.SubElement(suite, "properties")
        for name, value in about.items():
            ElementTree.SubElement(properties, "property", name=clean(name), value=clean(value))
    for evidence in evidence_list:
        # The schema that Jenkins checks knows a time of the suite only.
        stamp = evidence.attrib.pop("timestamp", None)
        if stamp is not None and "timestamp" not in suite.attrib:
            suite.set("timestamp", stamp)
        suite.append(evidence)
    ElementTree.indent(root)
    return ElementTree.tostring(root, encoding="unicode", xml_declaration=False) + "\n"
