"""What is said to an agent and what it answers: one JSON object a line, both ways.

The agent does what it is told and decides nothing. Every request has an ``id``; each reply that
belongs to one carries it, and the last reply of a request is ``Done`` (also after an
``ErrorReply``).

    OpenNamespaces   these namespaces exist, with the way into each  -> FileContent*, Done
                     a FileContent ``netns`` names one that cannot be entered: there is no process
                     of the pod, or the agent lacks the right
    ReadFiles        the named files of a namespace                  -> FileContent*, Done
    DnsQuery         one DNS query from a namespace                  -> DnsResponse, Done
    StartCapture     arm every source in these namespaces            -> CaptureStarted
                     then, until stopped: CapturedPacket, RuleTraceEvent, DropEvent, EventsLost
    SendProbes       send the probes, wait for what comes back       -> ProbeResult*, Done
    SendPreflight    begin these connections, let none arrive        -> PreflightResult*, Done
    GetConntrack     the conntrack entries of these flows            -> ConntrackEntry*, Done
    ListConnections  the connections of one end to another           -> ConnectionList, Done
    Stop             (of StartCapture) drain what is queued, disarm  -> ..., EventsLost*, Done
                     (of SendProbes) give up waiting                 -> ProbeResult*, Done
                     (of SendPreflight) end what is under way        -> Done
    end of input: disarm and leave

A recorded run is the list of its replies; that is why replies carry the request's id and not a
position in a stream.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import msgspec

from kptrace.model import (
    CapturedPacket,
    ConntrackEntry,
    DropEvent,
    EventsLost,
    Flow,
    Netns,
    Probe,
    ProbeResult,
    RuleTraceEvent,
    Value,
)

# --- requests ---------------------------------------------------------------------------------


class NetnsHandle(Value):
    """The way into a netns.

    ns_path: the namespace file (``/run/netns/x``, ``/proc/1/ns/net``)
    pod_uid: where only this is known, the agent looks for a process of the pod
        (agent/netns_lookup.py), which has the namespace, the resolv.conf and the cgroup
    held_path: the namespace file as another process has to name it, once the agent holds
        ``ns_path`` open
    closed: why there is no way in, where that is known before
    hint, manifest: what would open it, and the objects to apply for that
    resolv_conf: the file that its resolver reads; empty: not known
    bpffs: where BPF maps are pinned
    cgroup: the directory (version 2) in which sockets are made, so that they meet the programs
        attached to it; empty: the agent's own
    """

    netns: Netns
    ns_path: str = ""
    pod_uid: str = ""
    held_path: str = ""
    closed: str = ""
    hint: str = ""
    manifest: str = ""
    resolv_conf: str = ""
    bpffs: str = "/sys/fs/bpf"
    cgroup: str = ""


class OpenNamespaces(Value, tag="open-namespaces"):
    """rights: how whoever asks could give the agent more of them, for its hints."""

    id: int
    namespaces: tuple[NetnsHandle, ...]
    rights: str = ""


class ReadFiles(Value, tag="read-files"):
    """files: names as in a bundle (``ip-route.json``), plus ``resolv.conf``."""

    id: int
    netns: Netns
    files: tuple[str, ...]


class DnsQuery(Value, tag="dns-query"):
    """query: the DNS message in wire format; transport ``udp`` or ``tcp``."""

    id: int
    netns: Netns
    server: str
    query: bytes
    transport: str = "udp"
    port: int = 53
    timeout: float = 2.0


class StartCapture(Value, tag="start-capture"):
    """layers: of ``capture``, ``rules``, ``drops``; what cannot be armed is named in Ready.

    backends: flows backend -> anywhere whose packets may be UDP replies without our cookie
    (protocol, address, port).
    raw_trace: where nft cannot mark the probes, a TRACE rule for them may be set in ``raw``.
    """

    id: int
    namespaces: tuple[Netns, ...]
    probes: tuple[Probe, ...]
    sources: tuple[str, ...] = ("capture", "rules", "drops")
    backends: tuple[tuple[str, str, int], ...] = ()
    raw_trace: bool = False


class SendProbes(Value, tag="send-probes"):
    """Send each probe from ``netns``: TCP as a real connection, UDP as one datagram."""

    id: int
    netns: Netns
    probes: tuple[Probe, ...]
    timeout: float = 4.0


class SendPreflight(Value, tag="send-preflight"):
    """Learn from conntrack where the node would send these probes, sent from ``netns``.

    hold: drop them where they would leave the node, so that nobody hears of them; else each goes as
    far as its ``ttl`` lets it. bridges: the node's, which they pass on their way to a port
    """

    id: int
    netns: Netns
    probes: tuple[Probe, ...]
    block_egress: bool = True
    bridges: tuple[str, ...] = ()
    timeout: float = 1.0


class GetConntrack(Value, tag="get-conntrack"):
    id: int
    netns: Netns
    flows: tuple[Flow, ...]


class ListConnections(Value, tag="list-connections"):
    """Connections from ``flow.src``, by any port, to the flow's end: those that last."""

    id: int
    netns: Netns
    flow: Flow


