"""The lab as a ground for a trace: its documents, and one agent a node, on this machine.

The agents are processes of ours that enter the lab's namespaces; leaving the context closes them.
"""

from __future__ import annotations

from contextlib import ExitStack, suppress
from types import TracebackType

from kptrace.agent_client.subprocess_agent import SubprocessAgent
from kptrace.kube.objects.cluster_state import FILES, OPTIONAL_FILES
from kptrace.lab.state import Lab
from kptrace.model.errors import NotFoundError
from kptrace.protocol import AgentClient


class LabEnvironment:
    sparing = False

    def __init__(self, lab: Lab) -> None:
        self._lab = lab
        self._open = ExitStack()
        self._begun: dict[str, AgentClient] = {}

    def __enter__(self) -> LabEnvironment:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._open.close()

    def api(self) -> dict[str, str]:
        paths = (self._lab.api / name for name in (*FILES, *OPTIONAL_FILES))
        return {path.name: path.read_text() for path in paths if path.is_file()}

    def forget(self) -> bool:
        return False  # its documents are what a file says

    def api_only_documents(self) -> None:
        """Its documents are what a file says, and not what a cluster tells of itself."""

    def begin(self, node: str) -> None:
        with suppress(NotFoundError):
            self._begun[node] = self._started(node)

    def agent(self, node: str) -> AgentClient:
        return self._begun.pop(node, None) or self._started(node)

    def _started(self, node: str) -> AgentClient:
        handles = tuple(handle for handle in self._lab.handles if handle.netns.node == node)
        if not handles:
            raise NotFoundError(
                f"lab {self._lab.name!r} has no node {node}",
                f"it has: {', '.join(self._lab.nodes)}",
            )
        return self._open.enter_context(SubprocessAgent(node, handles))
