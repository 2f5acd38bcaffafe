"""IPVS: ``ipvsadm -Sn`` -> virtual services and their servers."""

from __future__ import annotations

from kptrace.model import Value


class RealServer(Value):
    """method: ``masq``, ``route`` (gatewaying) or ``tunnel``; weight 0 takes no new connections."""

    address: str
    port: int
    method: str = "masq"
    weight: int = 1


class VirtualService(Value):
    """protocol: tcp, udp, sctp, or ``fwmark`` (then ``fwmark`` is its key and address is empty).

    persistent: seconds of ClientIP affinity, 0 none; ``netmask``: of the clients kept together
    """

    protocol: str
    address: str
    port: int
    scheduler: str
    servers: tuple[RealServer, ...] = ()
    fwmark: int = 0
    family: str = "ip"
    persistent: int = 0
    netmask: str = ""
    flags: tuple[str, ...] = ()
