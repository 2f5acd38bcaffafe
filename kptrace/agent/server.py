"""The agent: does on one node what it is told, line by line (protocol.py), and decides nothing.

    python -m kptrace.agent.server  < requests  > replies

In: JSON lines on stdin. Out: JSON lines on stdout; words for people on stderr. The end of stdin
disarms everything and ends it. A line that is no request is answered with an Oops of id 0.

Requests run side by side in one loop (agent/loop.py): sockets are sources or tasks of the loop;
only a Dump, which waits for programs, has a thread of its own. Everything that is armed hangs on
sockets and file descriptors of this process, so the kernel undoes it when the process ends,
however it ends; what does not, the guard undoes (agent/cleanup_guard.py).
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable
from functools import partial
from itertools import chain
from typing import TYPE_CHECKING

import kptrace.model  # noqa: F401  first: it imports msgspec the fast way
from kptrace.agent.capture.rx_timestamps import RxTimestamping
from kptrace.agent.cleanup_guard import Guard
from kptrace.agent.loop import Loop, Task
from kptrace.agent.netns import OWN, run_in_netns
from kptrace.agent.netns_lookup import keep_open, resolve_netns
from kptrace.model import Netns, Probe, ProbeResult
from kptrace.protocol import (
    NETNS_UNAVAILABLE,
    UNREADABLE,
    ConnectionList,
    DnsQuery,
    Done,
    ErrorReply,
    FileContent,
    GetConntrack,
    ListConnections,
    NetnsHandle,
    OpenNamespaces,
    ReadFiles,
    Reply,
    Request,
    SendPreflight,
    SendProbes,
    StartCapture,
    Stop,
    decode_request,
    encode,
)
from kptrace.rules.live.queries import is_query

if TYPE_CHECKING:
    from kptrace.agent.capture.event_sources import CaptureSession
    from kptrace.agent.nftables.prefetch import Prefetcher
    from kptrace.agent.probe.preflight import PreflightRun
    from kptrace.agent.state.rule_queries import RuleReader

AS_ROOT = "run the agent as root"
MOST_RECALLED = 1000
_CHUNK = 1 << 16
_MAX_LINE = 16 << 20


class RequestError(Exception):
    """A request that cannot be done; becomes an Oops."""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint


class AgentServer:
    def __init__(
        self, requests: int, tell: Callable[[bytes], None], ahead: Prefetcher | None = None
    ) -> None:
        """``requests``: a file descriptor to read them from; ``tell`` takes the replies' lines;
        ``ahead``: what this process has begun to read where it stands.
        """
        self._requests, self._tell, self._ahead = requests, tell, ahead
        self._loop = Loop()
        self._guard = Guard()
        self._stamps = RxTimestamping()
        self._handles: dict[Netns, NetnsHandle] = {}
        self._watches: dict[int, CaptureSession] = {}
        self._rules: dict[Netns, RuleReader] = {}
        self._tasks: dict[int, list[Task]] = {}
        self._preflights: dict[int, PreflightRun] = {}
        self._at_end: set[Callable[[], None]] = set()
        self._unread = b""
        self._rights = ""
        self._writing = threading.Lock()

    def run(self) -> None:
        self._loop.watch(_File(self._requests), self._listen)
        try:
            self._loop.run()
        except BrokenPipeError:
            pass  # nobody listens any more
        finally:
            for watching in self._watches.values():
                watching.close()
            for rules in self._rules.values():
                rules.close()
            self._stamps.close()
            self._guard.close()
            for leave in self._at_end:
                leave()

    def _say(self, *replies: Reply) -> None:
        lines = b"".join(encode(reply) + b"\n" for reply in replies)
        with self._writing:
            self._tell(lines)

    # --- requests -----------------------------------------------------------------------------

    def _listen(self) -> None:
        data = os.read(self._requests, _CHUNK)
        *lines, self._unread = (self._unread + data).split(b"\n")
        for line in lines:
            if line.strip():
                self._obey(line)
        if len(self._unread) > _MAX_LINE:
            self._unread = b""
            self._say(ErrorReply(id=0, message="a line is too long to be a request"), Done(id=0))
        if not data:
            self._loop.stop()

    def _obey(self, line: bytes) -> None:
        try:
            request = decode_request(line)
        except UNREADABLE as error:
            self._say(ErrorReply(id=0, message=f"not a request: {error}"), Done(id=0))
            return
        try:
            self._do(request)
        except RequestError as refusal:
            self._oops(request, str(refusal), refusal.hint)
        except PermissionError as error:
            self._oops(request, str(error), self._rights or AS_ROOT)
        except BrokenPipeError:
            raise
        except Exception as error:  # whatever it was asked, it goes on and says so
            self._oops(request, f"{type(error).__name__}: {error}")

    def _do(self, request: Request) -> None:
        match request:
            case OpenNamespaces():
                self._enter(request)
            case ReadFiles():
                self._dump(request)
            case DnsQuery():
                self._ask(request)
            case StartCapture():
                self._watch(request)
            case SendProbes():
                self._inject(request)
            case SendPreflight():
                self._send_preflight(request)
            case GetConntrack():
                self._lookup(request)
            case ListConnections():
                self._recall(request)
            case Stop():
                self._stop(request)

    def _oops(self, request: Request, message: str, hint: str = "") -> None:
        self._say(ErrorReply(id=request.id, message=message, hint=hint), Done(id=request.id))

    def _handle(self, netns: Netns) -> NetnsHandle:
        if netns not in self._handles:
            raise RequestError(
                f"namespace {netns.name} on {netns.node} was not opened",
                "send OpenNamespaces first",
            )
        return self._handles[netns]

    def _enter(self, request: OpenNamespaces) -> None:
        self._rights = request.rights
        for handle in resolve_netns(request.namespaces):
            if not handle.ns_path:
                why = f"no process of pod {handle.netns.pod} was found on {handle.netns.node}"
                why = handle.closed or why
                self._say(_closed(request, handle, why))
                continue
            if handle.pod_uid:
                from kptrace.agent.cgroup import looked_up

                handle, contents = looked_up(request.id, handle)
                self._say(*contents)
            self._handles[handle.netns] = handle
            try:
                self._handles[handle.netns] = handle = keep_open(handle, self._at_end)
                run_in_netns(handle.ns_path, _noop)
            except PermissionError as error:
                why = f"not permitted to enter the network namespace ({error.strerror})"
                self._say(_closed(request, handle, why, self._rights or AS_ROOT))
            except (FileNotFoundError, ProcessLookupError):
                if handle.netns.pod:
                    why = f"pod {handle.netns.pod} has ended since it was looked up"
                    self._say(_closed(request, handle, why, "trace once more"))
                    continue
                raise RequestError(
                    f"{handle.ns_path}: no such namespace file (for {handle.netns.name})",
                    "it may have ended since it was looked up; try again",
                ) from None
        self._say(Done(id=request.id))

    def _dump(self, request: ReadFiles) -> None:
        handle = self._handle(request.netns)
        rules = [file for file in request.files if is_query(file)]
        rest = [file for file in request.files if not is_query(file)]
        contents: list[Iterable[FileContent]] = []
        if rules:
            contents.append(self._rulesets(handle).facts(request.id, handle.netns, rules))
        if rest:
            from kptrace.agent.state import files  # it imports much that only these need

            if files.abandon not in self._at_end:
                files.begin()
                self._at_end.add(files.abandon)
            contents.append(files.facts(request.id, handle, rest))

        def work() -> None:
            try:
                for fact in chain.from_iterable(contents):
                    self._say(fact)
                self._say(Done(id=request.id))
            except BrokenPipeError:
                pass  # the loop notices too
            except Exception as error:
                self._oops(request, f"{type(error).__name__}: {error}")

        threading.Thread(target=work, name=f"dump {request.id}", daemon=True).start()

    def _rulesets(self, handle: NetnsHandle) -> RuleReader:
        from kptrace.agent.state.rule_queries import RuleReader

        if handle.netns not in self._rules:
            ahead = self._ahead if handle.ns_path == OWN else None
            self._rules[handle.netns] = RuleReader(handle.ns_path, ahead)
        return self._rules[handle.netns]

    def _ask(self, request: DnsQuery) -> None:
        from kptrace.agent.cgroup import within_cgroup
        from kptrace.agent.probe import dns_query

        handle = self._handle(request.netns)
        with within_cgroup(handle.cgroup):
            sock = run_in_netns(handle.ns_path, partial(dns_query.open_socket, request))
        task = dns_query.put(request, sock, lambda answer: self._say(answer, Done(id=request.id)))
        self._loop.start(task)

    def _watch(self, request: StartCapture) -> None:
        from kptrace.agent.capture.event_sources import (
            CaptureSession,  # taps and tracers: half of what there is to import
        )

        handles = {netns: self._handle(netns) for netns in request.namespaces}
        watching = CaptureSession(request, handles, self._guard, self._rights)
        self._watches[request.id] = watching
        self._stamps.settle()
        for source in watching.sources:
            self._loop.watch(source, lambda: self._say(*watching.read()))
        self._say(watching.ready())

    def _inject(self, request: SendProbes) -> None:
        from kptrace.agent.cgroup import within_cgroup

        handle = self._handle(request.netns)
        with within_cgroup(handle.cgroup):
            opened = run_in_netns(handle.ns_path, partial(_open_all, request.probes))
        left = len(opened)

        def returned(result: ProbeResult) -> None:
            nonlocal left
            left -= 1
            self._say(result)
            if not left:
                self._tasks.pop(request.id, None)
                self._say(Done(id=request.id))

        tasks = [start(request.timeout, returned) for start in opened]
        self._tasks[request.id] = tasks
        for task in tasks:
            self._loop.start(task)
        if not tasks:
            self._say(Done(id=request.id))

    def _send_preflight(self, request: SendPreflight) -> None:
        from kptrace.agent.probe import preflight  # few runs need one

        node = self._handle(Netns(node=request.netns.node))
        preflight_run = preflight.begin(request, self._handle(request.netns), node, self._say)
        self._preflights[request.id] = preflight_run
        for task in preflight_run.tasks:
            self._loop.start(task)

    def _lookup(self, request: GetConntrack) -> None:
        from kptrace.agent.netlink import conntrack
        from kptrace.agent.state import ipvs_table

        handle = self._handle(request.netns)

        def look() -> list[Reply]:
            entries = (
                conntrack.lookup(request.netns, flow) or ipvs_table.lookup(request.netns, flow)
                for flow in request.flows
            )
            return [entry for entry in entries if entry]

        self._say(*run_in_netns(handle.ns_path, look), Done(id=request.id))

    def _recall(self, request: ListConnections) -> None:
        from kptrace.agent.netlink import conntrack

        look = partial(conntrack.recall, request.netns, request.flow)
        connections = [
            run_in_netn
            for run_in_netn in run_in_netns(self._handle(request.netns).ns_path, look)
            if run_in_netn.lasts
        ]
        entries, more = tuple(connections[:MOST_RECALLED]), len(connections[MOST_RECALLED:])
        recalled = ConnectionList(id=request.id, netns=request.netns, entries=entries, more=more)
        self._say(recalled, Done(id=request.id))

    def _stop(self, request: Stop) -> None:
        watching = self._watches.pop(request.of, None)
        if watching:
            self._say(*watching.drain())
            for source in watching.sources:
                self._loop.unwatch(source)
            watching.close()
            self._say(Done(id=request.of))
        for task in self._tasks.pop(request.of, []):
            self._loop.end(task)
        preflight_run = self._preflights.pop(request.of, None)
        if preflight_run:
            preflight_run.close()
        self._say(Done(id=request.id))


def _closed(request: OpenNamespaces, handle: NetnsHandle, why: str, hint: str = "") -> FileContent:
    return FileContent(
        id=request.id,
        netns=handle.netns,
        file=NETNS_UNAVAILABLE,
        unavailable=why,
        hint=hint or handle.hint,
        manifest=handle.manifest,
    )


def _noop() -> None:
    """To be in the namespace is all."""


class _File:
    def __init__(self, number: int) -> None:
        self._number = number

    def fileno(self) -> int:
        return self._number


_Start = Callable[[float, Callable[[ProbeResult], None]], Task]


def _open_all(probes: Iterable[Probe]) -> list[_Start]:
    from kptrace.agent.probe import sender

    def opened(probe: Probe) -> _Start:
        try:
            return partial(sender.send, probe, sender.open_socket(probe))
        except OSError as error:
            return partial(sender.fail, probe, error)

    return [opened(probe) for probe in probes]


def _write(file: int, data: bytes) -> None:
    left = memoryview(data)
    while left:
        left = left[os.write(file, left) :]


def main() -> None:
    replies = os.dup(1)
    os.dup2(2, 1)  # so that nothing but replies can get on the wire
    AgentServer(0, partial(_write, replies)).run()
    os._exit(0)  # all is disarmed; taking an interpreter down in good order only takes time


if __name__ == "__main__":
    main()
