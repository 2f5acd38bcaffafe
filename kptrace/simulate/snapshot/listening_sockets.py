"""Sockets that accept connections or packets: ``ss -Hlntu`` -> Listeners.

A line is ``tcp LISTEN 0 128 127.0.0.1%lo:53 0.0.0.0:*``: the local end is the fifth column. ``*``
is an IPv6 socket that takes IPv4 too; an interface may stand behind ``%`` (iproute2, misc/ss.c).
"""

from __future__ import annotations

from kptrace.model import Value
from kptrace.model.addresses import address as parsed
from kptrace.model.addresses import is_address

FILE = "ss-listening.txt"
ANY_ADDRESS = ("*", "0.0.0.0", "::")


class Listener(Value):
    """A listening socket. ``address`` is ``*``, ``0.0.0.0`` or ``::`` for any."""

    protocol: str
    address: str
    port: int

    @property
    def loopback(self) -> bool:
        """Whether it can be reached from inside of the namespace only."""
        return self.address not in ANY_ADDRESS and parsed(self.address).is_loopback

    def takes(self, protocol: str, address: str, port: int) -> bool:
        """Whether it takes packets to this address and port."""
        same = (self.protocol, self.port) == (protocol, port)
        return same and (self._any(address) or self.address == address)

    def _any(self, address: str) -> bool:
        return self.address == "*" or self.address == ("::" if ":" in address else "0.0.0.0")

    def __str__(self) -> str:
        address = f"[{self.address}]" if ":" in self.address else self.address
        return f"{address}:{self.port}/{self.protocol}"


def read_listeners(text: str) -> tuple[Listener, ...]:
    """Read the listeners, each once, sorted by port; lines of another form are left out."""
    listeners = set()
    for line in text.splitlines():
        columns = line.split()
        if len(columns) < 6 or columns[0] not in ("tcp", "udp"):
            continue
        host, _, port = columns[4].rpartition(":")
        address = host.partition("%")[0].strip("[]")
        if port.isdecimal() and (address in ANY_ADDRESS or is_address(address)):
            listeners.add(Listener(protocol=columns[0], address=address, port=int(port)))
    return tuple(
        sorted(listeners, key=lambda listener: (listener.port, listener.protocol, listener.address))
    )
