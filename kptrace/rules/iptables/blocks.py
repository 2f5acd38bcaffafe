"""Find out which table the rules of a block belong to, if the text does not say so.

``iptables -S`` and ``iptables -L`` do not print their table. It follows from a command line that
was pasted with the text (``# iptables -t nat -S``), from the names of the chains with a policy, and
for lines without either from what the rules do: only nat has DNAT, only filter has REJECT, and a
jump stays inside a table.
"""

from __future__ import annotations

import contextlib
import re
import shlex
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from kptrace.rules.iptables.base_chains import BUILT_IN_CHAINS, TABLE_CHAINS
from kptrace.rules.iptables.save_text import RuleLine, TableText, is_chain_name, target_of

_COMMAND_LINE = re.compile(
    r"(?:[#$>%]|\S+[#$>])?\s*(?:sudo\s+(?:-\S+\s+)*)?(?:/\S+/)?"
    r"ip6?tables(?:-nft|-legacy)?(?P<save>-save)?(?P<args>\s.*)?"
)


class Block(TableText):
    """Lines that belong together: a table of a save, or the output of one command.

    header: its table is named
    cut: lines were left out
    """

    def __init__(self, name: str = "", header: bool = False) -> None:
        super().__init__(name)
        self.header = header
        self.cut = False
        self.committed = False

    def is_over(self, chain: str) -> bool:
        """Whether a chain with a policy cannot be of this table any more.

        Commands print the built-in chains in the order of their hooks, before all others.
        """
        policies = self.policies
        if self.header or not self.declarations:
            return False
        last = max((_hook_order(name) for name in policies), default=-1)
        return len(policies) < len(self.declarations) or _hook_order(chain) <= last

    @property
    def policies(self) -> frozenset[str]:
        return frozenset(
            chain for chain, text in self.declarations.items() if not text.startswith("-")
        )


def _hook_order(chain: str) -> int:
    return BUILT_IN_CHAINS.index(chain) if chain in BUILT_IN_CHAINS else len(BUILT_IN_CHAINS)


def command_of(line: str) -> re.Match[str] | None:
    """A line that runs iptables, with the prompt before it."""
    return _COMMAND_LINE.fullmatch(line) if len(line) <= _MAX_COMMAND_LINE else None


_MAX_COMMAND_LINE = 1000  # characters; the pattern tries each place of a prompt


def without_table(command: re.Match[str]) -> tuple[str, str]:
    """(table, the other arguments) of a match of command_of.

    Without ``-t`` the table is filter; iptables-save then prints all tables.
    """
    table, rest = "" if command["save"] else "filter", (command["args"] or "").strip()
    option = re.search(r"(?:^|\s)(?:-t\s*|--table[\s=])(\w+)", rest)
    if option:
        table, rest = option[1], (rest[: option.start()] + rest[option.end() :]).strip()
    rest = re.sub(r"^(?:(?:-w|--wait)(?:\s+\d+)?|-4|-6|--ipv[46]|-v|--verbose)\s+", "", rest)
    if "'" in rest:
        with contextlib.suppress(ValueError):
            rest = " ".join(_requoted(word) for word in shlex.split(rest))
    return table, rest


def _requoted(word: str) -> str:
    return f'"{word}"' if " " in word or not word else word


def tables_of(block: Block) -> Iterator[TableText]:
    """The tables of a block: one, or several if its rules are of several."""
    if not block.name:
        block.name = _by_policies(block.policies)
    if block.name:
        needed = frozenset(TABLE_CHAINS.get(block.name, ()))
        optional = {"INPUT"} if block.name == "nat" else set()  # since Linux 2.6.34
        complete = block.policies >= needed - optional
        block.whole = bool(needed) and complete and not block.cut
        if block.declarations or block.rules:
            yield block
        return
    yield from _by_rules(block)


def _by_policies(policies: Iterable[str]) -> str:
    """The table whose built-in chains have these names; filter and security have the same."""
    names = frozenset(policies)
    for table in ("filter", "nat", "mangle", "raw"):
        if names == frozenset(TABLE_CHAINS[table]):
            return table
    return "nat" if names == {"PREROUTING", "OUTPUT", "POSTROUTING"} else ""


