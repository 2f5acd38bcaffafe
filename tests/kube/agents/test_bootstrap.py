"""What is sent to an image that holds Python alone."""

from __future__ import annotations

import io
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from kptrace.agent.sources import FILES
from kptrace.kube.agents.bootstrap import (
    PACKAGE,
    RemotePythonInfo,
    command,
    payload,
    source_checksum,
)
from kptrace.model.errors import UnsupportedError

HERE = RemotePythonInfo(same=False, python="3.11", abi="none", msgspec=True)


def unpacked(remote: RemotePythonInfo) -> zipfile.ZipFile:
    size, _, data = payload(remote, "an-image").partition(b"\n")
    assert int(size) == len(data)
    return zipfile.ZipFile(io.BytesIO(data))


def test_the_agents_files_alone_are_sent() -> None:
    assert unpacked(HERE).namelist() == [f"kptrace/{name}" for name in FILES]


def test_the_agent_starts_from_what_is_sent(tmp_path: Path) -> None:
    """In a Python that sees no other kptrace: the end of its input ends it at once."""
    unpacked(HERE).extractall(tmp_path)
    site = str(Path(__import__("msgspec").__file__).parents[1])
    code = (
        f"import sys; sys.path[:0] = [{str(tmp_path)!r}]; sys.path.append({site!r});"
        "import kptrace; assert kptrace.__file__.startswith(sys.path[0]);"
        "from kptrace.agent.server import main; main()"
    )
    done = subprocess.run(
        [sys.executable, "-S", "-c", code], input=b"", capture_output=True, timeout=60, check=False
    )
    assert (done.returncode, done.stderr) == (0, b"")


def test_a_change_of_one_file_changes_the_checksum(tmp_path: Path) -> None:
    names = FILES[:3]
    for name in names:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes((PACKAGE / name).read_bytes())
    before = source_checksum(str(tmp_path), names)
    assert before == source_checksum(str(PACKAGE), names)
    (tmp_path / names[-1]).write_text("changed")
    assert source_checksum(str(tmp_path), names) != before


def test_the_command_names_the_files_that_the_checksum_covers() -> None:
    program, option, boot, checksum, *files = command()
    assert (program, option, files) == ("python3", "-c", list(FILES))
    assert "source_checksum" in boot
    assert checksum == source_checksum(str(PACKAGE), FILES)


@pytest.mark.parametrize(
    ("remote", "reason"),
    [
        (RemotePythonInfo(same=False, python="3.9", abi="", msgspec=True), "needs 3.11"),
        (RemotePythonInfo(same=False, python="3.11", abi="none", msgspec=False), "without msgspec"),
    ],
)
def test_an_image_that_cannot_run_it(remote: RemotePythonInfo, reason: str) -> None:
    with pytest.raises(UnsupportedError, match=reason) as raised:
        payload(remote, "an-image")
    assert "--image" in raised.value.hint
