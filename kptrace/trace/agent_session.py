"""The agents of one run: told together, waited for together, their words kept in order.

A run looks at a node through its agent and at nothing else. An agent that a run can do without may
be missing; then it is said which one, and why.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import Protocol, TypeGuard, TypeVar

from kptrace.model import EvidenceSource, Netns
from kptrace.model.errors import (
    AgentError,
    ClusterUnreachableError,
    KptraceError,
    NotFoundError,
    ObservationError,
    PermissionDeniedError,
)
from kptrace.protocol import (
    NETNS_UNAVAILABLE,
    AgentClient,
    CaptureStarted,
    FileContent,
    PreflightResult,
    ReadFiles,
    Reply,
    Request,
    SendPreflight,
    StartCapture,
)
from kptrace.protocol.recording import AGENT, files_by_netns
from kptrace.rules.live.consistency import changed_queries, unchanged_since
from kptrace.rules.live.queries import GENERATION, TABLES, RuleQuery, is_query

DUMP_SECONDS = 30.0
RULES = "rules"  # the layer that tells which rules the probe meets

# what decides a packet's fate in one place
FILES = (
    "ip-link.json",
    "ip-addr.json",
    "ip-route.json",
    "ip6-route.json",
    "ip-rule.json",
    "ip6-rule.json",
    "ip-neigh.json",
    "bridge-fdb.json",
    "wg-show.txt",
    "sysctl.txt",
    "ipvsadm-Sn.txt",
    "ipvsadm-Ln.txt",
    "ip_vs_conn.txt",
    TABLES,  # the rules behind it are asked for as they are reached
)
# what takes longest of what a walk to a Service reaches
LONGEST = (
    TABLES,
    RuleQuery(kind="table", backend="legacy", family="ip", table="nat").file,
    RuleQuery(kind="chain", backend="nft", family="ip", table="nat", name="KUBE-SERVICES").file,
)
# whole rulesets, for where the kernel does not tell them one by one
ON_DEMAND = (
    "iptables-legacy-save.txt",
    "iptables-nft-save.txt",
    "ip6tables-legacy-save.txt",
    "ip6tables-nft-save.txt",
    "nft-ruleset.json",
    "ipset-save.txt",
)


class Environment(Protocol):
    """Where a run takes place: what the API says there, and an agent on each node.

    sparing: an agent costs something there, so as few as possible are asked for
    """

    @property
    def sparing(self) -> bool: ...

    def api(self) -> Mapping[str, str]:
        """The API documents by file name, as in a bundle's ``api`` folder; what was told once is
        told again, until it is forgotten.
        """

    def forget(self) -> bool:
        """Have the API asked anew; False: it always tells the same."""

    def begin(self, node: str) -> None:
        """Have the agent on a node start; ``agent`` says what came of it."""

    def agent(self, node: str) -> AgentClient:
        """The agent on a node, with its places entered. Raises CannotLook."""

    def api_only_documents(self) -> Mapping[str, str] | None:
        """What the API tells where the sender's node can have no agent: the documents, with those
        that matter only then. None: without an agent there is nothing to tell.
        """


class AgentSession:
    """The agents that a run works with; it numbers their requests and waits for them together.

    absent: nodes without an agent, and why
    """

    def __init__(self, environment: Environment) -> None:
        self._environment = environment
        self._agents: dict[str, AgentClient] = {}
        self._last_id = 1000
        self._expected: dict[Netns, dict[str, tuple[AgentClient, int]]] = {}
        self._writing: dict[int, Sequence[Netns]] = {}
        self._without: set[str] = set()
        self.absent: list[EvidenceSource] = []

    def require_agent(self, node: str) -> AgentClient:
        if node not in self._agents:
            self._agents[node] = self._environment.agent(node)
        return self._agents[node]

    def agent_or_none(self, node: str) -> AgentClient | None:
        """The node's agent, or none; then ``absent`` says why."""
        if node in self._without:
            return None
        try:
            return self.require_agent(node)
        except KptraceError as error:
            self._do_without(node, error)
            return None

    def require_netns(self, netns: Netns) -> AgentClient:
        agent = self.require_agent(netns.node)
        for reply in agent.log:
            if _is_closed(reply, netns):
                where = netns.name if netns.pod else f"node {netns.node}"
                raise PermissionDeniedError(
                    f"{where}: {reply.unavailable}", reply.hint, reply.manifest
                )
        return agent

    def can_inspect_node(self, node: str) -> bool:
        """The node itself, and not only a pod of it; if not, ``absent`` says why."""
        try:
            self.require_netns(Netns(node=node))
        except KptraceError as error:
            self._do_without(node, error)
        return node not in self._without

    def open_source_netns(self, netns: Netns) -> Mapping[str, str] | None:
        """Have the agent that is to send from there. None: it can; else what the API tells alone.

        Raises what keeps it away where that is nothing, where there is no API server any more, and
        where the user named what is not there.
        """
        try:
            self.require_netns(netns)
        except (NotFoundError, ClusterUnreachableError):
            raise
        except ObservationError as error:
            texts_by_name = self._environment.api_only_documents()
            if texts_by_name is None:
                raise
            self._do_without(netns.node, error)
            return texts_by_name
        return None

    def _do_without(self, node: str, why: KptraceError) -> None:
        self._without.add(node)
        self.absent.append(_absent(AGENT, node, why))

    def start_agents(self, nodes: Iterable[str]) -> None:
        """Have these agents start while others already work."""
        for node in unique(nodes):
            self._environment.begin(node)

    def reachable_netns(self, namespaces: Iterable[Netns]) -> tuple[Netns, ...]:
        """Those that can be looked at; ``absent`` tells why the others cannot."""
        return tuple(netns for netns in namespaces if self._enters(netns))

    def _enters(self, netns: Netns) -> bool:
        agent = self.agent_or_none(netns.node)
        closed = [reply for reply in agent.log if _is_closed(reply, netns)] if agent else []
        for content in closed:
            layer = _absent(
                netns.name,
                netns.node,
                PermissionDeniedError(content.unavailable, content.hint, content.manifest),
            )
            if layer not in self.absent:
                self.absent.append(layer)
        return agent is not None and not closed

    def send(self, node: str, request: Callable[..., Request]) -> tuple[AgentClient, int]:
        """``request``: all of it but the id, which is given here."""
        self._last_id += 1
        agent = self._agents[node]
        message = request(id=self._last_id)
        self._writing[self._last_id] = _written(message)
        agent.send(message)
        return agent, self._last_id

    def expect(self, netns: Netns, *file_groups: Sequence[str]) -> None:
        """Have these files read while others work; the next ``dump`` of the place waits for them.
        Those of one sequence are read one after the other.
        """
        self.require_agent(netns.node)
        for files in file_groups:
            sent = self.send(netns.node, partial(ReadFiles, netns=netns, files=tuple(files)))
            self._expected.setdefault(netns, {}).update(dict.fromkeys(files, sent))

    def dump(self, namespaces: Iterable[Netns], files: tuple[str, ...]) -> None:
        sent = []
        for netns in namespaces:
            if self.agent_or_none(netns.node):
                coming = self._expected.pop(netns, {})
                rest = tuple(file for file in files if file not in coming)
                sent.append(self.send(netns.node, partial(ReadFiles, netns=netns, files=rest)))
                sent += unique(coming.values())
        wait_all(sent, DUMP_SECONDS, "dump")

    def require_rules(self, node: str) -> None:
        """After a dump of it. Raises why they could not be read."""
        requested = Netns(node=node), TABLES
        for reply in self.words():
            if (
                isinstance(reply, FileContent)
                and reply.unavailable
                and (reply.netns, reply.file) == requested
            ):
                raise PermissionDeniedError(
                    f"the rules of node {node}: {reply.unavailable}", reply.hint, reply.manifest
                )

    def texts(self) -> dict[Netns, Mapping[str, str]]:
        """The files of each place that was dumped; those about rules come when they are read."""
        return {
            netns: LazyFiles(self, netns, texts_by_name)
            for netns, texts_by_name in files_by_netns(self.words()).items()
        }

    def ask(self, netns: Netns, files: Sequence[str]) -> dict[str, str | None]:
        """These files, however often they are asked for; None: it cannot be had."""
        agent, id = self.send(netns.node, partial(ReadFiles, netns=netns, files=tuple(files)))
        wait_all([(agent, id)], DUMP_SECONDS, "dump")
        texts_by_name: dict[str, str | None] = dict.fromkeys(files)
        for reply in reversed(agent.log):
            if isinstance(reply, FileContent) and reply.id == id:
                texts_by_name[reply.file] = None if reply.unavailable else reply.text
            elif isinstance(reply, FileContent) and reply.id < id:
                break
        return texts_by_name

    def changed_rules(self) -> dict[Netns, tuple[RuleQuery, ...]]:
        """What is by now other than it was when it was read. Where more was committed than our own
        tables for the rule trace, the same is asked once more: for comparing, not to be believed.
        """
        before = {netns: dict(files) for netns, files in files_by_netns(self.words()).items()}
        read = {netns: _rules(before[netns]) for netns in before}
        own = self._own_commits()
        now = self._ask_all({netns: [GENERATION] for netns in read if read[netns]})
        restless = {
            netns: [TABLES, *read[netns]]
            for netns, texts_by_name in now.items()
            if not unchanged_since(before[netns], texts_by_name.get(GENERATION, ""), own[netns])
        }
        after = self._ask_all(restless)
        rule_queries_by_netns = {
            netns: tuple(changed_queries(before[netns], after[netns])) for netns in restless
        }
        return {netns: parts for netns, parts in rule_queries_by_netns.items() if parts}

    def _own_commits(self) -> Counter[Netns]:
        """How many tables of our own were written where; each was one commit."""
        own = Counter(netns for namespaces in self._writing.values() for netns in namespaces)
        refused = {
            word.id for word in self.words() if isinstance(word, PreflightResult) and word.error
        }
        own -= Counter(netns for id in refused for netns in self._writing.get(id, ()))
        ready = (reply for reply in self.words() if isinstance(reply, CaptureStarted))
        unarmed = (unavailable for reply in ready for unavailable in reply.unarmed)
        return own - Counter(
            unavailable.netns for unavailable in unarmed if unavailable.source == RULES
        )

    def _ask_all(self, files: Mapping[Netns, Sequence[str]]) -> dict[Netns, Mapping[str, str]]:
        """At all places at a time."""
        sent = [
            self.send(netns.node, partial(ReadFiles, netns=netns, files=tuple(files[netns])))
            for netns in files
        ]
        wait_all(sent, DUMP_SECONDS, "dump")
        texts = files_by_netns(self.words())
        return {netns: texts[netns] for netns in files}

    def fresh_api(self) -> Mapping[str, str] | None:
        """The API documents, asked anew; None where the environment's API always says the same."""
        return self._environment.api() if self._environment.forget() else None

    def words(self) -> tuple[Reply, ...]:
        return tuple(reply for agent in self._agents.values() for reply in agent.log)

    @property
    def nodes(self) -> tuple[str, ...]:
        return tuple(self._agents)


