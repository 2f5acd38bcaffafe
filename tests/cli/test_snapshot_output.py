"""A snapshot is put where nothing is, readable by its owner only, and read back as a bundle."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from kptrace.bundle.collect import CollectedState
from kptrace.bundle.folder import Bundle
from kptrace.cli.snapshot_output import keep, place_for
from kptrace.model import EvidenceSource
from kptrace.model.errors import ObservationError, UsageError

FILES = {"node-a/ip-addr.json": b"[]", "api/services.json": b'{"items": []}'}
MADE = CollectedState(
    files=FILES, missing=(EvidenceSource(name="ipset-save.txt", node="node-a", unavailable="why"),)
)


@pytest.mark.parametrize("name", ["x.tar.gz", "x.tgz", "x"])
def test_read_back(tmp_path: Path, name: str) -> None:
    path = place_for(tmp_path / name, False)
    keep(path, MADE, ("node-a",))
    assert path.stat().st_mode & 0o077 == 0
    assert all(each.stat().st_mode & 0o077 == 0 for each in path.rglob("*"))
    bundle = Bundle(path)
    assert bundle.nodes == ("node-a",)
    assert bundle.node("node-a")["ip-addr.json"] == "[]"
    assert dict(bundle.api()) == {"services.json": b'{"items": []}'}
    assert [each.name for each in tmp_path.iterdir()] == [name]


def test_what_is_missing_goes_with_it(tmp_path: Path) -> None:
    keep(tmp_path / "x", MADE, ("node-a",))
    paper = json.loads((tmp_path / "x" / "snapshot.json").read_text())
    assert paper["kind"] == "Snapshot"
    assert paper["nodes"] == ["node-a"]
    assert paper["missing"][0]["unavailable"] == "why"


@pytest.mark.parametrize("name", ["x.tar.gz", "x"])
def test_nothing_is_written_over(tmp_path: Path, name: str) -> None:
    keep(tmp_path / name, MADE, ())
    with pytest.raises(UsageError, match="already there"):
        place_for(tmp_path / name, False)
    other = CollectedState(files={"node-b/ip-addr.json": b"[]"})
    keep(place_for(tmp_path / name, True), other, ())
    assert Bundle(tmp_path / name).nodes == ("node-b",)
    assert [each.name for each in tmp_path.iterdir()] == [name]


def test_force_replaces_no_folder_of_somebodys(tmp_path: Path) -> None:
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "letter").write_text("dear")
    with pytest.raises(UsageError, match="no snapshot"):
        place_for(tmp_path / "home", True)
    (tmp_path / "home.tar.gz").mkdir()
    with pytest.raises(UsageError, match="is a folder"):
        place_for(tmp_path / "home.tar.gz", True)
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="is a file"):
        place_for(tmp_path / "file", True)


def test_where_no_folder_is(tmp_path: Path) -> None:
    with pytest.raises(ObservationError, match="there is no folder"):
        place_for(tmp_path / "no" / "x", False)


@pytest.mark.parametrize("name", ["../evil/ip-addr.json", "/evil/x", "a/../../x"])
def test_a_nodes_name_is_no_path(tmp_path: Path, name: str) -> None:
    with pytest.raises(ObservationError, match="cannot be the name"):
        keep(tmp_path / "inner", CollectedState(files={name: b""}), ())
    assert list(tmp_path.iterdir()) == []


def test_an_older_one_is_there_again_when_it_fails(tmp_path: Path) -> None:
    keep(tmp_path / "x", MADE, ())
    with pytest.raises(ObservationError):
        keep(tmp_path / "x", CollectedState(files={"../x": b""}), ())
    assert Bundle(tmp_path / "x").nodes == ("node-a",)
    assert [each.name for each in tmp_path.iterdir()] == ["x"]
