"""Results as GitHub shows them, as Markdown, and as a list for a person."""

from __future__ import annotations

import html
import re
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from kptrace.model import Outcome, Target, Trace, TraceRequest
from kptrace.model.errors import NotFoundError
from kptrace.render.github import guarded, notes
from kptrace.render.markdown import markdown
from kptrace.render.verify import verification
from kptrace.verify.results import Expectation, Result, Verification, seen, unseen, untried

GOLDEN = Path(__file__).parent / "golden"
ABOUT = {"kptrace": "0.1.0", "proxy": "iptables", "network": "Flannel (VXLAN)"}
EVIL = "svc/x\x1b[2J\n::error::owned %0A | `a` <b>@root</b> ![x](y) $z$"


def asked(trace: Trace, line: int, *expect: Outcome, name: str = "") -> Expectation:
    return Expectation(
        request=TraceRequest(target=trace.target, expect=expect), line=line, name=name
    )


@pytest.fixture
def made(samples: dict[str, Trace]) -> Verification:
    """One of each kind."""
    delivered, dropped = samples["delivered-vxlan"], samples["dropped-tunnel-port"]
    closed = asked(delivered, 5, Outcome.DROPPED, Outcome.REJECTED, name="metrics are closed")
    lost = Target(kind="service", text="svc/lost", name="lost", namespace="shop")
    question = TraceRequest(target=lost, source="pod/client", via="nodePort", node="node-b")
    missing = NotFoundError("no Service lost in namespace shop", "did you mean svc/last -n shop?")
    return Verification(
        file="checks.yaml",
        results=(
            seen(asked(delivered, 3), delivered),
            seen(asked(dropped, 4), dropped, "runs/4-svc-remote.tar.gz"),
            seen(closed, delivered),
            seen(asked(samples["inconclusive"], 9), samples["inconclusive"]),
            unseen(Expectation(request=question, line=11), missing),
        ),
        about=ABOUT,
    )


@pytest.fixture
def evil(samples: dict[str, Trace]) -> Result:
    target = Target(kind="service", text=EVIL, name=EVIL, namespace="shop")
    trace = msgspec.structs.replace(samples["refused"], target=target, summary=EVIL)
    return seen(asked(trace, 1, name=EVIL), trace)


@pytest.mark.parametrize("width", [40, 80])
def test_a_list_for_a_person(
    made: Verification, width: int, golden: Callable[[Path, str], None]
) -> None:
    told = verification(made, width)
    assert max(map(len, told.splitlines())) <= width
    golden(GOLDEN / f"verification.{width}.txt", told)


def test_the_wide_form_has_each_failed_trace_in_it(made: Verification) -> None:
    told = verification(made, wide=True)
    assert told.count("VXLAN 1, ") > 1
    assert told.endswith(verification(made))


def test_colour_only_repeats_words(made: Verification) -> None:
    coloured = verification(made, colour=True)
    assert re.sub(r"\x1b\[[\d;]*m", "", coloured) == verification(made)
    assert coloured != verification(made)


def test_a_list_of_nothing_but_successes(made: Verification) -> None:
    good = Verification(file="checks.yaml", results=made.having("passed"))
    told = verification(good)
    assert "1 of 1 as expected" in told
    assert "Not as expected" not in told


def test_notes(made: Verification) -> None:
    assert notes(made.results).splitlines() == [
        "::error title=svc/remote (shop) from pod/client on node-a%3A DROPPED on node-b"
        "::the VXLAN packet reached node-b and was dropped there",
        "::error title=metrics are closed%3A DELIVERED in 410 us"
        "::delivered to pod shop/remote-1 on node-b; expected dropped or rejected",
        "::error title=svc/lost (shop) from pod/client%3A could not be looked at"
        "::no Service lost in namespace shop",
        "::warning title=svc/remote (shop) from pod/client on node-a%3A INCONCLUSIVE"
        f"::{made.results[3].trace and made.results[3].trace.summary}",
    ]


def test_no_more_notes_than_are_shown(made: Verification) -> None:
    failed = made.results[1]
    assert len(notes([failed] * 10).splitlines()) == 10
    lines = notes([failed] * 12).splitlines()
    assert len(lines) == 10
    assert lines[-1].startswith("::error title=kptrace::3 more are not as expected")


def test_no_name_is_a_command(evil: Result) -> None:
    (line,) = notes([evil]).splitlines()
    command, title, message = re.fullmatch(r"::(\w+) title=([^,:]*)::(.*)", line).groups()  # type: ignore[union-attr]
    assert command == "error"
    assert "\x1b" not in line
    assert "%0A" not in title.replace("%250A", "")
    assert "%250A" in message
    log = guarded(f"first\n{EVIL}", "random").splitlines()
    assert (log[0], log[-1]) == ("::stop-commands::random", "::random::")


def test_markdown(made: Verification, golden: Callable[[Path, str], None]) -> None:
    golden(GOLDEN / "verification.md", markdown(made))


def test_no_name_is_markdown(evil: Result) -> None:
    page = markdown(Verification(file="f", results=(evil,)))
    table, _, whole = page.partition("<details>")
    assert not set(table.replace("`no-listener`", "")) & set("\x1b`<>@[]$~")
    row = table.splitlines()[4]
    assert row.count("|") == 6
    assert EVIL.replace("\x1b", "\\x1b").replace("\n", "\\n") in html.unescape(row)
    fence = re.search(r"^(`+)text$", whole, re.MULTILINE)
    assert fence
    assert whole.count(f"\n{fence[1]}\n") == 1


def test_markdown_that_does_not_fit(made: Verification) -> None:
    whole = len(markdown(made).encode())
    for most in (whole - 1, whole // 2, 1000, 300, 80):
        page = markdown(made, most)
        assert len(page.encode()) <= max(most, 100)
        assert page.startswith("### kptrace: 1 of 5 as expected")
        assert "log" in page


def test_what_an_interrupt_left_untried_is_no_failure(samples: dict[str, Trace]) -> None:
    trace = samples["delivered-vxlan"]
    results = (seen(asked(trace, 3), trace), untried(asked(trace, 4), "not tried"))
    made = Verification(file="f", results=results)
    assert "1 of 2 as expected, then interrupted" in verification(made)
    assert "Not as expected" not in verification(made)
    page = markdown(made)
    assert "➖" in page
    assert "<details>" not in page
    assert notes(made.results) == ""
