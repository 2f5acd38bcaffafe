"""What BPF programs on a node do to packets beside the kernel's own path.

A CNI plugin (plugins/registry.py) reads these values from a node's files; the simulation and the
diagnosis ask them.

Three things matter. A program on connect(2) and sendmsg(2) of sockets in a cgroup may replace a
Service's address by a backend, so that the address is never on any wire (``Frontend``). A program
on a device may take what the routes send there (``taken``) and send it elsewhere. And one that
redirects to a pod's peer device bypasses the taps of the node's end (``silent``): a capture that is
missing there proves nothing (bpf_redirect_peer, net/core/filter.c).
"""

from __future__ import annotations

from collections.abc import Iterable
from fnmatch import fnmatchcase
from functools import cached_property

from kptrace.model import Flow, Value

# the address of a frontend that stands for every address of the nodes
ANY_NODE_ADDRESS = ("0.0.0.0", "::")


class Frontend(Value):
    """An address that programs translate at connect(), and its backends.

    protocol: empty: any
    backends: (address, port), in the order of their slots
    text: the entry as the tool that read it prints it
    left: why it is not translated at connect(); empty: it is
    remembers: a client keeps its backend (ClientIP affinity)
    """

    address: str
    port: int
    protocol: str = ""
    backends: tuple[tuple[str, int], ...] = ()
    text: str = ""
    left: str = ""
    remembers: bool = False


class MonitorDrop(Value):
    """A packet that the programs dropped, as their owner's monitor recorded it.

    by: the monitor
    source, destination: pods, where the monitor names them
    node: where it was dropped, if the monitor says so
    """

    by: str
    flow: Flow
    reason: str = ""
    source: str = ""
    destination: str = ""
    node: str = ""


class BpfDatapath(Value, dict=True):
    """The programs of one owner (Cilium, Calico) on one node.

    table: where the frontends were read
    frontends: None: they could not be read
    taken: patterns of devices whose packets a program takes
    silent: patterns of devices whose taps a program bypasses
    tunnel: the device that carries taken packets to other nodes; empty: there is none
    remedy: what to do where the frontends are wrong, one line each
    drops: what a recording holds
    """

    owner: str
    table: str = ""
    frontends: tuple[Frontend, ...] | None = ()
    taken: tuple[str, ...] = ()
    silent: tuple[str, ...] = ()
    tunnel: str = ""
    remedy: tuple[str, ...] = ()
    drops: tuple[MonitorDrop, ...] = ()

    @cached_property
    def _by_address(self) -> dict[tuple[str, int, str], Frontend]:
        return {
            (frontend.address, frontend.port, frontend.protocol): frontend
            for frontend in self.frontends or ()
        }

    def frontend(self, address: str, port: int, protocol: str) -> Frontend | None:
        """Return the frontend of an address: with this protocol, else one for any protocol.

        Cilium before 1.17 did not tell protocols apart.
        """
        for key in ((address, port, protocol), (address, port, "")):
            if key in self._by_address:
                return self._by_address[key]
        return None

    def takes(self, device: str) -> bool:
        return _matches(device, self.taken)

    def silences(self, device: str) -> bool:
        return _matches(device, self.silent)


def _matches(device: str, patterns: Iterable[str]) -> bool:
    return any(fnmatchcase(device, pattern) for pattern in patterns)
