"""Regression cases: a folder each, small enough to read.

    NAME/rules/LOADER     what was loaded, for people and for a kernel
    NAME/router/FILE      the same as the kernel gave it back: what the walk reads
    NAME/packet.json      the packet (packets.Sent)
    NAME/expected.json    what the kernel did with it (witness.Observation)
    _ground/PLACE/FILE    the namespaces that the packets pass, the same for all cases

A case says what the kernel said, so it is replayed without one.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from pathlib import Path

import msgspec
from differential.observation import Observation
from differential.packets import Sent
from differential.plan import with_rules, world_of

from kptrace.model import Value
from kptrace.simulate.topology import Topology

FOLDER = Path(__file__).parent.parent / "cases" / "differential"
_GROUND = FOLDER / "_ground"


class Case(Value):
    """saved: by names in a bundle."""

    name: str
    rules: Mapping[str, str]
    saved: Mapping[str, str]
    sent: Sent
    expected: Observation

    def world(self) -> Topology:
        return with_rules(_ground(), dict(self.saved))


def names() -> list[str]:
    return sorted(path.name for path in FOLDER.glob("[!_]*") if path.is_dir())


def read(name: str) -> Case:
    folder = FOLDER / name
    return Case(
        name=name,
        rules=_texts(folder / "rules"),
        saved=_texts(folder / "router"),
        sent=msgspec.json.decode((folder / "packet.json").read_bytes(), type=Sent),
        expected=msgspec.json.decode((folder / "expected.json").read_bytes(), type=Observation),
    )


def write(case: Case, state: Mapping[str, Mapping[str, str]]) -> Path:
    """state: the ground's, kept with the first case."""
    folder = FOLDER / case.name
    _keep(folder / "rules", case.rules)
    _keep(folder / "router", {name: text for name, text in case.saved.items() if text})
    for name, value in (("packet.json", case.sent), ("expected.json", case.expected)):
        text = msgspec.json.format(msgspec.json.encode(value), indent=1)
        (folder / name).write_bytes(text + b"\n")
    if not _GROUND.is_dir():
        for place, files in state.items():
            _keep(_GROUND / place, files)
    return folder


def _texts(folder: Path) -> dict[str, str]:
    return {path.name: path.read_text(encoding="utf-8") for path in sorted(folder.iterdir())}


def _keep(folder: Path, texts: Mapping[str, str]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in texts.items():
        (folder / name).write_text(text, encoding="utf-8")


@cache
def _ground() -> Topology:
    return world_of({path.name: _texts(path) for path in sorted(_GROUND.iterdir())})
