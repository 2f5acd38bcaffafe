"""Entry points as importlib.metadata gives them, without it; whatever lies on the path."""

from __future__ import annotations

import sys
import zipfile
from importlib import metadata
from pathlib import Path

import pytest

from kptrace.plugins import discovery


def package(folder: Path, name: str, text: str) -> None:
    (folder / name).mkdir(parents=True)
    (folder / name / "entry_points.txt").write_text(text)
    for file in ("METADATA", "PKG-INFO"):
        (folder / name / file).write_text(f"Name: {name.split('-')[0]}\nVersion: 1\n")


def known_to_python(group: str) -> list[tuple[str, str]]:
    return sorted((one.name, one.value) for one in metadata.entry_points(group=group))


@pytest.mark.parametrize("group", ["kptrace.cni", "console_scripts", "pytest11", "nobody's"])
def test_here_they_are_those_that_python_knows(group: str) -> None:
    assert discovery.registered(group) == known_to_python(group)


def test_on_a_path_of_all_sorts_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    near, far = tmp_path / "near", tmp_path / "far"
    package(near, "Some_Thing-1.0.dist-info", "[other]\nx = y\n[g]\n# no\n a = m.n : o.p \n")
    package(far, "some.thing-2.0.dist-info", "[g]\nhidden = m\n")
    package(far, "old.egg-info", "[g]\nb=m [extra]\n\n[h]\nc = m\n")
    package(far, "else-1.dist-info", "[g]\nb = another\n")
    (far / "none-1.dist-info").mkdir()
    (far / "file.egg-info").write_text("[g]\nd = m\n")
    monkeypatch.setattr(sys, "path", [str(near), str(tmp_path / "missing"), str(far)])
    told = [("a", "m.n : o.p"), ("b", "another"), ("b", "m [extra]")]
    assert discovery.registered("g") == known_to_python("g") == told


def test_in_an_archive_and_an_egg_as_well(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with zipfile.ZipFile(tmp_path / "all.pyz", "w") as archive:
        archive.writestr("zipped-1.dist-info/entry_points.txt", "[g]\na = m\n")
        archive.writestr("zipped-1.dist-info/METADATA", "Name: zipped\nVersion: 1\n")
    package(tmp_path / "one.egg", "EGG-INFO", "[g]\nb = m\n")
    path = [str(tmp_path / "all.pyz"), str(tmp_path / "one.egg")]
    monkeypatch.setattr(sys, "path", path)
    assert discovery.registered("g") == known_to_python("g") == [("a", "m"), ("b", "m")]


def test_what_is_meant_is_loaded() -> None:
    assert discovery.load_object("os.path") is sys.modules["os.path"]
    assert discovery.load_object("json : decoder.JSONDecoder [extra]").__name__ == "JSONDecoder"  # type: ignore[attr-defined]


@pytest.mark.parametrize("value", ["", "a b", "os:", "os; rm", "no.such.module", "os:no_such"])
def test_what_is_not_there_is_an_error(value: str) -> None:
    with pytest.raises((ValueError, ImportError, AttributeError)):
        discovery.load_object(value)
