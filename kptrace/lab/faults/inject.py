"""The two verbs that work on faults, ``break`` and ``heal``, and the list of what can be broken.

Faults that touch the same thing exclude each other, so that heal can always put back what was
there, in any order. The state is written before the harm is done: a ``break`` that is killed can
still be healed.
"""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from kptrace.lab import host_commands, manifests, state
from kptrace.lab.faults.actions import FaultAction
from kptrace.lab.faults.catalogue import DEAD_NODE, DEAD_POD, FAULTS, Fault
from kptrace.lab.state import ActiveFault, Lab
from kptrace.model.errors import NotFoundError, ObservationError, UsageError

__all__ = ["DEAD_NODE", "DEAD_POD", "FAULTS", "Fault", "find", "heal", "inject", "listing"]

BY_NAME = {fault.name: fault for fault in FAULTS}
WIDTH = max(map(len, BY_NAME))


def find(name: str) -> Fault:
    if name not in BY_NAME:
        raise NotFoundError(f"there is no fault named {name!r}", "all of them: kptrace lab faults")
    return BY_NAME[name]


def inject(lab_name: str, fault: Fault) -> Lab:
    """Break the lab. Refused where the fault cannot be or where it would cover another one."""
    host_commands.require_root()
    with state.locked():
        lab = state.load(lab_name)
        _require_possible(lab, fault)
        damage: FaultAction = fault.damage
        node = lab.plan.node(fault.node)
        broken = ActiveFault(fault=fault.name, before=damage.before(lab, node))
        lab = _with_faults(lab, (*lab.state.faults, broken))
        try:
            damage.apply(lab, node)
        except ObservationError:
            _heal(lab, broken)
            raise
    return lab


def heal(lab_name: str, name: str = "") -> tuple[Fault, ...]:
    """Heal one fault or, without a name, all; what was healed."""
    host_commands.require_root()
    with state.locked():
        lab = state.load(lab_name)
        chosen = [
            active_fault for active_fault in lab.state.faults if name in ("", active_fault.fault)
        ]
        if name and not chosen:
            find(name)
            raise NotFoundError(f"lab {lab_name!r} does not have the fault {name}", _active(lab))
        for broken in reversed(chosen):
            lab = _heal(lab, broken)
    return tuple(find(broken.fault) for broken in chosen)


def _heal(lab: Lab, broken: ActiveFault) -> Lab:
    fault = find(broken.fault)
    fault.damage.undo(lab, lab.plan.node(fault.node), broken.before)
    return _with_faults(
        lab, tuple(active_fault for active_fault in lab.state.faults if active_fault != broken)
    )


def _with_faults(lab: Lab, faults: tuple[ActiveFault, ...]) -> Lab:
    """Write down which faults there are; the API tells of those that it knows."""
    changed = lab.with_state(msgspec.structs.replace(lab.state, faults=faults))
    state.save(changed)
    emptied = [find(active_fault.fault).emptied for active_fault in faults]
    fresh = manifests.endpointslices(lab.plan, without=emptied)
    target = lab.api / "endpointslices.json"
    if target.read_text() != fresh:
        target.with_suffix(".new").write_text(fresh)
        target.with_suffix(".new").replace(target)
    return changed


def _require_possible(lab: Lab, fault: Fault) -> None:
    for option, has, accepted in _needs(lab, fault):
        if has not in accepted:
            raise UsageError(
                f"{fault.name} needs a lab with --{option} {accepted[0]}; {lab.name!r} has {has}"
            )
    for active in (find(active_fault.fault) for active_fault in lab.state.faults):
        if active.touches == fault.touches:
            raise UsageError(
                f"{active.name} already changed {fault.touches}",
                f"heal it first: kptrace lab heal {active.name}",
            )


def _active(lab: Lab) -> str:
    names = ", ".join(active_fault.fault for active_fault in lab.state.faults)
    return f"it has: {names}" if names else "it has none"


# --- in words ---------------------------------------------------------------------------------


def how_to_see(fault: Fault, lab_name: str) -> str:
    flag = "--lab" if lab_name == "default" else f"--lab-name {lab_name}"
    return f"kptrace {fault.target} -n {fault.namespace} --from pod/client {flag}"


def listing(lab_name: str) -> str:
    """Every fault in a line; those in the lab are marked. Of a lab that stands: what it can have,
    and below what the others need.
    """
    lab = _standing(lab_name)
    active = (
        frozenset(active_fault.fault for active_fault in lab.state.faults) if lab else frozenset()
    )
    usual = [fault for fault in FAULTS if lab is None or fault.possible(lab.plan)]
    lines = [
        f"{'*' if fault.name in active else ' '} {fault.name:<{WIDTH}}"
        f"  {fault.service.partition('/')[2]:<7}  {fault.words}"
        for fault in usual
    ]
    option = "" if lab_name == "default" else f" --name {lab_name}"
    example = FAULTS[0]
    return "\n".join(
        [
            f"  {'FAULT':<{WIDTH}}  SERVICE  WHAT",
            *lines,
            *(_others(lab) if lab else ()),
            "",
            f"break:  kptrace lab break {example.name}{option}",
            f"see:    {how_to_see(example, lab_name)}",
            f"heal:   kptrace lab heal{option}              (* is in the lab now)",
        ]
    )


def _others(lab: Lab) -> Iterator[str]:
    """The faults that this lab cannot have, and one that could."""
    others = [fault for fault in FAULTS if not fault.possible(lab.plan)]
    if others:
        yield ""
        yield f"not applicable to proxy {lab.plan.proxy} on network {lab.plan.network}:"
    for fault in others:
        needs = [
            f"--{option} {accepted[0]}{' or another' if len(accepted) > 1 else ''}"
            for option, has, accepted in _needs(lab, fault)
            if has not in accepted
        ]
        yield f"  {fault.name:<{WIDTH}}  needs {', '.join(needs)}"


def _needs(lab: Lab, fault: Fault) -> tuple[tuple[str, str, tuple[str, ...]], ...]:
    """Option, what the lab has, what the fault can be in."""
    return (
        ("network", lab.plan.network, fault.networks),
        ("proxy", lab.plan.proxy, fault.proxies),
    )


def _standing(lab_name: str) -> Lab | None:
    try:
        return state.load(lab_name)
    except ObservationError:
        return None
