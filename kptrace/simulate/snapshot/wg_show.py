"""Reader of what ``wg show`` prints, which holds no private key; the values are in
``network.py``.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from kptrace.model.addresses import Network, address, network
from kptrace.model.errors import ParseError
from kptrace.simulate.snapshot.network import Peer, Wireguard

SHOW = "wg-show.txt"


def read_wireguard(text: str, source: str = SHOW) -> Mapping[str, Wireguard]:
    """Return the WireGuard devices by interface name.

    Lines that are not needed are skipped. Raises ParseError for an address or port that is none.
    """
    devices: dict[str, Wireguard] = {}
    device = ""
    for number, line in enumerate(text.splitlines(), 1):
        word, colon, value = (part.strip() for part in line.partition(": "))
        if not colon:
            continue
        try:
            if word == "interface":
                device = value
                devices[device] = Wireguard()
            elif device:
                devices[device] = _with(devices[device], word, value)
        except ValueError as error:
            raise ParseError(source, number, str(error), "make it with: wg show") from None
    return devices


def _with(device: Wireguard, word: str, value: str) -> Wireguard:
    if word == "listening port":
        return msgspec.structs.replace(device, port=_port(value))
    if word == "fwmark":
        return msgspec.structs.replace(device, mark=0 if value == "off" else int(value, 0))
    if word == "peer":
        return msgspec.structs.replace(device, peers=(*device.peers, Peer(key=value)))
    if word not in ("endpoint", "allowed ips") or not device.peers:
        return device
    last = device.peers[-1]
    if word == "endpoint":
        last = msgspec.structs.replace(last, endpoint=_endpoint(value))
    else:
        last = msgspec.structs.replace(last, allowed=tuple(_allowed(value)))
    return msgspec.structs.replace(device, peers=(*device.peers[:-1], last))


def _endpoint(text: str) -> tuple[str, int] | None:
    """Return ``172.30.0.12:51820`` or ``[fd00::12]:51820`` as (address, port), without a zone."""
    if text == "(none)":
        return None
    host, _, port = text.rpartition(":")
    return str(address(host.strip("[]").partition("%")[0])), _port(port)


def _port(text: str) -> int:
    port = int(text)
    if not 0 <= port <= 0xFFFF:
        raise ValueError(f"{text} is no port")
    return port


def _allowed(text: str) -> list[Network]:
    return [] if text == "(none)" else [network(part.strip()) for part in text.split(",")]
