"""What a run would do in a cluster, as manifests: the agents' pods, and the permissions. Pure.

The second agent is started on the node that the kernel chooses, so where several have a backend
only an example of it can be shown.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import yaml

from kptrace.kube.agents.manifest import AgentPodOptions, pod
from kptrace.kube.client.permissions import RequiredPermission, roles
from kptrace.model import Netns


def dry_run(
    terms: AgentPodOptions, near: Netns, far: Iterable[str], needs: Iterable[RequiredPermission]
) -> str:
    pages = [*_pods(terms, near, far), *((_role_words(role), role) for role in roles(needs))]
    return "---\n".join(
        f"# {text}\n{yaml.safe_dump(item, sort_keys=False, default_flow_style=False)}"
        for text, item in pages
    )


def _pods(
    terms: AgentPodOptions, near: Netns, far: Iterable[str]
) -> Iterator[tuple[str, dict[str, Any]]]:
    why = f"the packet starts from pod {near.pod} there" if near.pod else "the packet starts there"
    yield f"on {near.node}: {why}", pod(terms, "RUN", 1, near.node)
    others = [node for node in far if node != near.node]
    if len(others) > 1:
        text = f"on the node whose backend is chosen, which is one of {', '.join(others)}"
        yield text, pod(terms, "RUN", 2, others[0])
    elif others:
        yield f"on {others[0]}: the backends are there", pod(terms, "RUN", 2, others[0])


def _role_words(role: dict[str, Any]) -> str:
    where = role["metadata"].get("namespace")
    return f"for what is done in namespace {where}" if where else "for what is in no namespace"
