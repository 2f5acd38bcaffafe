"""What the sender's older connections to the same end go to, which a new one does not show.

conntrack keeps the backend that was chosen when a connection began. kube-proxy deletes the entries
of UDP when an endpoint goes (its cleanup after a sync), and none of TCP: these end with the two
ends or with their timeout (net.netfilter.nf_conntrack_tcp_timeout_established, five days). UDP that
was sent before the rules stood is remembered untranslated as long as its sender goes on. So a
client that keeps its socket can be cut off while every new connection works.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from kptrace.diagnose.phrases import end, flow_words
from kptrace.model import ConntrackEntry, Finding, ProbeResult
from kptrace.protocol import ConnectionList, PreflightResult
from kptrace.protocol.recording import Recording

MOST = 3


def diagnose(run: Recording) -> Iterator[Finding]:
    service = run.resolution.service
    known = {endpoint.address for endpoint in run.resolution.endpoints}
    if service is None or service.headless or not known:
        return
    sent = {reply.flow for reply in run.replies if isinstance(reply, ProbeResult | PreflightResult)}
    connection_lists = [reply for reply in run.replies if isinstance(reply, ConnectionList)]
    lost: dict[str, list[ConntrackEntry]] = {}
    for entry in (entry for reply in connection_lists for entry in reply.entries):
        if entry.original not in sent and entry.reply.src not in known:
            lost.setdefault(entry.reply.src, []).append(entry)
    whole = not any(reply.more for reply in connection_lists)
    for backend, entries in lost.items():
        yield _finding(backend, entries, whole)


def _finding(backend: str, entries: Sequence[ConntrackEntry], whole: bool) -> Finding:
    first = entries[0]
    node, flow = first.netns.node, first.original
    target = f"{end(flow.dst, flow.dport)}/{flow.protocol}"
    number = f"{len(entries)}" if whole else f"at least {len(entries)}"
    many = f"{number} connections" if len(entries) > 1 else "a connection"
    where = "are not translated" if len(entries) > 1 else "is not translated"
    goes = "still go" if len(entries) > 1 else "still goes"
    untouched = backend == flow.dst
    to = where if untouched else f"{goes} to {backend}, which is no endpoint any more"
    narrow = "" if untouched else f" --reply-src {backend}"
    return Finding(
        cause="connection-stale",
        severity="warning",
        node=node,
        object=f"conntrack {flow.src} > {target}",
        summary=f"{node} remembers {many} from {flow.src} to {target} that {to}; "
        "new ones are not affected",
        evidence=tuple(_line(entry) for entry in entries[:MOST]),
        remedy=(
            f"conntrack -D -p {flow.protocol} --orig-src {flow.src} --orig-dst {flow.dst} "
            f"--orig-port-dst {flow.dport}{narrow}  # on {node}",
            "or restart the client, which then begins new ones",
        ),
    )


def _line(entry: ConntrackEntry) -> str:
    silent = "" if "SEEN_REPLY" in entry.status else ", never answered"
    state = f" {entry.state}" if entry.state else ""
    return (
        f"conntrack on {entry.netns.node}:{state} {flow_words(entry.original)}, "
        f"answered by {end(entry.reply.src, entry.reply.sport)}{silent}"
    )
