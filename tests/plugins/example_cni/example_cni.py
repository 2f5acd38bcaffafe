"""An example of a plugin that is no part of kptrace: a network whose device is ``example0``."""

from __future__ import annotations

from collections.abc import Mapping

from kptrace.plugins.registry import DetectedCni
from kptrace.simulate.snapshot.snapshot import Snapshot


class Example:
    name = "example"

    def wants(self) -> tuple[str, ...]:
        return ("example.txt",)

    def detect(self, node: Snapshot, files: Mapping[str, str]) -> DetectedCni | None:
        if node.link("example0") is None:
            return None
        return DetectedCni(
            name="Example",
            sure=1.0,
            signal="device example0",
            limits=(f"all that it says of itself: {files.get('example.txt', 'nothing').strip()}",),
        )


EXAMPLE = Example()
