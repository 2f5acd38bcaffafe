"""``explain`` in its plainest words: of a bundle or of this node, as text. Without typer, whose
import costs more than half of what the answer does.

In: the words of the command line. Out: what to do; None where they are not so plain, or wrong, and
the whole command line (cli.py) has to read them. tests/commands compares the two.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from kptrace.agent.nftables.prefetch import Prefetcher
    from kptrace.explain.explain import StateSource

_VALUES = {
    "-n": "namespace",
    "--namespace": "namespace",
    "--node": "node",
    "--from": "source",
    "--bundle": "bundle",
}


def read(args: Sequence[str]) -> Mapping[str, str] | None:
    """The options that were given, by the names that they have as parameters of the command."""
    if args[:1] != ["explain"]:
        return None
    texts, texts_by_name = iter(args[1:]), dict[str, str]()
    for word in texts:
        if word == "--offline":
            texts_by_name["offline"] = "yes"
        elif word in _VALUES:
            value = next(texts, "-")
            if value.startswith("-"):
                return None
            texts_by_name[_VALUES[word]] = value
        elif word.startswith("-") or "target" in texts_by_name:
            return None
        else:
            texts_by_name["target"] = word
    plain = "target" in texts_by_name and ("bundle" in texts_by_name) != (
        "offline" in texts_by_name
    )
    return texts_by_name if plain else None


def explain(args: Sequence[str]) -> Callable[[], int] | None:
    texts_by_name = read(args)
    if texts_by_name is None:
        return None
    gc.disable()  # it is soon over, and looking for cycles takes a tenth of its time
    ahead = _ahead() if "offline" in texts_by_name else None
    import kptrace.model  # noqa: F401  first: it imports msgspec the fast way

    return lambda: _explain(texts_by_name, ahead)


def _ahead() -> Prefetcher:
    """What takes longest, begun before all else is imported, which takes about as long."""
    from kptrace.agent.nftables.list_cache import BASE_CHAINS, rules_of
    from kptrace.agent.nftables.prefetch import Prefetcher

    nat = (rules_of("ip", "nat", chain) for chain in ("KUBE-SERVICES", "KUBE-NODEPORTS"))
    return Prefetcher(BASE_CHAINS, *nat)


def _explain(texts_by_name: Mapping[str, str], ahead: Prefetcher | None) -> int:
    from kptrace.cli.explain_request import exit_code, explained

    with ExitStack() as stack:
        explanation = explained(
            texts_by_name["target"],
            texts_by_name.get("source", ""),
            texts_by_name.get("namespace") or "default",
            texts_by_name.get("node", ""),
            lambda _: _state(stack, texts_by_name, ahead),
        )
    from kptrace.cli.console import ColorMode, colour, print_report, width
    from kptrace.render.explain import explain as text

    print_report(text(explanation, width=width(), colour=colour(ColorMode.AUTO), wide=False))
    return exit_code(explanation)


def _state(
    stack: ExitStack, texts_by_name: Mapping[str, str], ahead: Prefetcher | None
) -> StateSource:
    if "bundle" in texts_by_name:
        from pathlib import Path

        from kptrace.bundle.folder import Bundle

        return Bundle(Path(texts_by_name["bundle"]))
    from kptrace.environment.local_node import LiveState, LocalNode

    here = stack.enter_context(LocalNode(ahead))
    live = LiveState(here, (here.name,))
    live.begin(here.name)
    import kptrace.render.explain  # noqa: F401  while the node is looked at

    return live
