"""The file of expectations: what it can say, and that each mistake is told with its line."""

from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kptrace.model import Outcome
from kptrace.model.errors import UsageError
from kptrace.verify.expectations_file import read_expectations

WHOLE = """\
apiVersion: kptrace.io/v1alpha1
kind: Expectations
defaults:
  namespace: shop
  from: pod/client
  timeout: 2
checks:
- target: svc/web
- target: svc/web:metrics
  name: metrics are closed
  namespace: other
  from: node/node-a
  via: nodePort
  node: node-b
  family: 6
  count: 3
  timeout: 0.5
  expect: [dropped, rejected]
- target: 10.96.0.10:53/udp
  expect: delivered
"""


def test_a_whole_file() -> None:
    first, second, third = read_expectations(WHOLE, "f", "default")
    asked = first.request
    assert (asked.target.text, asked.target.namespace) == ("svc/web", "shop")
    assert (asked.source, asked.namespace, asked.timeout) == ("pod/client", "shop", 2.0)
    assert (asked.expect, asked.count, asked.family, asked.via) == ((), 1, 0, "clusterIP")
    assert (first.name, first.line, first.expect) == ("", 8, (Outcome.DELIVERED,))
    asked = second.request
    assert (asked.target.port, asked.target.namespace) == ("metrics", "other")
    assert (asked.source, asked.via, asked.node) == ("node/node-a", "nodePort", "node-b")
    assert (asked.family, asked.count, asked.timeout) == (6, 3, 0.5)
    assert (second.name, second.line) == ("metrics are closed", 9)
    assert second.expect == (Outcome.DROPPED, Outcome.REJECTED)
    assert third.request.target.kind == "address"
    assert third.line == 19


def test_the_namespace_of_the_command_line_is_the_last() -> None:
    (one,) = read_expectations("checks: [{target: svc/web}]", "f", "shop")
    assert (one.request.namespace, one.request.target.namespace) == ("shop", "shop")


def test_words_are_what_was_typed() -> None:
    """YAML reads ``on`` as true and ``1.10`` as a number."""
    text = "checks:\n- {target: svc/on, name: 1.10, namespace: off}"
    (one,) = read_expectations(text, "f", "default")
    assert (one.request.target.name, one.name, one.request.namespace) == ("on", "1.10", "off")


@pytest.mark.parametrize(
    ("text", "line", "said", "hint"),
    [
        ("a: b", 1, "no key 'a'", "checks"),
        ("- target: svc/web", 1, "the file is a list", "checks"),
        ("defaults: {namespace: shop}", 1, "no `checks`", "checks:"),
        ("checks:\n", 1, "`checks` is empty", "- target: svc/NAME"),
        ("checks: []", 1, "an empty list", "- target: svc/NAME"),
        ("checks:\n- svc/web", 2, "a check is 'svc/web'", "target"),
        ("checks:\n- name: x", 2, "without a target", "target: svc/NAME"),
        ("checks:\n- target: svc/web\n  form: pod/x", 3, "'form'", "did you mean from?"),
        ("checks:\n- target: svc/web\n  expect: drop", 3, "'drop'", "did you mean dropped?"),
        ("checks:\n- target: svc/web\n  expect: []", 3, "empty list", "delivered"),
        ("checks:\n- target: svc/web\n  expect: {a: b}", 3, "a mapping", "one word"),
        ("checks:\n- target: svc/web\n  node: a", 3, "node port", "add `via: nodePort`"),
        ("checks:\n- target: svc/web\n  via: nodeport", 3, "'nodeport'", "did you mean nodePort?"),
        ("checks:\n- target: svc/web\n  timeout: 2s", 3, "'2s'", "0.1 to 60"),
        ("checks:\n- target: svc/web\n  timeout: .nan", 3, "'.nan'", "0.1 to 60"),
        ("checks:\n- target: svc/web\n  count: 1.5", 3, "whole number", "write 1"),
        ("checks:\n- target: svc/web\n  count: 1000", 3, "'1000'", "1 to 200"),
        ("checks:\n- target: svc/web\n  family: 5", 3, "'5'", "4, 6"),
        ("checks:\n- target: svc/web\n  from: client", 3, '"client"', "pod/client"),
        ("checks:\n- target: svc/web\n  name: ''", 3, "name is empty", "leave the key out"),
        ("checks:\n\n- target: http://web", 3, "is a URL", "web"),
        ("checks:\n- target: svc/web\n  target: svc/a", 3, "twice", "one of them"),
        ("checks:\n- target: svc/web\n  ? [a]\n  : b", 3, "a key is a list", "one word"),
        ("kind: Trace\nchecks: []", 1, "'Trace'", "Expectations"),
        ("checks: [", 1, "no YAML", "checks:"),
        ("checks:\n- target: a\n\tb", 3, "no YAML", "checks:"),
        ("checks: *x", 1, "no YAML", "checks:"),
    ],
)
def test_a_mistake_is_told_with_its_line(text: str, line: int, said: str, hint: str) -> None:
    with pytest.raises(UsageError) as raised:
        read_expectations(text, "checks.yaml", "default")
    assert raised.value.message.startswith(f"checks.yaml:{line}: ")
    assert said in raised.value.message
    assert hint in raised.value.hint


@pytest.mark.parametrize("text", ["", "# nothing\n", "[" * 5000, "x" * (2 << 20), "\x00"])
def test_what_has_no_line(text: str) -> None:
    with pytest.raises(UsageError) as raised:
        read_expectations(text, "checks.yaml", "default")
    assert raised.value.message.startswith("checks.yaml: ")
    assert raised.value.hint


def test_nothing_is_made_of_tags() -> None:
    text = "checks:\n- target: !!python/object/apply:os.system ['touch owned']"
    with pytest.raises(UsageError):
        read_expectations(text, "f", "default")


@given(st.text(alphabet="ab:-[]{}&*!|>'\"\n \tchecks target svc/", max_size=60))
def test_any_text_is_read_or_refused(text: str) -> None:
    for given_text in (text, f"checks:\n- target: svc/web\n  {text}"):
        with suppress(UsageError):
            read_expectations(given_text, "f", "default")
