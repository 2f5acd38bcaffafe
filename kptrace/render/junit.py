"""Reports as JUnit XML for CI: one test case a trace. Pure.

What readers do with it decided the shape: GitLab shows ``classname`` as the suite, may show only
the body of a failure, and drops cases of equal names; Jenkins keeps one failure a case. So the
classname has namespace and Service, the name says port, start and address, and the one failure
tells its reason in the attribute and the whole in its body.

    the expected outcome        passed
    inconclusive                skipped (nothing was claimed)
    another outcome             failure, its type the outcome
    could not be looked at      error
"""

from __future__ import annotations

from datetime import UTC, datetime
from xml.etree import ElementTree

from kptrace.errors import KptraceError
from kptrace.judge.words import end
from kptrace.model import Outcome, Target, Trace
from kptrace.render.clean import clean
from kptrace.render.text import text
from kptrace.render.words import outcome_words, source_words

DELIVERED = (Outcome.DELIVERED,)


def junit(*traces: Trace, expect: tuple[Outcome, ...] = ()) -> str:
    """expect: the outcomes that pass; delivered when none is named."""
    return _suites([_case(trace, expect or DELIVERED) for trace in traces])


def junit_error(target: Target, source: str, error: KptraceError) -> str:
    """For a trace that could not be made at all."""
    case = _named(target, f"{target.text} from {source or 'a chosen source'}")
    failed = ElementTree.SubElement(case, "error", type=type(error).__name__)
    failed.set("message", clean(error.message))
    failed.text = _body(f"{error.message}\n{error.hint}".strip())
    return _suites([case])


def _case(trace: Trace, expect: tuple[Outcome, ...]) -> ElementTree.Element:
    case = _named(trace.target, _name(trace))
    case.set("time", f"{(trace.elapsed_us or 0) / 1e6:.6f}")
    told = text(trace)
    message = clean(trace.summary or outcome_words(trace))
    if trace.outcome not in expect:
        skipped = trace.outcome is Outcome.INCONCLUSIVE
        result = ElementTree.SubElement(case, "skipped" if skipped else "failure")
        if not skipped:
            result.set("type", trace.outcome.value)
        result.set("message", message)
        result.text = _body(told)
    ElementTree.SubElement(case, "system-out").text = _body(told)
    if sent := [each.sent_ns for each in trace.evidence.returned]:
        case.set("timestamp", datetime.fromtimestamp(min(sent) / 1e9, UTC).isoformat())
    return case


def _named(target: Target, name: str) -> ElementTree.Element:
    suite = ".".join(filter(None, ("kptrace", target.namespace, target.name)))
    return ElementTree.Element("testcase", classname=clean(suite), name=clean(name))


def _name(trace: Trace) -> str:
    """``tcp/80 from pod/client on node-a to 10.96.41.7:80``."""
    start = source_words(trace.source, trace.target.namespace)
    found = trace.resolution
    if found is None:
        return f"{trace.target.text} from {start}"
    where = end(found.address, found.port) if found.address else trace.target.text
    return f"{found.protocol}/{found.port} from {start} to {where}"


def _body(told: str) -> str:
    return "\n".join(clean(line) for line in told.split("\n"))


def _suites(cases: list[ElementTree.Element]) -> str:
    told = {"name": "kptrace", "tests": str(len(cases))}
    for plural, tag in (("failures", "failure"), ("errors", "error"), ("skipped", "skipped")):
        told[plural] = str(sum(case.find(tag) is not None for case in cases))
    told["time"] = f"{sum(float(case.get('time', '0')) for case in cases):.6f}"
    root = ElementTree.Element("testsuites", told)
    suite = ElementTree.SubElement(root, "testsuite", dict(told))
    for case in cases:
        # The schema that Jenkins checks knows a time of the suite only.
        stamp = case.attrib.pop("timestamp", None)
        if stamp is not None and "timestamp" not in suite.attrib:
            suite.set("timestamp", stamp)
        suite.append(case)
    ElementTree.indent(root)
    return ElementTree.tostring(root, encoding="unicode", xml_declaration=False) + "\n"
