"""A bundle is read as it lies: folders, archives, gzip, an API that is elsewhere; nothing else."""

from __future__ import annotations

import gzip
import os
import tarfile
from pathlib import Path

import pytest

from kptrace.bundle.folder import Bundle
from kptrace.model.errors import NotFoundError, ObservationError, ParseError
from kptrace.rules.load import BatchedFiles

RULES = "*nat\nCOMMIT\n"


def make(folder: Path) -> Path:
    (folder / "node-a").mkdir(parents=True)
    (folder / "node-a" / "iptables-save.txt").write_text(RULES)
    (folder / "node-b").mkdir()
    (folder / "node-b" / "nft-ruleset.json.gz").write_bytes(gzip.compress(b"{}"))
    (folder / "notes").mkdir()
    (folder / "FLAGS.txt").write_text("x")
    (folder / "api").mkdir()
    (folder / "api" / "services.json").write_text('{"items": []}')
    (folder / "api" / "version.json").write_text("{}")
    return folder


def same(bundle: Bundle) -> None:
    assert bundle.nodes == ("node-a", "node-b")
    assert bundle.node("node-a")["iptables-save.txt"] == RULES
    assert bundle.node("node-b")["nft-ruleset.json"] == "{}"
    assert "ip-addr.json" not in bundle.node("node-a")
    assert dict(bundle.api()) == {"services.json": b'{"items": []}'}


def test_a_folder(tmp_path: Path) -> None:
    same(Bundle(make(tmp_path / "b")))


@pytest.mark.parametrize("top", ["", "b/"])
@pytest.mark.parametrize("mode", ["w", "w:gz"])
def test_an_archive(tmp_path: Path, top: str, mode: str) -> None:
    folder = make(tmp_path / "b")
    with tarfile.open(tmp_path / "b.tar", mode) as tar:  # type: ignore[call-overload]
        for path in sorted(folder.rglob("*")):
            if path.parent != folder:
                tar.add(path, top + path.relative_to(folder).as_posix(), recursive=False)
    same(Bundle(tmp_path / "b.tar"))


@pytest.mark.parametrize("how", ["file", "link"])
def test_an_api_that_several_bundles_share(tmp_path: Path, how: str) -> None:
    folder = make(tmp_path / "b")
    (folder / "api").rename(tmp_path / "_api")
    if how == "file":
        (folder / "api").write_text("../_api\n")
    else:
        (folder / "api").symlink_to("../_api")
    same(Bundle(folder))


@pytest.mark.parametrize("said", ["../../etc", "/etc", "../nowhere", "", "../_api\0"])
def test_an_api_file_leads_nowhere_else(tmp_path: Path, said: str) -> None:
    folder = make(tmp_path / "deep" / "b")
    (tmp_path / "etc").mkdir()
    (folder / "api").rename(tmp_path / "_api")
    (folder / "api").write_text(said)
    with pytest.raises(ParseError, match="names no folder beside the bundle"):
        Bundle(folder)


def test_no_api_at_all(tmp_path: Path) -> None:
    folder = make(tmp_path / "b")
    (folder / "api" / "services.json").unlink()
    assert dict(Bundle(folder).api()) == {}


def test_only_what_is_asked_for_is_read(tmp_path: Path) -> None:
    folder = make(tmp_path / "b")
    os.truncate(folder / "node-b" / "nft-ruleset.json.gz", 12)
    bundle = Bundle(folder)
    assert bundle.node("node-a")["iptables-save.txt"] == RULES
    with pytest.raises(ParseError, match="cannot be read"):
        bundle.node("node-b")["nft-ruleset.json"]


def test_what_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ObservationError, match="there is no"):
        Bundle(tmp_path / "none")
    with pytest.raises(NotFoundError, match="holds no node node-c") as caught:
        Bundle(make(tmp_path / "b")).node("node-c")
    assert caught.value.hint == "it holds: node-a, node-b"


def test_text_that_is_none(tmp_path: Path) -> None:
    folder = make(tmp_path / "b")
    (folder / "node-a" / "iptables-save.txt").write_bytes(b"\xff")
    with pytest.raises(ParseError, match="not UTF-8 at byte 0"):
        Bundle(folder).node("node-a")["iptables-save.txt"]


RUN = {
    "run.json": "{}",
    "node-a/ip-addr.json": "[]",
    "node-a/rules/tables.json": '{"tables": []}',
    "node-a/rules/nft/ip/nat/chain/A.json": "{}",
    "node-a/pods/shop/web/ip-addr.json": "[]",
}


@pytest.mark.parametrize("packed", [True, False])
def test_of_a_saved_run_what_its_trace_reached(tmp_path: Path, packed: bool) -> None:
    """Another rule is not as if there were none."""
    for name, text in RUN.items():
        path = tmp_path / "run" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    path = tmp_path / "run"
    if packed:
        path = tmp_path / "run.tar.gz"
        with tarfile.open(path, "w:gz") as tar:
            for name in RUN:
                tar.add(tmp_path / "run" / name, name)
    bundle = Bundle(path)
    assert bundle.nodes == ("node-a",)
    files = bundle.node("node-a")
    assert isinstance(files, BatchedFiles)
    assert files.get_many(["rules/nft/ip/nat/chain/A.json"])
    assert files.get_many(["sysctl.txt"]) == {}
    with pytest.raises(NotFoundError, match="what its trace reached"):
        files.get_many(["rules/nft/ip/nat/chain/B.json"])
