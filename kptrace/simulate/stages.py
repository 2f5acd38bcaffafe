"""The stages of a packet's way through one kernel, and how it can end.

A walk goes from stage to stage; each is a place in the kernel's source where a packet waits for
the next function. They are data, so that no stage has to call the next one.
"""

from __future__ import annotations

import msgspec

from kptrace.model import CauseId, Netns, Outcome
from kptrace.simulate.ip.skb import Skb
from kptrace.simulate.snapshot.network import Link


class Output(msgspec.Struct):
    """A local socket or a tunnel sends it (``ip_local_out``)."""

    skb: Skb


class Receive(msgspec.Struct):
    """It comes in by a device (``netif_receive_skb``)."""

    skb: Skb
    link: Link


class Input(msgspec.Struct):
    """The IP layer has it (``ip_rcv``)."""

    skb: Skb


class Transmit(msgspec.Struct):
    """The IP layer hands it to a device (``neigh_output``); ``skb.hop`` says for whom."""

    skb: Skb
    link: Link


class Frame(msgspec.Struct):
    """A bridge has it (``br_handle_frame``); ``port`` is None where the node itself sent it."""

    skb: Skb
    bridge: Link
    port: Link | None = None


class Cross(msgspec.Struct):
    """It leaves this namespace by a device (``dev_queue_xmit``)."""

    skb: Skb
    link: Link


class Local(msgspec.Struct):
    """The transport layer has it (``ip_local_deliver_finish``): a tunnel's or a socket's."""

    skb: Skb


class Arrived(msgspec.Struct):
    """A socket has it. ``unseen``: a pod whose own namespace was not looked at, or one outside."""

    skb: Skb
    netns: Netns | None
    unseen: bool = False


Stage = Output | Receive | Input | Transmit | Frame | Cross | Local


class Terminated(Exception):
    """The packet goes no further. ``cause`` is a stable id, ``blame`` the object that did it."""

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
