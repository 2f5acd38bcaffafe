"""All that explaining or checking needs of several nodes, as the files of a bundle: ``collect``.

In: a ground, the nodes' names. Out: Gathered: the files by path (DESIGN section 6), and what could
not be had, and why: a node or a file that fails takes nothing else with it.

Which programs are asked, the kernel's own index of tables decides first: a save of a backend
without tables is empty and needs no program, and ``nft`` is asked only where there are tables that
iptables' saves do not tell. Of iptables-nft's own tables it prints rules without their parameters
(nft 1.0.6: 48 s for 62 MB of 10,000 Services), so there its file is an outline: the tables and base
chains with their handles, which tell in which order they were loaded.

The programs are the fastest that tell everything: iptables-nft-save takes 41 s of a processor for
61,000 chains of 10,000 Services, our own reading of one chain after the other 1.2 ms a chain: 71 s.
What it wins, reading only what is reached, is lost where all is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from typing import Any

import msgspec

from kptrace.model import EvidenceSource, Netns, ProgressCallback, Value
from kptrace.model.errors import AgentError
from kptrace.plugins.registry import extra_files
from kptrace.protocol import AgentClient, FileContent, ReadFiles
from kptrace.rules.iptables.base_chains import PRIORITIES
from kptrace.rules.live.queries import TABLES
from kptrace.trace.agent_session import FILES, AgentSession, Environment

SECONDS = 150.0  # a save of 10,000 Services in iptables-nft's tables takes 40
SLICE_SECONDS = 0.2
NFT = "nft-ruleset.json"
STATE = (
    *(file for file in FILES if file != TABLES),
    "ipset-save.txt",
    "iptables-legacy-save.txt",
    "ip6tables-legacy-save.txt",
    "conntrack.txt",
    "conntrack-stats.txt",
)
SAVES = {"ip": "iptables-nft-save.txt", "ip6": "ip6tables-nft-save.txt"}
# what iptables-nft-save says instead of a table that holds rules which are not its own
_NOT_ALL = "is incompatible"
_HOOK_NAMES = ("prerouting", "input", "forward", "output", "postrouting", "ingress")

Tree = Mapping[str, Any]


class CollectedState(Value):
    """``missing``: one Layer a file or node that could not be had."""

    files: dict[str, bytes]
    missing: tuple[EvidenceSource, ...] = ()

    @property
    def needed(self) -> tuple[EvidenceSource, ...]:
        """Without those that only plugins ask for, each of which is at home on few nodes."""
        optional = frozenset(extra_files()) - frozenset(STATE)
        return tuple(layer for layer in self.missing if layer.name not in optional)


def collect(
    environment: Environment, nodes: Iterable[str], progress: ProgressCallback
) -> CollectedState:
    names = tuple(nodes)
    files = {f"api/{name}": text.encode() for name, text in environment.api().items()}
    progress("starting on " + ", ".join(names))
    session = AgentSession(environment)
    session.start_agents(names)
    there = [Netns(node=name) for name in names if session.can_inspect_node(name)]
    missing: list[EvidenceSource] = []
    with_index = _read(session, there, lambda _: (TABLES,), progress, missing)
    indexes = {netns: _index(files_) for netns, files_ in with_index.items()}
    texts = _read(session, there, lambda netns: _files_to_read(indexes[netns]), progress, missing)
    more = [netns for netns in there if not _nft_outline_suffices(indexes[netns], texts[netns])]
    for netns, texts_by_name in _read(session, more, lambda _: (NFT,), progress, missing).items():
        texts[netns] |= texts_by_name
    for netns in there:
        texts[netns] = {**_known(indexes[netns]), **texts[netns]}
        if netns not in more:
            texts[netns][NFT] = _outline(indexes[netns])
        files |= {f"{netns.node}/{name}": text.encode() for name, text in texts[netns].items()}
    return CollectedState(files=files, missing=(*session.absent, *missing))


# --- asking ---------------------------------------------------------------------------------------


def _read(
    session: AgentSession,
    namespaces: Iterable[Netns],
    files: Callable[[Netns], tuple[str, ...]],
    progress: ProgressCallback,
    missing: list[EvidenceSource],
) -> dict[Netns, dict[str, str]]:
    """These files of all places at once; what does not come is put into ``missing``."""
    asked = {
        netns: session.send(netns.node, partial(ReadFiles, netns=netns, files=files(netns)))
        for netns in namespaces
    }
    texts: dict[Netns, dict[str, str]] = {}
    for netns, (agent, id) in asked.items():
        failed = _wait(agent, id, len(files(netns)), progress)
        facts = [reply for reply in agent.log if isinstance(reply, FileContent) and reply.id == id]
        texts[netns] = {fact.file: fact.text for fact in facts if not fact.unavailable}
        texts_by_name = {fact.file: fact.unavailable for fact in facts}
        for name in files(netns):
            why = texts_by_name.get(name, failed or "it was not told")
            if why:
                missing.append(EvidenceSource(name=name, node=netns.node, unavailable=why))
    return texts


def _wait(agent: AgentClient, id: int, count: int, progress: ProgressCallback) -> str:
    """Until all has come; else why it has not."""
    try:
        for _ in range(int(SECONDS / SLICE_SECONDS)):
            if agent.wait(id, SLICE_SECONDS):
                return ""
            come = sum(isinstance(reply, FileContent) and reply.id == id for reply in agent.log)
            progress(f"reading {agent.node}: {come} of {count} files")
    except AgentError as error:
        return error.message
    return f"it took more than {SECONDS:g} s"


# --- which rules ----------------------------------------------------------------------------------


def _index(files: Mapping[str, str]) -> Tree | None:
    """The kernel's tables; None: nobody told."""
    return msgspec.json.decode(files[TABLES], type=dict[str, Any]) if TABLES in files else None