_BY_TARGET = {
    **dict.fromkeys(("DNAT", "SNAT", "MASQUERADE", "REDIRECT", "NETMAP"), "nat"),
    **dict.fromkeys(("REJECT",), "filter"),
    **dict.fromkeys(("TPROXY", "TOS", "DSCP", "TTL", "HL"), "mangle"),
    **dict.fromkeys(("NOTRACK", "CT", "TRACE"), "raw"),
}
_BY_CHAIN = tuple(
    (re.compile(pattern), table)
    for pattern, table in (
        (r"KUBE-(?:SVC|SVL|SEP|XLB|EXT|FW)-|KUBE-MARK-|KUBE-POSTROUTING|KUBE-LOAD-BALANCER", "nat"),
        (
            r"CNI-(?:HOSTPORT|DN|SN)-|CNI-[0-9a-f]{20}|AWS-|FLANNEL-POSTRTG|IP-MASQ|PREROUTING",
            "nat",
        ),
        (r"POSTROUTING|cali-nat-|cali-fip-|KIND-MASQ|WEAVE$|OUTPUT_direct|DOCKER_OUTPUT", "nat"),
        (
            r"KUBE-FORWARD|KUBE-EXTERNAL-SERVICES|KUBE-(?:PROXY-)?FIREWALL|KUBE-SOURCE-RANGES",
            "filter",
        ),
        (
            r"KUBE-NWPLCY-|KUBE-POD-FW-|KUBE-ROUTER-|KUBE-IPVS-FILTER|FLANNEL-FWD|CNI-FORWARD",
            "filter",
        ),
        (
            r"cali-(?:fw|tw|po|pi|fh|th|pri|pro|gi|go|wl|from-wl|to-wl)-|FORWARD|INPUT$|ufw",
            "filter",
        ),
        (
            r"DOCKER-(?:USER|ISOLATION|FORWARD|BRIDGE|CT|INTERNAL)|WEAVE-NPC|CILIUM_FORWARD",
            "filter",
        ),
    )
)


class _Edge(NamedTuple):
    """A rule with its target, if that is a chain."""

    rule: RuleLine
    target: str


def _by_rules(block: Block) -> Iterator[TableText]:
    """The tables of lines without a header, by what each rule does and where it jumps."""
    edges = [_Edge(rule, target_of(rule.text)) for rule in block.rules]
    names = frozenset(block.declarations) | {edge.rule.chain for edge in edges}
    names |= {edge.target for edge in edges if edge.target and is_chain_name(edge.target)}
    chains = {chain: table for chain in names if (table := _of_chain(chain))}
    rules = {place: table for place, edge in enumerate(edges) if (table := _of_rule(edge))}
    _spread(edges, names, rules, chains)
    yield from _split(block, edges, rules, chains)


def _spread(
    edges: list[_Edge], names: frozenset[str], rules: dict[int, str], chains: dict[str, str]
) -> None:
    """Give chains and rules the table of the chains that they jump to, and that jump to them."""
    places: dict[str, list[int]] = {}
    for place, (rule, target) in enumerate(edges):
        for chain in (rule.chain, target):
            places.setdefault(chain, []).append(place)
    queue = [*chains.items()]
    for place, name in rules.items():
        rule, target = edges[place]
        queue += [(rule.chain, name), (target, name)]
    while queue:
        chain, name = queue.pop()
        if chain not in names or chain in _IN_SEVERAL_TABLES or chains.get(chain, name) != name:
            continue
        chains[chain] = name
        for place in places.pop(chain, ()):
            if rules.setdefault(place, name) == name:
                rule, target = edges[place]
                queue += [(rule.chain, name), (target, name)]


# chains that several tables have
_IN_SEVERAL_TABLES = frozenset(
    {*BUILT_IN_CHAINS, "KUBE-SERVICES", "KUBE-NODEPORTS", "KUBE-NODE-PORT", "DOCKER"}
)


def _of_chain(chain: str) -> str:
    if chain in ("KUBE-SERVICES", "KUBE-NODEPORTS", "OUTPUT"):
        return ""
    return next((table for pattern, table in _BY_CHAIN if pattern.match(chain)), "")


def _of_rule(edge: _Edge) -> str:
    if edge.target in _BY_TARGET:
        return _BY_TARGET[edge.target]
    if edge.target == "DROP":  # nat takes no DROP
        return {"PREROUTING": "raw", "POSTROUTING": "mangle"}.get(edge.rule.chain, "filter")
    if edge.target == "KUBE-SERVICES":
        return "filter" if "--ctstate NEW" in edge.rule.text else "nat"
    return _of_chain(edge.target) if edge.target else ""


def _split(
    block: Block, edges: list[_Edge], rules: dict[int, str], chains: dict[str, str]
) -> Iterator[TableText]:
    tables: dict[str, TableText] = {}
    for chain, declaration in block.declarations.items():
        table = chains.get(chain) or _default(chain)
        tables.setdefault(table, TableText(table)).declarations[chain] = declaration
    for place, edge in enumerate(edges):
        name = rules.get(place) or chains.get(edge.rule.chain) or _default(edge.rule.chain)
        tables.setdefault(name, TableText(name)).rules.append(edge.rule)
    yield from tables.values()


def _default(chain: str) -> str:
    """nat for the chains where Services are looked for, else filter."""
    return "nat" if chain in ("PREROUTING", "POSTROUTING", "KUBE-SERVICES") else "filter"
