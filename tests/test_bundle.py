"""A bundle is read as it lies: folders, archives, gzip, an API that is elsewhere; nothing else."""

from __future__ import annotations

import gzip
import os
import tarfile
from pathlib import Path

import pytest

from kptrace.bundle import Bundle
from kptrace.errors import BadDump, CannotLook, NotFound

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
    with pytest.raises(BadDump, match="names no folder beside the bundle"):
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
    with pytest.raises(BadDump, match="cannot be read"):
        bundle.node("node-b")["nft-ruleset.json"]


def test_what_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(CannotLook, match="there is no"):
        Bundle(tmp_path / "none")
    with pytest.raises(NotFound, match="holds no node node-c") as caught:
        Bundle(make(tmp_path / "b")).node("node-c")
    assert caught.value.hint == "it holds: node-a, node-b"


def test_text_that_is_none(tmp_path: Path) -> None:
    folder = make(tmp_path / "b")
    (folder / "node-a" / "iptables-save.txt").write_bytes(b"\xff")
    with pytest.raises(BadDump, match="not UTF-8 at byte 0"):
        Bundle(folder).node("node-a")["iptables-save.txt"]