def _files_to_read(index: Tree | None) -> tuple[str, ...]:
    saves = [file for family, file in SAVES.items() if index is None or _own(index, family)]
    return (*STATE, *saves, *(file for file in extra_files() if file not in STATE))


def _own(index: Tree, family: str) -> list[Tree]:
    """iptables-nft's own tables."""
    return [
        tree
        for tree in index.get("tables", ())
        if tree["family"] == family and tree["name"] in PRIORITIES
    ]


def _nft_outline_suffices(index: Tree | None, texts_by_name: Mapping[str, str]) -> bool:
    """Whether iptables' saves tell every table of nft's."""
    if index is None:
        return False
    own = {family: _own(index, family) for family in SAVES}
    if len(index.get("tables", ())) > sum(map(len, own.values())):
        return False
    saves = (texts_by_name.get(SAVES[family]) for family, tables in own.items() if tables)
    return all(text is not None and _NOT_ALL not in text for text in saves)


def _known(index: Tree | None) -> dict[str, str]:
    """What a program would print that need not be asked: nothing."""
    return {
        file: "" for family, file in SAVES.items() if index is not None and not _own(index, family)
    }


def _outline(index: Tree | None) -> str:
    """As ``nft -j list ruleset`` has them, one a line."""
    trees = list(_outline_trees(index or {}))
    lines = ",\n".join(msgspec.json.encode(tree).decode() for tree in trees)
    return f'{{"nftables": [\n{lines}\n]}}\n'


def _outline_trees(index: Tree) -> Iterator[Tree]:
    for tree in index.get("tables", ()):
        yield {"table": {name: tree[name] for name in ("family", "name", "handle")}}
    for tree in index.get("base chains", ()):
        hook = tree["hook"]
        yield {
            "chain": {
                **{name: tree[name] for name in ("family", "table", "name", "handle", "type")},
                "hook": _HOOK_NAMES[hook["hooknum"]],
                "prio": hook["priority"],
                "policy": "drop" if tree["policy"] == 0 else "accept",
            }
        }