class Stop(Value, tag="stop"):
    id: int
    of: int


Request = (
    OpenNamespaces
    | ReadFiles
    | DnsQuery
    | StartCapture
    | SendProbes
    | SendPreflight
    | GetConntrack
    | ListConnections
    | Stop
)

# --- replies ----------------------------------------------------------------------------------


class FileContent(Value, tag="file-content"):
    """One file of a namespace, text as the bundle has it.

    unavailable: why it could not be read; empty: it was
    hint, manifest: what would let it be read, and the objects to apply for that
    """

    id: int
    netns: Netns
    file: str
    text: str = ""
    unavailable: str = ""
    hint: str = ""
    manifest: str = ""


NETNS_UNAVAILABLE = "netns"  # the file of a Fact that tells of a place that there is no way into
CGROUP_UNAVAILABLE = "cgroup"  # of one that tells why no socket can be made in the pod's own


class DnsResponse(Value, tag="dns-response"):
    """The DNS answer in wire format, or why there is none (TIMEOUT, CLOSED, UNREACHABLE)."""

    id: int
    netns: Netns
    server: str
    transport: str
    elapsed_us: int
    message: bytes = b""
    error: str = ""


class SourceUnavailable(Value):
    """A layer that could not be armed in a place, why, and what would make it possible."""

    netns: Netns
    source: str
    reason: str
    hint: str = ""


class CaptureStarted(Value, tag="capture-started"):
    id: int
    armed: tuple[str, ...]
    unarmed: tuple[SourceUnavailable, ...] = ()


class PreflightResult(Value, tag="preflight-result"):
    """What became of a preflight probe.

    flow:  as it left
    entry: what it is translated to, None where conntrack did not record it
    error: why it was not sent
    """

    id: int
    netns: Netns
    probe_id: int
    flow: Flow
    entry: ConntrackEntry | None = None
    error: str = ""


class ConnectionList(Value, tag="connection-list"):
    """more: how many there are beside these"""

    id: int
    netns: Netns
    entries: tuple[ConntrackEntry, ...] = ()
    more: int = 0


class ErrorReply(Value, tag="error"):
    """The request could not be done. ``hint`` as in model/errors.py."""

    id: int
    message: str
    hint: str = ""


class Done(Value, tag="done"):
    id: int


Reply = (
    FileContent
    | DnsResponse
    | CaptureStarted
    | ErrorReply
    | Done
    | CapturedPacket
    | RuleTraceEvent
    | DropEvent
    | ConntrackEntry
    | EventsLost
    | ProbeResult
    | PreflightResult
    | ConnectionList
)

encode = msgspec.json.encode
# what a line that is none of ours raises: no JSON or another shape, no UTF-8, too deep
UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
decode_request = msgspec.json.Decoder(Request).decode
decode_reply = msgspec.json.Decoder(Reply).decode


class AgentClient(Protocol):
    """Our end of a conversation with one agent, however its stdin and stdout are reached.

    log: every reply so far, in the order of arrival
    """

    node: str

    @property
    def log(self) -> Sequence[Reply]: ...

    def send(self, request: Request) -> None:
        """Say it and go on. Raises AgentFailed when the agent is gone."""

    def wait(self, id: int, timeout: float) -> bool:
        """Block until the request's Done (of a Watch: its Ready); False when the time is up.

        Raises AgentFailed on an Oops to it, or when the agent is gone.
        """

    def close(self) -> None:
        """End of input; wait until the agent has disarmed and left."""