class LazyFiles(Mapping[str, str]):
    """A place's files by name. What is in ``ON_DEMAND`` or tells a part of the rules is dumped when
    it is first looked up, so that only what a walk reaches is read.
    """

    def __init__(
        self, session: AgentSession, netns: Netns, texts_by_name: Mapping[str, str]
    ) -> None:
        self._session, self._netns = session, netns
        self._told: dict[str, str | None] = dict(texts_by_name)

    def __getitem__(self, name: str) -> str:
        self._ask([name])
        text = self._told.get(name)
        if text is None:
            raise KeyError(name)
        return text

    def get_many(self, names: Sequence[str]) -> Mapping[str, str]:
        """Those that there are, asked for at once."""
        self._ask(names)
        return {name: text for name in names if (text := self._told.get(name)) is not None}

    def _ask(self, names: Sequence[str]) -> None:
        unknown = [name for name in names if name not in self._told]
        requested = [name for name in unknown if is_query(name) or name in ON_DEMAND]
        if requested:
            self._told |= self._session.ask(self._netns, requested)

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and self.get(name) is not None

    def __iter__(self) -> Iterator[str]:
        return (name for name, text in self._told.items() if text is not None)

    def __len__(self) -> int:
        return sum(1 for _ in self)


def wait_all(sent: Iterable[tuple[AgentClient, int]], seconds: float, what: str) -> None:
    for agent, id in sent:
        if not agent.wait(id, seconds):
            raise AgentError(
                f"the agent on {agent.node} did not finish its {what} in {seconds:g} s",
                "is the node overloaded? try again, or look at it by hand",
            )


def _written(request: Request) -> Sequence[Netns]:
    """Where it has a table written: one that marks what is to be traced, or holds preflight probes
    back.
    """
    match request:
        case StartCapture(sources=sources, namespaces=namespaces) if RULES in sources:
            return namespaces
        case SendPreflight(block_egress=True, netns=netns):
            return (Netns(node=netns.node),)
    return ()


def _rules(files: Iterable[str]) -> list[str]:
    return [name for name in files if is_query(name) and name != TABLES]


def _absent(name: str, node: str, why: KptraceError) -> EvidenceSource:
    return EvidenceSource(
        name=name, node=node, unavailable=why.in_one_line, hint=why.hint, manifest=why.manifest
    )


def _is_closed(reply: Reply, netns: Netns) -> TypeGuard[FileContent]:
    return (
        isinstance(reply, FileContent) and reply.netns == netns and reply.file == NETNS_UNAVAILABLE
    )


T = TypeVar("T", bound=Hashable)


def unique(values: Iterable[T]) -> tuple[T, ...]:
    """Each value once, in the order of its first appearance."""
    return tuple(dict.fromkeys(values))
