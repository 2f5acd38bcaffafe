"""The plugins that recognise a CNI or proxy, one file each, and what kptrace can tell there.

A plugin is an object (a module will do) with the three names of ``CniPlugin``, found through an
entry point of the group ``kptrace.cni``; a third party ships one in a package of its own. It is
pure: files of a node in, values out; so it can be tested with a folder of dumps and breaks no node.
Where packets go next the simulation finds from routes, FDB and tunnels; a plugin says only what BPF
programs do beside them (simulate/bpf/programs.py).

Of all plugins the surest wins. One that raises is named with its error, and the others are asked.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from typing import Protocol, cast

import msgspec

from kptrace.model import DetectedNetwork, Netns, Value
from kptrace.plugins import discovery
from kptrace.simulate.bpf.programs import BpfDatapath
from kptrace.simulate.snapshot.proxy_mode import proxy_of
from kptrace.simulate.snapshot.snapshot import Snapshot, read_snapshot

GROUP = "kptrace.cni"


class DetectedCni(Value):
    """What a plugin recognised.

    name: as people call it, with its mode
    sure: 0 to 1, the highest of all plugins wins
    signal: what it was recognised by
    proxy: who translates Services, where kube-proxy's rules do not show it
    limits: what kptrace cannot tell there
    programs: what its BPF programs do, where it has any
    """

    name: str
    sure: float
    signal: str
    proxy: str = ""
    limits: tuple[str, ...] = ()
    programs: BpfDatapath | None = None


class CniPlugin(Protocol):
    """What a plugin offers."""

    @property
    def name(self) -> str: ...

    def wants(self) -> tuple[str, ...]:
        """Return the files of a node that it needs beside those that are read anyway."""

    def detect(self, node: Snapshot, files: Mapping[str, str]) -> DetectedCni | None:
        """Return what it recognised on the node; None: nothing."""


class DetectionResult(Value):
    """What was recognised on one node. ``failed``: plugins that raised, with the error."""

    best: DetectedCni | None = None
    failed: tuple[str, ...] = ()


class _FailedPlugin:
    """Stands for a plugin that could not be loaded."""

    def __init__(self, name: str, error: Exception) -> None:
        self.name, self._error = name, error

    def wants(self) -> tuple[str, ...]:
        return ()

    def detect(self, node: Snapshot, files: Mapping[str, str]) -> DetectedCni | None:
        raise self._error


@cache
def installed_plugins() -> tuple[CniPlugin, ...]:
    """Return every plugin of this Python installation, sorted by name."""
    found: list[CniPlugin] = []
    for name, value in discovery.registered(GROUP):
        try:
            found.append(cast(CniPlugin, discovery.load_object(value)))
        except Exception as error:  # a stranger's package must not take the trace with it
            found.append(_FailedPlugin(name, error))
    return tuple(found)


def extra_files(plugins: Iterable[CniPlugin] | None = None) -> tuple[str, ...]:
    """Return the files that plugins need beside those that are read anyway."""
    asked = installed_plugins() if plugins is None else plugins
    return tuple(dict.fromkeys(file for plugin in asked for file in plugin.wants()))


def detect_network(
    node: Snapshot, files: Mapping[str, str], plugins: Sequence[CniPlugin] | None = None
) -> DetectionResult:
    """Ask every plugin and return the surest answer."""
    best: DetectedCni | None = None
    failed: list[str] = []
    for plugin in installed_plugins() if plugins is None else plugins:
        try:
            seen = plugin.detect(node, files)
        except Exception as error:
            failed.append(f"the plugin {plugin.name} failed: {type(error).__name__}: {error}")
            continue
        if seen is not None and (best is None or seen.sure > best.sure):
            best = seen
    return DetectionResult(best=best, failed=tuple(failed))


def read_netns(netns: Netns, files: Mapping[str, str]) -> Snapshot:
    """Read the snapshot of a namespace, with the BPF datapath that a plugin recognises on a node.

    netns: the namespace; plugins are asked for a node's own only
    files: name in the bundle -> text
    """
    snapshot = read_snapshot(netns, files)
    if netns.pod or not snapshot.links:  # programs hang on devices
        return snapshot
    best = detect_network(snapshot, files).best
    if best is None or best.programs is None:
        return snapshot
    return msgspec.structs.replace(snapshot, programs=best.programs)


def detected_networks(
    snapshots: Mapping[Netns, Snapshot], texts: Mapping[Netns, Mapping[str, str]]
) -> tuple[DetectedNetwork, ...]:
    """Return what was recognised on each node that was read.

    texts: the files of each namespace
    """
    nodes = sorted(place for place in snapshots if not place.pod)
    return tuple(_network(snapshots[place], texts.get(place, {})) for place in nodes)


def _network(node: Snapshot, files: Mapping[str, str]) -> DetectedNetwork:
    found = detect_network(node, files)
    best = found.best or DetectedCni(name="unknown", sure=0.0, signal="")
    return DetectedNetwork(
        node=node.netns.node,
        name=best.name,
        proxy=best.proxy or proxy_of(node),
        signal=best.signal,
        limits=(*best.limits, *found.failed),
    )
