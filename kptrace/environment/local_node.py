"""EDGE: the state of nodes as agents dump it now, for what reads bundles too.

In: a ground (a lab, or the node that we run on) that opens agents. Out: the same as of a Bundle:
the nodes, the API's documents, a node's files.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Mapping
from contextlib import ExitStack
from types import TracebackType
from typing import TYPE_CHECKING, Self

from kptrace.agent.netns import OWN
from kptrace.agent_client.thread_agent import ThreadAgent
from kptrace.model import Netns
from kptrace.protocol import AgentClient, NetnsHandle
from kptrace.rules.live.consistency import spans_generations
from kptrace.trace.agent_session import FILES, LONGEST, AgentSession, Environment

if TYPE_CHECKING:
    from kptrace.agent.nftables.prefetch import Prefetcher


class LocalNode:
    """The node that we run on, without an API server: the rules themselves name the Services."""

    sparing = False

    def __init__(self, ahead: Prefetcher | None = None) -> None:
        self.name, self._ahead = socket.gethostname(), ahead
        self._open = ExitStack()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._open.close()

    def api(self) -> dict[str, str]:
        return {}

    def forget(self) -> bool:
        return False  # no API told anything

    def api_only_documents(self) -> Mapping[str, str] | None:
        return None

    def begin(self, node: str) -> None:
        """It starts when it is asked for: there is no other to wait for."""

    def agent(self, node: str) -> AgentClient:
        handle = NetnsHandle(netns=Netns(node=node), ns_path=OWN)
        return self._open.enter_context(ThreadAgent(node, (handle,), self._ahead))


class LiveState:
    """``more``: files that are wanted beside those that decide a packet's fate."""

    def __init__(
        self, environment: Environment, nodes: tuple[str, ...], more: tuple[str, ...] = ()
    ) -> None:
        self._environment, self._session, self._more = environment, AgentSession(environment), more
        self.nodes = nodes

    def api(self) -> Mapping[str, str]:
        return self._environment.api()

    def begin(self, name: str) -> None:
        """Have a node's files read while we make ready to read them ourselves."""
        rest = [file for file in FILES if file not in LONGEST]
        self._session.expect(Netns(node=name), LONGEST, rest)

    def node(self, name: str) -> Mapping[str, str]:
        """What decides a packet's fate there; rules are asked for as they are reached."""
        import kptrace.rules.live.source  # noqa: F401  which reads the rules, as soon as they are there
        from kptrace.plugins import registry  # which imports the walk

        netns = Netns(node=name)
        self._session.require_netns(netns)
        self._session.dump((netns,), (*FILES, *self._more, *registry.extra_files()))
        self._session.require_rules(name)
        return self._session.texts().get(netns, {})

    def rules_changed_while_reading(self, name: str) -> bool:
        return spans_generations(self._session.texts().get(Netns(node=name), {}))

    def refresh_after(self, seconds: float) -> bool:
        changes = self._environment.forget()
        if changes:
            time.sleep(seconds)
        return changes
