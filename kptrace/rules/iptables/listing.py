"""Read ``iptables -L``, with or without ``-n``, ``-v``, ``-x`` and ``--line-numbers``.

Each rule becomes the line that iptables-save prints for it (``save_text.py``), so it is read like
any other. The columns are those of print_firewall; the text after them is what the ``_print``
function of each match and then of the target writes. A text that is not understood stays as it is,
in a match that nobody knows: whether the rule matches is then open.

Without ``-v`` the interfaces are not listed. That leaves open whether a rule matches, but for rules
of kube-proxy, which have none.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

from kptrace.model.errors import ParseError
from kptrace.rules.iptables.assumed_rules import add_assumed_rules
from kptrace.rules.iptables.blocks import Block, command_of, tables_of, without_table
from kptrace.rules.iptables.commands import LEFT_OUT
from kptrace.rules.iptables.kernel_rule import PROTOCOL_NAMES
from kptrace.rules.iptables.listing_matches import extra_args
from kptrace.rules.iptables.save_index import shortened
from kptrace.rules.iptables.save_text import CUT, RuleLine, SaveText, save_text

HINT = (
    "take it with: iptables-save (or iptables -t nat -L -n -v --line-numbers), whole and unedited"
)

_CHAIN = re.compile(
    r"Chain (?P<name>\S+) \((?:policy (?P<policy>ACCEPT|DROP)"
    r"(?: (?P<packets>\d+)(?P<rough>[KMGT]?) packets, (?P<bytes>\d+)[KMGT]? bytes)?"
    r"|(?P<references>\d+) references?)(?:\) \[\d+ .*\]|\))"
)
_COLUMNS = re.compile(
    r"(?:(num) +)?(?:(pkts) +(?:bytes) +)?target +prot +opt +(in +out +)?source +.*"
)
_TABLE = re.compile(
    r"(?:[#*=\s]*)(?:Table:?\s+)?(filter|nat|mangle|raw|security)(?:\s+table)?(?:[:#*=\s]*)",
    re.IGNORECASE,
)
_LOOKS = re.compile(r"^[^\S\n]*Chain \S+ \((?:policy |\d+ references?)", re.MULTILINE)
_OPTIONS = frozenset({"--", "-f", "!f"})
_ANYWHERE = frozenset({"0.0.0.0/0", "::/0", "anywhere", "default"})
_ANY_PROTOCOL = frozenset({"all", "0", "any"})
_EXACT = re.compile(r"\d+")


def looks_like(text: str) -> bool:
    """Whether a text has the header of a chain as ``iptables -L`` prints it."""
    return _LOOKS.search(text) is not None


def read_listing(text: str, name: str) -> SaveText:
    """The rules of a text as iptables-save would print them.

    ``name``: what to call the text in errors. Raises ParseError for a line that is no rule.
    """
    reader = _Reader(name)
    for number, line in enumerate(text.splitlines(), start=1):
        if line.strip():
            reader.read(line.strip(), number)
    tables = [table for block in reader.blocks for table in tables_of(block)]
    if not tables:
        raise ParseError(name, 0, "no chain in it", HINT)
    add_assumed_rules(tables)
    return save_text(tables)


class _Reader:
    """Assigns the lines of a text to chains, and the chains to blocks."""

    def __init__(self, name: str) -> None:
        self._name = name
        self.blocks: list[Block] = []
        self._chain = ""
        self._lead = 0  # columns before the target
        self._interfaces = False

    def read(self, line: str, number: int) -> None:
        if chain := _CHAIN.match(line):
            self._begin_chain(chain)
        elif columns := _COLUMNS.fullmatch(line):
            self._lead = (1 if columns[1] else 0) + (2 if columns[2] else 0)
            self._interfaces = columns[3] is not None
        elif command := command_of(line):
            self.blocks.append(Block(without_table(command)[0]))
        elif named := _TABLE.fullmatch(line):
            self.blocks.append(Block(named[1].lower()))
        elif LEFT_OUT.fullmatch(line):
            self._cut(number)
        elif not line.startswith("#"):
            self._rule(line, number)

    def _begin_chain(self, chain: re.Match[str]) -> None:
        if not self.blocks or (chain["policy"] and self.blocks[-1].is_over(chain["name"])):
            self.blocks.append(Block())
        block = self.blocks[-1]
        self._chain = chain["name"]
        exact = chain["packets"] and not chain["rough"]
        counters = f"{chain['packets']}:{chain['bytes']}" if exact else "0:0"
        block.declare(self._chain, chain["policy"] or "-", counters)

    def _cut(self, number: int) -> None:
        if self._chain:
            self.blocks[-1].cut = True
            self.blocks[-1].rules.append(RuleLine(self._chain, CUT, line=number))

    def _rule(self, line: str, number: int) -> None:
        try:
            if not self._chain:
                raise ValueError("no chain before it")
            self.blocks[-1].rules.append(self._rule_line(line, number))
        except (ValueError, IndexError) as error:
            text = f"{shortened(line)} is no rule of iptables -L: {error}"
            raise ParseError(self._name, number, text, HINT) from error

    def _rule_line(self, line: str, number: int) -> RuleLine:
        tokens = line.split(None, self._lead)
        numbers, rest = tokens[: self._lead], tokens[self._lead]
        if not all(token[:1].isdigit() for token in numbers):
            raise ValueError("a number is missing")
        packets, octets = numbers[-2:] if self._lead >= 2 else ("", "")
        exact = _EXACT.fullmatch(packets) and _EXACT.fullmatch(octets)
        columns = _columns(rest, self._interfaces)
        args = list(columns.args())
        if not self._interfaces and not _is_of_kube_proxy(self._chain, columns.target):
            args.append("-m interfaces --not-listed")
        goto, extra = _without_goto(columns.extra)
        matches, options = extra_args(extra, columns.target)
        args += matches
        if columns.target:
            args += ["-g" if goto else "-j", columns.target, *options]
        counters = f"{packets}:{octets}" if exact else ""
        return RuleLine(self._chain, " ".join(args), counters, number)


class _Columns(NamedTuple):
    """The columns of a rule; ``extra``: what stands behind them."""

    target: str
    protocol: str
    fragment: str
    interface_in: str
    interface_out: str
    source: str
    destination: str
    extra: str

    def args(self) -> Iterator[str]:
        """The options of iptables-save, in its order."""
        for option, text in (("-s", self.source), ("-d", self.destination)):
            if text not in _ANYWHERE:
                yield _negatable(option, _with_length(text))
        for option, text in (("-i", self.interface_in), ("-o", self.interface_out)):
            if text not in ("*", "any", ""):
                yield _negatable(option, text)
        if self.protocol not in _ANY_PROTOCOL:
            yield _negatable("-p", _protocol(self.protocol))
        if self.fragment in ("-f", "!f"):
            yield "-f" if self.fragment == "-f" else "! -f"


def _columns(text: str, interfaces: bool) -> _Columns:
    """Split the columns. A rule without a target leaves its column empty, old ip6tables ``opt``."""
    tokens = text.split(None, 3)
    if len(tokens) > 1 and tokens[1] in _OPTIONS:
        target, protocol, option, rest = "", tokens[0], tokens[1], text.split(None, 2)[2]
    elif len(tokens) > 2 and tokens[2] in _OPTIONS:
        target, protocol, option, rest = tokens[0], tokens[1], tokens[2], tokens[3]
    else:
        target, protocol, rest = text.split(None, 2)
        option = ""
    fields = rest.split(None, 4 if interfaces else 2)
    ends = fields[2:4] if interfaces else fields[:2]
    if len(ends) != 2:
        raise ValueError("a column is missing")
    extra = fields[4:] if interfaces else fields[2:]
    return _Columns(
        target=target,
        protocol=protocol,
        fragment=option,
        interface_in=fields[0] if interfaces else "",
        interface_out=fields[1] if interfaces else "",
        source=ends[0],
        destination=ends[1],
        extra=extra[0] if extra else "",
    )


def _negatable(option: str, text: str) -> str:
    return f"! {option} {text[1:]}" if text.startswith("!") else f"{option} {text}"


def _with_length(text: str) -> str:
    """An address as iptables-save prints it: with its length, also if it is a single one."""
    if "/" in text:
        return text
    return f"{text}/{128 if ':' in text else 32}"


def _protocol(text: str) -> str:
    negation, name = ("!", text[1:]) if text.startswith("!") else ("", text)
    return negation + (PROTOCOL_NAMES.get(int(name), name) if name.isdigit() else name)


def _without_goto(extra: str) -> tuple[bool, str]:
    """``[goto]`` stands before the matches."""
    return ("[goto]" in extra[:8], extra.replace("[goto]", "", 1).strip())


def _is_of_kube_proxy(chain: str, target: str) -> bool:
    return chain.startswith("KUBE-") or target.startswith("KUBE-")
