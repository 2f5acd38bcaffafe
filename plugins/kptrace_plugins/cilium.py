"""Cilium: its devices, its programs at connect() and on devices, its pinned maps.

With its kube-proxy replacement a Service's address is never on a wire: the program on connect(2)
replaces it by a backend in the client's own call. What it would choose from is read from the maps,
or from what ``cilium-dbg`` printed.
"""

from __future__ import annotations

from collections.abc import Mapping

from kptrace.plugins.registry import DetectedCni
from kptrace.simulate.bpf.programs import BpfDatapath, Frontend, MonitorDrop
from kptrace.simulate.snapshot.proxy_mode import service_tables
from kptrace.simulate.snapshot.snapshot import Snapshot
from kptrace_plugins import cilium_json, cilium_maps, signs

name = "cilium"

TUNNELS = (("cilium_vxlan", "VXLAN"), ("cilium_geneve", "Geneve"))
PODS = ("lxc*", "gke*")
LIMITS = (
    "what Cilium's programs on devices route, translate or deny (`cilium-dbg monitor` and Hubble "
    "tell)",
    "what passes lxc* and netfilter unseen, as with BPF host routing or netkit: a capture missing "
    "there proves nothing",
    "Cilium's own connection table (`cilium-dbg bpf ct list global`)",
)
UNREAD = (
    "which backends its program at connect() chooses from: its maps below /sys/fs/bpf could not "
    "be read"
)
REMEDY = (
    "kubectl -n kube-system get pods -l k8s-app=cilium -o wide  # is it up there?",
    "cilium-dbg service list  # in that pod: has it the frontend, with these backends?",
    "restart that pod: it writes its maps anew",
)


def wants() -> tuple[str, ...]:
    return (cilium_maps.FILE, cilium_json.SERVICES)


def detect(node: Snapshot, files: Mapping[str, str]) -> DetectedCni | None:
    devices = signs.links(node, "cilium_host", "cilium_net")
    frontends, table = _frontends(files)
    if len(devices) < 2 and not frontends:
        return None
    others = service_tables(node.ruleset)
    if frontends is None and others:
        frontends = ()  # kube-proxy translates, so it is no matter that the maps could not be read
    tunnel, mode = next(
        ((device, mode) for device, mode in TUNNELS if node.link(device)), ("", "native routing")
    )
    seen = [signs.named(devices)] if devices else []
    seen += [f"{len(frontends)} frontends in {table}"] if frontends else []
    return DetectedCni(
        name=f"Cilium ({mode})",
        sure=1.0,
        signal=", ".join(seen),
        proxy="" if others and not frontends else "cilium",
        limits=(*LIMITS, *([UNREAD] if frontends is None else [])),
        programs=BpfDatapath(
            owner="Cilium",
            table=table,
            frontends=frontends,
            taken=("cilium_host", "cilium_net"),
            silent=PODS,
            tunnel=tunnel,
            remedy=REMEDY,
            drops=_drops(files),
        ),
    )


def _drops(files: Mapping[str, str]) -> tuple[MonitorDrop, ...]:
    """Return the drops of recordings in the bundle; a node does not keep any itself."""
    return tuple(
        MonitorDrop(
            by=by,
            flow=seen.flow,
            reason=seen.reason,
            source=seen.source,
            destination=seen.destination,
            node=seen.node,
        )
        for file, by, parse in cilium_json.RECORDINGS
        if file in files
        for seen in parse(files[file])
        if seen.verdict == "DROPPED"
    )


def _frontends(files: Mapping[str, str]) -> tuple[tuple[Frontend, ...] | None, str]:
    """Return what sockets are translated to, and where that was read: the maps first."""
    if cilium_maps.FILE in files:
        read = cilium_maps.frontends(files[cilium_maps.FILE])
        if read is not None:
            return read, cilium_maps.SERVICES[4]
    for file, parse in cilium_json.FRONTENDS.items():
        if file in files:
            return parse(files[file]), file
    return None, ""
