"""How the proxies' rules get into a node: the mode in, commands with their stdin out.

Nothing runs here: whoever enters the node's namespace runs each ``LoadCommand`` in order. All are
one transaction a family; ``iptables-restore --noflush`` leaves everybody else's rules where they
are.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

from kptrace.lab.dataplane.kubeproxy import iptables, ipvs, nftables
from kptrace.lab.dataplane.kubeproxy.service_port import ProxyNode
from kptrace.lab.network_objects import AddAddress
from kptrace.model import Endpoint, Service, Value
from kptrace.model.family import Family

Mode = Literal["iptables", "iptables-legacy", "nftables", "ipvs"]

FAMILIES = tuple(Family)

# --wait: the legacy tools share one lock file over all namespaces of a machine
COMMANDS: Mapping[tuple[Mode, Family], tuple[str, ...]] = {
    ("iptables", Family.IPV4): ("iptables-nft-restore", "--noflush", "--wait"),
    ("iptables", Family.IPV6): ("ip6tables-nft-restore", "--noflush", "--wait"),
    ("iptables-legacy", Family.IPV4): ("iptables-legacy-restore", "--noflush", "--wait"),
    ("iptables-legacy", Family.IPV6): ("ip6tables-legacy-restore", "--noflush", "--wait"),
    ("nftables", Family.IPV4): ("nft", "-f", "-"),
    ("nftables", Family.IPV6): ("nft", "-f", "-"),
    # IPVS and nft's tables are seldom in one kernel
    ("ipvs", Family.IPV4): ("iptables-legacy-restore", "--noflush", "--wait"),
    ("ipvs", Family.IPV6): ("ip6tables-legacy-restore", "--noflush", "--wait"),
}


class LoadCommand(Value):
    """One command and what it reads from stdin, or the addresses that are to be made instead."""

    command: tuple[str, ...] = ()
    text: str = ""
    objects: tuple[AddAddress, ...] = ()


def loads(
    mode: Mode,
    services: Sequence[Service],
    endpoints: Mapping[str, Sequence[Endpoint]],
    node: ProxyNode,
    *,
    scheduler: str = "rr",
    again: bool = False,
) -> tuple[LoadCommand, ...]:
    """``again``: the node has the rules of an earlier load, so its jumps into them stand already.

    Chains of Services that are gone stay behind in the iptables modes, but nothing reaches them.
    """
    commands: list[LoadCommand] = []
    for family in FAMILIES:
        if not node.address(family):
            continue
        command = COMMANDS[mode, family]
        if mode == "nftables":
            text = nftables.render(services, endpoints, node, family)
            commands.append(LoadCommand(command=command, text=text))
        elif mode == "ipvs":
            written = ipvs.render(
                services, endpoints, node, family, scheduler=scheduler, jumps=not again
            )
            commands += _ipvs_loads(written, command)
        else:
            text = iptables.render(services, endpoints, node, family, jumps=not again)
            commands.append(LoadCommand(command=command, text=text))
    return tuple(commands)


def _ipvs_loads(written: ipvs.Ipvs, restore: tuple[str, ...]) -> tuple[LoadCommand, ...]:
    """The rules need the sets; an address without a service would refuse."""
    return (
        LoadCommand(command=("ipset", "restore"), text=written.ipsets),
        LoadCommand(command=restore, text=written.rules),
        LoadCommand(command=("ipvsadm", "--restore"), text=written.services),
        LoadCommand(objects=written.addresses),
    )
