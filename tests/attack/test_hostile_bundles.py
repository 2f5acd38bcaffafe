"""Files that strangers send: too large, cut, of odd kinds; read under a limit of memory."""

from __future__ import annotations

import gzip
import io
import os
import resource
import subprocess
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from kptrace.bundle import archive
from kptrace.bundle.folder import Bundle
from kptrace.model.errors import ParseError

MEMORY = 3 << 30  # twice what a bundle may hold, and Python itself
SECONDS = 60


def limited() -> None:
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))


def explained(path: Path, *command: str) -> subprocess.CompletedProcess[str]:
    arguments = command or ("explain", "svc/web", "-n", "shop", "--bundle", str(path))
    return subprocess.run(
        [sys.executable, "-m", "kptrace", *arguments],
        capture_output=True,
        text=True,
        timeout=SECONDS,
        preexec_fn=limited,
        check=False,
    )


def refused(done: subprocess.CompletedProcess[str], why: str) -> None:
    assert "Traceback" not in done.stderr
    assert (done.returncode, why in done.stderr) == (3, True), done.stderr[-500:]


def tar_of(path: Path, add: Callable[[tarfile.TarFile], None], mode: str = "w") -> Path:
    with tarfile.open(path, mode) as tar:
        add(tar)
    return path


def member(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    entry = tarfile.TarInfo(name)
    entry.size = len(content)
    tar.addfile(entry, io.BytesIO(content))


def odd(kind: bytes, link: str = "") -> Callable[[tarfile.TarFile], None]:
    def add(tar: tarfile.TarFile) -> None:
        entry = tarfile.TarInfo("node-a/ip-route.json")
        entry.type, entry.linkname = kind, link
        tar.addfile(entry)

    return add


def test_many_files_that_unpack_to_much_count_together(tmp_path: Path) -> None:
    """Each alone is below the limit."""
    bomb = gzip.compress(bytes(300 << 20), 1)

    def add(tar: tarfile.TarFile) -> None:
        for number in range(6):
            member(tar, f"node-a/{number}.txt.gz", bomb)

    path = tar_of(tmp_path / "bomb.tar", add)
    assert path.stat().st_size < 16 << 20
    refused(explained(path), "holds more than")


def test_a_sparse_file_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "sparse.tar"
    with open(path, "wb") as file:
        file.truncate(20 << 30)
    refused(explained(path), "holds more than")


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        (tarfile.FIFOTYPE, "pipe"),
        (tarfile.CHRTYPE, "device"),
        (tarfile.BLKTYPE, "device"),
        (tarfile.SYMTYPE, "link"),
        (tarfile.LNKTYPE, "link"),
    ],
)
def test_an_odd_member_is_refused_by_name(tmp_path: Path, kind: bytes, said: str) -> None:
    path = tar_of(tmp_path / "odd.tar", odd(kind, "/etc/shadow"))
    done = explained(path)
    refused(done, f"'node-a/ip-route.json' is a {said}")


def test_an_archive_that_is_cut_at_a_member_is_not_whole(tmp_path: Path) -> None:
    def add(tar: tarfile.TarFile) -> None:
        member(tar, "node-a/ip-route.json", b"[]")
        member(tar, "node-a/iptables-save.txt", b"*nat\nCOMMIT\n")

    whole = tar_of(tmp_path / "whole.tar", add).read_bytes()
    assert set(archive.read(tmp_path / "whole.tar")) == {
        "node-a/ip-route.json",
        "node-a/iptables-save.txt",
    }
    cut = tmp_path / "cut.tar"
    cut.write_bytes(whole[:1024])  # the first header and its file
    with pytest.raises(ParseError, match="is cut off"):
        archive.read(cut)


def test_every_member_of_a_gzip_file_is_read(tmp_path: Path) -> None:
    """``cat a.gz b.gz`` is a gzip file, in an archive as in a folder."""
    both = gzip.compress(b"*nat\n") + gzip.compress(b"COMMIT\n")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "iptables-save.txt.gz").write_bytes(both)
    path = tar_of(tmp_path / "a.tar", lambda tar: member(tar, "iptables-save.txt.gz", both))
    expected = {"iptables-save.txt": b"*nat\nCOMMIT\n"}
    assert archive.read(path) == expected
    assert archive.read(tmp_path / "folder") == expected


def test_an_archive_as_tar_makes_one_of_a_folder(tmp_path: Path) -> None:
    (tmp_path / "node-a").mkdir()
    (tmp_path / "node-a" / "ip-route.json").write_text("[]")
    subprocess.run(["tar", "czf", tmp_path / "x.tgz", "-C", tmp_path, "node-a"], check=True)
    assert archive.read(tmp_path / "x.tgz") == {"node-a/ip-route.json": b"[]"}


@pytest.mark.parametrize("link", ["", "/dev/zero"])
def test_a_pipe_or_a_device_in_a_folder_is_not_opened(tmp_path: Path, link: str) -> None:
    node = tmp_path / "node-a"
    node.mkdir()
    (node / "ip-route.json").write_text("[]")
    if link:
        (node / "iptables-save.txt").symlink_to(link)
    else:
        os.mkfifo(node / "iptables-save.txt")
    refused(explained(tmp_path), "is not a regular file")


def test_a_dangling_link_is_a_missing_file(tmp_path: Path) -> None:
    node = tmp_path / "node-a"
    node.mkdir()
    (node / "ip-route.json").write_text("[]")
    (node / "iptables-save.txt").symlink_to(tmp_path / "gone")
    assert "iptables-save.txt" not in Bundle(tmp_path).node("node-a")
