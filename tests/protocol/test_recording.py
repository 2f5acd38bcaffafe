"""A run goes into files and comes back whole; broken ones say what is wrong with them."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from kptrace.bundle import archive
from kptrace.model import Flow, Netns, Probe, ProbeResult, Resolution, Source, Target, TraceRequest
from kptrace.model.errors import ObservationError, ParseError
from kptrace.protocol import Done, FileContent
from kptrace.protocol.recording import RUN_FILE, Recording, files_by_netns, pack, unpack

NODE, POD = Netns(node="node-a"), Netns(node="node-a", pod="shop/client")
FLOW = Flow(protocol="tcp", src="10.0.0.1", sport=1, dst="10.0.0.2", dport=2)
RUN = Recording(
    request=TraceRequest(
        target=Target(kind="service", text="svc/web", name="web", namespace="shop")
    ),
    source=Source(kind="pod", netns=POD),
    resolution=Resolution(address="10.0.0.2", port=2, protocol="tcp"),
    api={"services.json": '{"items": []}'},
    probes=(Probe(probe_id=5, flow=FLOW, payload=b"\x00\xff"),),
    replies=(
        FileContent(id=1, netns=NODE, file="ip-addr.json", text="[1]"),
        FileContent(id=1, netns=POD, file="ip-addr.json", text="[2]"),
        FileContent(id=1, netns=POD, file="ipset-save.txt", unavailable="no ipset here"),
        Done(id=1),
        ProbeResult(
            probe_id=5, flow=FLOW, result="connected", sent_ns=1, elapsed_us=2, data=b"x\n"
        ),
    ),
)


def test_packed_and_unpacked_it_is_the_same() -> None:
    assert unpack(pack(RUN), "x") == RUN


def test_a_saved_run_is_a_bundle() -> None:
    files = pack(RUN)
    assert set(files) == {
        "api/services.json",
        "node-a/ip-addr.json",
        "node-a/pods/shop/client/ip-addr.json",
        RUN_FILE,
    }
    assert files["node-a/ip-addr.json"] == b"[1]"


def test_facts_by_place() -> None:
    assert files_by_netns(RUN.replies) == {
        NODE: {"ip-addr.json": "[1]"},
        POD: {"ip-addr.json": "[2]"},
    }


def test_through_a_file(tmp_path: Path) -> None:
    path = tmp_path / "run.tar.gz"
    archive.write(path, pack(RUN))
    assert unpack(archive.read(path), path.name) == RUN
    assert [p.name for p in tmp_path.iterdir()] == ["run.tar.gz"]


def test_the_same_run_makes_the_same_bytes(tmp_path: Path) -> None:
    for name in ("a", "b"):
        archive.write(tmp_path / name, pack(RUN))
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_from_a_folder(tmp_path: Path) -> None:
    for name, content in pack(RUN).items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(content)
    assert unpack(archive.read(tmp_path), "x") == RUN


def test_a_file_that_is_gone_is_evidence_that_is_missing() -> None:
    files = pack(RUN)
    del files["node-a/ip-addr.json"]
    assert NODE not in files_by_netns(unpack(files, "x").replies)


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ({}, "no run.json"),
        ({RUN_FILE: b"{"}, "run.json"),
        ({RUN_FILE: b"[]"}, "Expected `object`"),
        ({**pack(RUN), "node-a/ip-addr.json": b"\xff"}, "not UTF-8"),
        ({RUN_FILE: msgspec.json.encode(msgspec.structs.replace(RUN, version=9))}, "form 9"),
    ],
)
def test_what_is_no_run_is_refused(files: dict[str, bytes], words: str) -> None:
    with pytest.raises(ParseError) as error:
        unpack(files, "file")
    assert words in error.value.message


def test_an_archive_that_is_none(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"hello")
    with pytest.raises(ParseError):
        archive.read(tmp_path / "x")
    with pytest.raises(ObservationError, match="there is no"):
        archive.read(tmp_path / "y")


def test_a_cut_archive(tmp_path: Path) -> None:
    path = tmp_path / "run.tar.gz"
    archive.write(path, pack(RUN))
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(ParseError):
        unpack(archive.read(path), "x")


def test_a_place_that_cannot_be_written_to(tmp_path: Path) -> None:
    with pytest.raises(ObservationError, match="cannot be written"):
        archive.write(tmp_path / "no" / "such" / "x", pack(RUN))
