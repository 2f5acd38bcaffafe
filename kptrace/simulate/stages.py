"""The stages of a packet's path through one kernel, and how it can end.

A simulation goes from stage to stage; each stands for a function of the kernel that takes the
packet next. They are data, so that no stage has to call the next one.
"""

from __future__ import annotations

import msgspec

from kptrace.model import CauseId, Netns, Outcome
from kptrace.simulate.ip.skb import Skb
from kptrace.simulate.snapshot.network import Link


class Output(msgspec.Struct):
    """A local socket or a tunnel sends the packet (``ip_local_out``)."""

    skb: Skb


class Receive(msgspec.Struct):
    """The packet comes in by a device (``netif_receive_skb``)."""

    skb: Skb
    link: Link


class Input(msgspec.Struct):
    """The IP layer takes the packet (``ip_rcv``)."""

    skb: Skb


class Transmit(msgspec.Struct):
    """The IP layer hands the packet to a device (``neigh_output``); ``skb.hop`` is the next hop."""

    skb: Skb
    link: Link


class Frame(msgspec.Struct):
    """A bridge takes the frame (``br_handle_frame``); ``port`` is None if the node itself
    sent it.
    """

    skb: Skb
    bridge: Link
    port: Link | None = None


class Cross(msgspec.Struct):
    """The packet leaves this namespace by a device (``dev_queue_xmit``)."""

    skb: Skb
    link: Link


class Local(msgspec.Struct):
    """The transport layer has the packet (``ip_local_deliver_finish``): a tunnel's or a
    socket's.
    """

    skb: Skb


class Arrived(msgspec.Struct):
    """A socket has the packet.

    netns: where the socket is; None: outside of the cluster
    unseen: the socket is in a pod whose own namespace was not read, or outside
    """

    skb: Skb
    netns: Netns | None
    unseen: bool = False


Stage = Output | Receive | Input | Transmit | Frame | Cross | Local


class Terminated(Exception):
    """The packet goes no further.

    cause: the stable id of what ended it; None where it was delivered or that is not known
    object_name: what ended it (a rule, a route, a sysctl)
    description: how it ended, for people
    """

    def __init__(
        self,
        outcome: Outcome,
        cause: CauseId | None = None,
        object_name: str = "",
        description: str = "",
    ) -> None:
        super().__init__(description)
        self.outcome = outcome
        self.cause = cause
        self.object_name = object_name
        self.description = description
