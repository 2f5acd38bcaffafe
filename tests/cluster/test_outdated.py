"""Which sets of binaries go: none that is used, being built, or younger than two weeks."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest
from cluster.ground import home, outdated
from cluster.ground.home import Home, State

OWN, RUN, OLD, NEW = (digit * 16 for digit in "abcd")
OTHERS = ("archive", "image", "images", "clusters", "go-build", "0123")  # no sets


@pytest.fixture(scope="module", autouse=True)
def as_begun() -> None:
    """No cluster is needed for this."""


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Everything is old but one; a cluster runs on another."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    folder = home.cache()
    for name in (OWN, RUN, OLD, NEW, *OTHERS):
        (folder / name / "bin").mkdir(parents=True)
    Home("mine").write(State(7, "iptables", "vxlan", str(folder / RUN / "bin")))
    long_ago = time.time() - (outdated.DAYS + 1) * 24 * 3600
    for name in (OWN, RUN, OLD, *OTHERS):
        os.utime(folder / name, (long_ago, long_ago))
    return folder


def names(folder: Path) -> set[str]:
    return {one.name for one in folder.iterdir()}


def test_what_nobody_uses_goes(cache: Path) -> None:
    outdated.use(cache / OWN)
    assert names(cache) == {OWN, RUN, NEW, *OTHERS}
    assert (cache / OWN / "bin").is_dir()


def test_what_was_used_is_young_again(cache: Path) -> None:
    outdated.use(cache / OLD)
    outdated.use(cache / NEW)
    assert OLD in names(cache)
    assert OWN not in names(cache)


def test_a_set_that_is_about_to_be_built_has_its_folder(cache: Path) -> None:
    made = cache / ("e" * 16)
    outdated.use(made)
    outdated.use(cache / OWN)
    assert made.is_dir()


def test_a_removal_that_was_killed_is_ended(cache: Path) -> None:
    half = cache / (OLD + outdated.DOOMED)
    (cache / OLD).rename(half)
    outdated.use(cache / OWN)
    assert not half.exists()
