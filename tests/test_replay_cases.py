"""Saved runs of real labs: their reports, anywhere, for ever; and what is said of broken ones.

``tests/cases/replay-*`` were written by ``kptrace ... --save``. What their reports must
say follows from what was done to the labs; the golden pages beside them were read by a person.
"""

from __future__ import annotations

import gzip
import io
import random
import tarfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import msgspec
import pytest

from kptrace.bundle import archive
from kptrace.model import (
    CapturedPacket,
    ConntrackEntry,
    DropEvent,
    EventsLost,
    Netns,
    Outcome,
    ProbeResult,
    RuleTraceEvent,
)
from kptrace.model.errors import ObservationError, ParseError
from kptrace.protocol import Reply
from kptrace.protocol.recording import Recording, unpack
from kptrace.render.text import text
from kptrace.trace.trace import report

NAMES = ("replay-delivered", "replay-tunnel-port-blocked")


def saved(cases: Path, name: str) -> Recording:
    path = cases / name
    return unpack(archive.read(path), path.name)


@pytest.mark.parametrize("name", NAMES)
def test_its_page(cases: Path, name: str, golden: Callable[[Path, str], None]) -> None:
    page = text(report(saved(cases, name)), width=80, colour=False, wide=False)
    golden(cases / f"{name}.txt", page)


def test_delivered(cases: Path) -> None:
    made = report(saved(cases, "replay-delivered"))
    assert (made.outcome, made.findings) == (Outcome.DELIVERED, ())
    actions = [hop.action for hop in made.hops if hop.action not in ("seen", "reply", "route")]
    assert actions == ["sent", "dnat", "encap", "decap", "delivered"]
    assert made.hops[0].netns == "shop/client"
    (delivered,) = (hop for hop in made.hops if hop.action == "delivered")
    assert (delivered.node, delivered.netns) == ("node-b", "shop/remote-1")
    assert made.evidence.prediction_match is not None
    assert made.evidence.prediction_match.seen == made.evidence.prediction_match.predicted == 20


def test_blocked(cases: Path) -> None:
    made = report(saved(cases, "replay-tunnel-port-blocked"))
    assert made.outcome is Outcome.DROPPED
    assert (made.findings[0].cause, made.findings[0].node) == ("tunnel-port-blocked", "node-b")
    assert made.hops[-1].action == "dropped"


def test_replayed_twice_it_says_the_same(cases: Path) -> None:
    assert report(saved(cases, NAMES[0])) == report(saved(cases, NAMES[0]))


# --- evidence that is missing ---------------------------------------------------------------------


def without(run: Recording, *kinds: type, node: str = "") -> Recording:
    """The run as it would be, had a source of evidence on a node (on all) said nothing."""
    kept = tuple(
        reply
        for reply in run.replies
        if not isinstance(reply, kinds) or (node and _node(reply) != node)
    )
    return msgspec.structs.replace(run, replies=kept)


def _node(reply: Reply) -> str:
    place = getattr(reply, "netns", None)
    return place.node if place else getattr(reply, "node", "")


def timed_out(run: Recording) -> Recording:
    """The sender heard nothing."""
    heard = tuple(
        msgspec.structs.replace(reply, result="timeout", data=b"")
        if isinstance(reply, ProbeResult)
        else reply
        for reply in run.replies
    )
    return msgspec.structs.replace(run, replies=heard)


def losing(run: Recording, layer: str, node: str) -> Recording:
    lost = EventsLost(netns=Netns(node=node), source=layer, count=3)
    return msgspec.structs.replace(run, replies=(*run.replies, lost))


def test_without_the_rule_trace_the_rule_is_inferred(cases: Path) -> None:
    made = report(without(saved(cases, "replay-delivered"), RuleTraceEvent))
    assert made.outcome is Outcome.DELIVERED
    (dnat,) = (hop for hop in made.hops if hop.action == "dnat")
    assert not dnat.observed


def test_without_taps_no_place_is_claimed(cases: Path) -> None:
    """The sender was answered, so it is delivered; where and how nobody saw."""
    made = report(without(saved(cases, "replay-delivered"), CapturedPacket))
    assert made.outcome is Outcome.DELIVERED
    assert not [hop for hop in made.hops if hop.action in ("seen", "delivered", "reply")]
    assert made.evidence.prediction_match is not None
    assert made.evidence.prediction_match.seen == 0


