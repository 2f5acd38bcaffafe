"""Keeps packets of ours from leaving a namespace, after its rules have decided where to.

In: probes, inside the namespace. Out: a socket; until it is closed (the kernel sees to that, also
on SIGKILL) whatever carries one of their cookies is dropped where it would leave by a device.

The hook is netdev's egress (Linux 5.16): it comes after POSTROUTING, at whose end conntrack has
confirmed the connection with the translation that was chosen for it. So the choice is on record,
and whom it fell on hears nothing. A packet that the namespace keeps for itself does not leave.

A bridge lets it pass, and its ports do not: a frame whose new destination stands on the same bridge
and has no neighbour entry yet goes out by the bridge before br_netfilter's POSTROUTING
(br_nf_pre_routing_finish_bridge).
"""

from __future__ import annotations

import socket
from collections.abc import Iterable, Iterator

from kptrace.agent.netlink.socket import NetlinkSocket, be32, nested, text
from kptrace.agent.nftables.trace_table import (
    FILTER,
    NETDEV,
    NETWORK,
    NEWCHAIN,
    NEWRULE,
    NEWTABLE,
    NFPROTO,
    OWNER,
    SUBSYSTEM,
    Condition,
    Meta,
    command,
    expression,
    matches,
    own_name,
    rule,
)
from kptrace.model import Probe

_EGRESS = 1
_DEVICES = 200  # of one chain; the kernel takes 256 (NFT_NETDEVICE_MAX)
_VERDICT, _DROP = 0, 0
_LOSE = (expression("immediate", be32(1, _VERDICT), nested(2, nested(2, be32(1, _DROP)))),)


def block_egress(probes: Iterable[Probe], bridges: Iterable[str] = ()) -> NetlinkSocket:
    """Raises OSError where the kernel has no such hook."""
    devices = [name for _, name in socket.if_nameindex() if name not in bridges]
    owner = NetlinkSocket()
    try:
        owner.apply(SUBSYSTEM, _table(tuple(probes), devices))
    except OSError:
        owner.close()
        raise
    return owner


def _table(probes: tuple[Probe, ...], devices: list[str]) -> list[bytes]:
    name = own_name()
    rules = [rule(conditions, _LOSE) for conditions in dict.fromkeys(_own_packets(probes))]
    chunks = [command(NETDEV, NEWTABLE, text(1, name), be32(2, OWNER))]
    for start in range(0, len(devices), _DEVICES):
        chain = text(3, f"egress-{start}")
        data = nested(4, *(text(1, device) for device in devices[start : start + _DEVICES]))
        netns = nested(4, be32(1, _EGRESS), be32(2, 0), data)
        chunks.append(command(NETDEV, NEWCHAIN, text(1, name), chain, netns, FILTER))
        at = text(2, f"egress-{start}")
        chunks += [command(NETDEV, NEWRULE, text(1, name), at, rule) for rule in rules]
    return chunks


def _own_packets(probes: tuple[Probe, ...]) -> Iterator[tuple[Condition, ...]]:
    """As they leave, not yet in a tunnel. To this hook the family is that of devices."""
    for carrier, conditions in matches(probes, ()):
        if carrier.ip == (NETWORK, 0):
            yield tuple(condition for condition in conditions if not _asks_family(condition))


def _asks_family(condition: Condition) -> bool:
    return isinstance(condition, Meta) and condition.key == NFPROTO
