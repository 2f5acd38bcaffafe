"""Where a command looks: the options for it, and the ground or the state that they name."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from kptrace.commands.options import Options
from kptrace.errors import NoCluster, Usage

if TYPE_CHECKING:
    from contextlib import ExitStack

    from kptrace.crew import Ground
    from kptrace.explain import State


class InLab(Options):
    lab: Annotated[bool, typer.Option("--lab", help="In the lab named `default`.")] = False
    lab_name: Annotated[str, typer.Option("--lab-name", help="In the lab of this name.")] = ""

    @property
    def named(self) -> str:
        return self.lab_name or ("default" if self.lab else "")


class Saved(Options):
    bundle: Annotated[
        Path | None, typer.Option("--bundle", help="A folder or tar with the state of nodes.")
    ] = None
    offline: Annotated[
        bool, typer.Option("--offline", help="This node; names come from its own rules.")
    ] = False


def ground(stack: ExitStack, lab: InLab) -> Ground:
    """Where packets are sent."""
    if not lab.named:
        raise NoCluster(
            "which cluster? this version traces in a lab only",
            "make one with `kptrace lab up`, then add --lab",
        )
    from kptrace.lab.ground import LabGround
    from kptrace.lab.state import load

    return stack.enter_context(LabGround(load(lab.named)))


def state(stack: ExitStack, lab: InLab, saved: Saved) -> State:
    """Where the state of nodes comes from."""
    if sum((saved.bundle is not None, bool(lab.named), saved.offline)) > 1:
        raise Usage("--bundle, --lab and --offline exclude each other", "give one of them")
    if saved.bundle is not None:
        from kptrace.bundle import Bundle

        return Bundle(saved.bundle)
    if lab.named:
        from kptrace.lab.ground import LabGround
        from kptrace.lab.state import load
        from kptrace.live import Live

        found = load(lab.named)
        return Live(stack.enter_context(LabGround(found)), found.nodes)
    if saved.offline:
        from kptrace.live import Live, ThisNode

        here = stack.enter_context(ThisNode())
        live = Live(here, (here.name,))
        live.begin(here.name)
        return live
    raise NoCluster(
        "whose rules? this version reads a bundle, a lab or this node",
        "add --bundle DIR, --lab, or --offline on the node itself",
    )