def test_without_the_sender_nothing_is_claimed(cases: Path) -> None:
    made = report(without(saved(cases, "replay-delivered"), ProbeResult, CapturedPacket))
    assert made.outcome is Outcome.INCONCLUSIVE


@pytest.mark.parametrize(("lost", "outcome"), [(0, Outcome.DROPPED), (1, Outcome.INCONCLUSIVE)])
def test_only_taps_that_lost_nothing_can_say_that_it_was_lost(
    cases: Path, lost: int, outcome: Outcome
) -> None:
    """It left node-a, and node-b, which watched, says nothing at all."""
    silent = without(
        saved(cases, "replay-delivered"), CapturedPacket, RuleTraceEvent, DropEvent, node="node-b"
    )
    run = timed_out(without(silent, ConntrackEntry, node="node-b"))
    back = tuple(
        reply
        for reply in run.replies
        if not (isinstance(reply, CapturedPacket) and reply.packet.innermost.flags != "S")
    )
    run = msgspec.structs.replace(run, replies=back)
    made = report(losing(run, "capture", "node-b") if lost else run)
    assert made.outcome is outcome
    assert not [hop for hop in made.hops if hop.action == "delivered"]


def test_the_drop_report_alone_says_that_a_rule_did_it(cases: Path) -> None:
    made = report(without(saved(cases, "replay-tunnel-port-blocked"), RuleTraceEvent))
    assert made.outcome is Outcome.DROPPED
    assert made.findings[0].cause == "tunnel-port-blocked"
    assert any("no rule trace" in line for line in made.findings[0].evidence)


# --- broken files ---------------------------------------------------------------------------------


def packed(cases: Path, folder: Path) -> bytes:
    """A saved run as ``--save FILE.tar.gz`` writes it."""
    path = folder / "whole.tar.gz"
    archive.write(path, archive.read(cases / NAMES[0]))
    return path.read_bytes()


def replayed(path: Path) -> None:
    report(unpack(archive.read(path), path.name))


@pytest.mark.parametrize("kept", [0, 1, 10, 300, 0.5, 0.9, 0.999])
def test_cut(cases: Path, tmp_path: Path, kept: float) -> None:
    whole = packed(cases, tmp_path)
    path = tmp_path / "cut.tar.gz"
    path.write_bytes(whole[: int(kept * len(whole)) if 0 < kept < 1 else int(kept)])
    with pytest.raises(ParseError, match=r"cut\.tar\.gz"):
        replayed(path)


def test_tampered(cases: Path, tmp_path: Path) -> None:
    """A bit here and there: gzip's own sum finds it, whatever was read before."""
    whole = packed(cases, tmp_path)
    path = tmp_path / "tampered.tar.gz"
    some = random.Random(4)
    for _ in range(40):
        at = some.randrange(10, len(whole))
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 1 << some.randrange(8)]) + whole[at + 1 :])
        with pytest.raises(ParseError, match=r"tampered\.tar\.gz"):
            replayed(path)


def test_no_saved_run(tmp_path: Path) -> None:
    with pytest.raises(ObservationError, match="there is no"):
        replayed(tmp_path / "nothing.tar.gz")
    path = tmp_path / "other.tar.gz"
    with tarfile.open(path, "w:gz") as tar:
        tar.addfile(tarfile.TarInfo("notes.txt"), io.BytesIO())
    with pytest.raises(ParseError, match=r"holds no run\.json"):
        replayed(path)


def test_a_cut_file_in_a_folder(tmp_path: Path) -> None:
    whole = gzip.compress(b"net.ipv4.ip_forward = 1\n")
    (tmp_path / "sysctl.txt.gz").write_bytes(whole)
    assert archive.read(tmp_path) == {"sysctl.txt": b"net.ipv4.ip_forward = 1\n"}
    (tmp_path / "sysctl.txt.gz").write_bytes(whole[:-9])
    with pytest.raises(ParseError, match="its end is missing"):
        archive.read(tmp_path)


def test_words_changed_inside(cases: Path, tmp_path: Path) -> None:
    """Well-formed archives with other contents: a report or an error of ours, nothing else."""
    files = archive.read(cases / NAMES[0])
    some = random.Random(5)
    path = tmp_path / "changed.tar.gz"
    for name in sorted(files):
        content = bytearray(files[name])
        for _ in range(3 if content else 0):
            at = some.randrange(len(content))
            content[at : at + some.randrange(1, 9)] = some.randbytes(some.randrange(4))
        archive.write(path, {**files, name: bytes(content)})
        with suppress(ObservationError):
            replayed(path)
