"""IPVS' own connections, where conntrack has none: /proc/net/ip_vs_conn -> ConntrackEntry; and its
templates of connections, as text.

With ``net.ipv4.vs.conntrack=0`` a packet that IPVS sends on is tracked no more, so this table is
the only one that knows the server (ip_vs_conn_seq_show): protocol, client, virtual service, server,
all in hexadecimal, IPv6 addresses as text. The entry's status is ``IPVS``.
"""

from __future__ import annotations

from ipaddress import IPv4Address, ip_address
from pathlib import Path

from kptrace.model import ConntrackEntry, Flow, Netns

TABLE = Path("/proc/thread-self/net/ip_vs_conn")


def lookup(netns: Netns, flow: Flow) -> ConntrackEntry | None:
    """To be called inside the namespace."""
    try:
        text = TABLE.read_text()
    except OSError:
        return None
    return find(text, netns, flow)


def templates() -> str:
    """The lines of clients that a persistent service remembers, below the head; empty where IPVS is
    not there. The table may be long: it is read line by line, up to its end.
    """
    try:
        with TABLE.open() as file:
            return "".join(line for n, line in enumerate(file) if n == 0 or _is_template(line))
    except OSError:
        return ""


def _is_template(line: str) -> bool:
    """Its client's port is 0."""
    texts = line.split(maxsplit=3)
    return len(texts) > 3 and texts[2] == "0000"


def find(text: str, netns: Netns, flow: Flow) -> ConntrackEntry | None:
    for line in text.splitlines()[1:]:
        protocol, *texts = line.split()
        if protocol.lower() != flow.protocol or len(texts) < 7:
            continue
        try:
            client, virtual, server = (_end(*texts[n : n + 2]) for n in (0, 2, 4))
        except ValueError:
            continue
        if (client, virtual) == ((flow.src, flow.sport), (flow.dst, flow.dport)):
            reply = Flow(
                protocol=flow.protocol,
                src=server[0],
                dst=flow.src,
                sport=server[1],
                dport=flow.sport,
            )
            return ConntrackEntry(
                netns=netns, original=flow, reply=reply, status=("IPVS",), state=texts[6]
            )
    return None


def _end(address: str, port: str) -> tuple[str, int]:
    ip = ip_address(address) if ":" in address else IPv4Address(int(address, 16))
    return str(ip), int(port, 16)
