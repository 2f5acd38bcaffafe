"""How the proxies' rules get into a node: the mode in, commands with their stdin out.

Nothing runs here: whoever enters the node's namespace runs each ``Load`` in order. All are one
transaction a family; ``iptables-restore --noflush`` leaves everybody else's rules where they are.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

from kptrace.lab.proxy import iptables, nftables
from kptrace.lab.proxy.port import ProxyNode
from kptrace.model import Endpoint, Service, Value
from kptrace.rules.programmed import Family

Mode = Literal["iptables", "iptables-legacy", "nftables"]

FAMILIES: tuple[Family, ...] = ("ip", "ip6")

# --wait: the legacy tools share one lock file over all namespaces of a machine
COMMANDS: Mapping[tuple[Mode, Family], tuple[str, ...]] = {
    ("iptables", "ip"): ("iptables-nft-restore", "--noflush", "--wait"),
    ("iptables", "ip6"): ("ip6tables-nft-restore", "--noflush", "--wait"),
    ("iptables-legacy", "ip"): ("iptables-legacy-restore", "--noflush", "--wait"),
    ("iptables-legacy", "ip6"): ("ip6tables-legacy-restore", "--noflush", "--wait"),
    ("nftables", "ip"): ("nft", "-f", "-"),
    ("nftables", "ip6"): ("nft", "-f", "-"),
}


class Load(Value):
    """One command and what it reads from stdin."""

    command: tuple[str, ...]
    text: str


def loads(
    mode: Mode,
    services: Sequence[Service],
    endpoints: Mapping[str, Sequence[Endpoint]],
    node: ProxyNode,
    *,
    again: bool = False,
) -> tuple[Load, ...]:
    """``again``: the node has the rules of an earlier load, so its jumps into them stand already.

    Chains of Services that are gone stay behind in the iptables modes, but nothing reaches them.
    """
    return tuple(
        Load(
            command=COMMANDS[mode, family],
            text=nftables.render(services, endpoints, node, family)
            if mode == "nftables"
            else iptables.render(services, endpoints, node, family, jumps=not again),
        )
        for family in FAMILIES
        if node.address(family)
    )
