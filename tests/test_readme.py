"""README is true: its causes are those of the code, and the files that it names are there."""

from __future__ import annotations

import re
from pathlib import Path

from kptrace.diagnose.catalogue.causes import CAUSES

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_every_cause_is_listed_with_its_title() -> None:
    listed = dict(re.findall(r"^\| `([a-z-]+)` \| (.*) \|$", README, re.MULTILINE))
    assert listed == {cause.id: cause.title for cause in CAUSES.values()}


def test_what_it_names_is_there() -> None:
    named = re.findall(r"`((?:kptrace|tests|plugins)/[\w./]+)`", README)
    assert len(named) > 4
    assert [path for path in named if not (ROOT / path).exists()] == []


def test_its_make_targets_exist() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for target in re.findall(r"`?make ([a-z]+)", README):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target
