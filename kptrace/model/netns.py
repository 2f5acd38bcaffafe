"""A network namespace, by node and pod."""

from __future__ import annotations

from kptrace.model.base import Value


class Netns(Value, order=True):
    """A network namespace: a node's own (``pod`` empty) or a pod's."""

    node: str
    pod: str = ""

    @property
    def name(self) -> str:
        """The name that reports use: ``host`` for the node's own, else ``namespace/pod``."""
        return self.pod or "host"
