"""Programs: what BPF programs on a node do to packets beside the kernel's own way.

In: what a plugin (cni.py) read of a node. Out: nouns that the walk and the judge ask.

Three things matter. A program on connect(2), sendmsg(2) of sockets in a cgroup may put a backend in
the place of a Service's address, so that the address is never on any wire (``Frontend``). A program
on a device may take what the routes send there (``taken``) and send it elsewhere. And one that
redirects to a pod's peer device passes the taps of the node's end by (``silent``): that a capture
there is missing proves nothing (bpf_redirect_peer, net/core/filter.c).
"""

from __future__ import annotations

from collections.abc import Iterable
from fnmatch import fnmatchcase
from functools import cached_property

from kptrace.model import Flow, Value

# the address of a frontend that stands for every address of the nodes
ANY_NODE_ADDRESS = ("0.0.0.0", "::")


class Frontend(Value):
    """An address that programs translate at connect(), and what to.

    protocol: empty: any; backends: address and port, in the order of their slots
    left: not translated at connect(), and why
    """

    address: str
    port: int
    protocol: str = ""
    backends: tuple[tuple[str, int], ...] = ()
    text: str = ""
    left: str = ""
    remembers: bool = False


class MonitorDrop(Value):
    """A packet that the programs dropped, as their owner's monitor recorded it (``by``).

    source, destination: pods, and node where, if it told them
    """

    by: str
    flow: Flow
    reason: str = ""
    source: str = ""
    destination: str = ""
    node: str = ""


class BpfDatapath(Value, dict=True):
    """owner: whose they are; ``table``: where the frontends were read; None: they could not be.

    taken, silent: patterns of devices; ``tunnel``: the device that carries to other nodes what was
    taken, empty where there is none
    mend: what to do where the frontends are wrong, a line each
    drops: what a recording told
    """

    owner: str
    table: str = ""
    frontends: tuple[Frontend, ...] | None = ()
    taken: tuple[str, ...] = ()
    silent: tuple[str, ...] = ()
    tunnel: str = ""
    mend: tuple[str, ...] = ()
    drops: tuple[MonitorDrop, ...] = ()

    @cached_property
    def _by_address(self) -> dict[tuple[str, int, str], Frontend]:
        return {
            (frontend.address, frontend.port, frontend.protocol): frontend
            for frontend in self.frontends or ()
        }

    def frontend(self, address: str, port: int, protocol: str) -> Frontend | None:
        """With this protocol, else one that stands for any (before Cilium told them apart)."""
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
