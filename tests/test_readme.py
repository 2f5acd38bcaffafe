"""The pages are true: causes are those of the code, and the files that they name are there."""

from __future__ import annotations

import re
from pathlib import Path

from kptrace.diagnose.catalogue.causes import CAUSES

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
ARCHITECTURE = (ROOT / "kptrace" / "README.md").read_text(encoding="utf-8")


def test_every_cause_is_listed_with_its_title() -> None:
    listed = dict(re.findall(r"^\| `([a-z-]+)` \| (.*) \|$", ARCHITECTURE, re.MULTILINE))
    assert listed == {cause.id: cause.title for cause in CAUSES.values()}


def test_a_user_can_read_it_in_one_sitting() -> None:
    assert len(README.splitlines()) <= 250


def test_what_it_names_is_there() -> None:
    named = re.findall(r"`((?:kptrace|tests|plugins)/[\w./]+)`", README)
    assert len(named) >= 3
    assert [path for path in named if not (ROOT / path).exists()] == []


def test_the_places_that_the_architecture_names_are_there() -> None:
    """Paths of files are below the package, or from the root."""
    named = re.findall(r"`([\w/]+\.(?:py|toml))`", ARCHITECTURE)
    assert len(named) > 20
    named = [path for path in named if "NAME" not in path]
    roots = (ROOT, ROOT / "kptrace")
    missing = [path for path in named if not any((root / path).exists() for root in roots)]
    assert missing == []


def test_its_make_targets_exist() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for target in re.findall(r"`?make ([a-z]+)", README):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target
