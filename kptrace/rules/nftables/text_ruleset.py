"""Read ``nft list ruleset`` text, also of ``-a``, ``-s`` and of single tables.

The text becomes the objects that ``nft -j`` prints (``text_statements.py``), which NftRuleset
reads; so the text and the JSON of one ruleset give the same rules. What only the JSON has is
missing: the age of the chains, unless ``-a`` gave handles.
"""

from __future__ import annotations

import json
import re
from typing import Any

from kptrace.model.errors import ParseError
from kptrace.rules.iptables.base_chains import PRIORITIES
from kptrace.rules.nftables.json_ruleset import NftRuleset
from kptrace.rules.nftables.text_expressions import concatenation, elements, seconds
from kptrace.rules.nftables.text_statements import rule_statements
from kptrace.rules.nftables.text_tokens import TextSyntaxError, Tokens

Json = Any

_FAMILIES = ("ip", "ip6", "inet", "arp", "bridge", "netdev")
_LOOKS = re.compile(rf"^[^\S\n]*table (?:(?:{'|'.join(_FAMILIES)}) )?\S+ \{{", re.MULTILINE)
_HINT = "take it with: nft -j list ruleset (or nft list ruleset), whole and unedited"
# priorities by name (nft(8)); in tables of family bridge others
_PRIORITY_NAMES = {
    "raw": -300,
    "mangle": -150,
    "dstnat": -100,
    "filter": 0,
    "security": 50,
    "srcnat": 100,
}
_BRIDGE_PRIORITIES = {"dstnat": -300, "filter": -200, "out": 100, "srcnat": 300}
# objects of a table that are no rules: a kind of one word, or of two
_OBJECTS = ("counter", "quota", "limit", "flowtable", "synproxy", "secmark", "ct")


def looks_like(text: str) -> bool:
    """Whether a text has a line that begins a table as ``nft list ruleset`` prints it."""
    return _LOOKS.search(text) is not None


def read_nft_text(text: str, name: str) -> NftRuleset:
    """The ruleset of a text.

    ``name``: what to call the text in errors. Raises ParseError for a text that nft does not print.
    """
    return NftRuleset(json.dumps({"nftables": objects(text, name)}), name)


def objects(text: str, name: str) -> list[Json]:
    """The objects that ``nft -j`` prints. Raises ParseError for a text that nft does not print."""
    try:
        reader = _Reader(Tokens(text))
        reader.read()
    except TextSyntaxError as error:
        raise ParseError(name, error.line, str(error), _HINT) from error
    except RecursionError as error:
        raise ParseError(name, 0, "an expression is too deep", _HINT) from error
    if not reader.objects:
        raise ParseError(name, 0, "no table in it", _HINT)
    return reader.objects


class _Reader:
    """Collects the objects of a text."""

    def __init__(self, tokens: Tokens) -> None:
        self._tokens = tokens
        self.objects: list[Json] = []

    def read(self) -> None:
        tokens = self._tokens
        while True:
            tokens.skip_lines()
            if tokens.at_end:
                return
            self._table()

    def _table(self) -> None:
        tokens = self._tokens
        tokens.expect("table")
        family = tokens.next().text if tokens.word in _FAMILIES else "ip"
        table: Json = {"family": family, "name": tokens.next().text}
        table |= self._begin_block()
        self.objects.append({"table": table})
        while not self._block_ends():
            if tokens.accept("flags"):
                table["flags"] = _names(tokens)
            elif tokens.accept("comment"):
                table["comment"] = tokens.next().text
            elif tokens.word in ("set", "map"):
                self._set(table)
            elif tokens.accept("chain"):
                self._chain(table)
            elif tokens.word in _OBJECTS:
                self._skip_object()
            else:
                raise TextSyntaxError(tokens.token.line, f"{tokens.token.text!r} in a table")

    def _begin_block(self) -> Json:
        """``{`` and the handle that ``nft -a`` puts behind it."""
        line = self._tokens.token.line
        self._tokens.expect("{")
        handle = self._tokens.handle_of(line)
        return {} if handle is None else {"handle": handle}

    def _block_ends(self) -> bool:
        self._tokens.skip_lines()
        if self._tokens.at_end:
            raise TextSyntaxError(self._tokens.token.line, "the text is cut off")
        return self._tokens.accept("}")

    def _skip_object(self) -> None:
        tokens = self._tokens
        while tokens.word != "{":
            tokens.next()
        depth = 0
        while True:
            depth += {"{": 1, "}": -1}.get(tokens.word, 0)
            tokens.next()
            if not depth:
                return

    # --- sets -----------------------------------------------------------------------------------

    def _set(self, table: Json) -> None:
        tokens = self._tokens
        kind = tokens.next().text
        value: Json = {"family": table["family"], "name": tokens.next().text}
        value |= {"table": table["name"], **self._begin_block()}
        self.objects.append({kind: value})
        while not self._block_ends():
            if tokens.accept("type"):
                value["type"] = _types(tokens)
                if tokens.accept(":"):
                    value["map"] = _types(tokens)
            elif tokens.accept("typeof"):
                value["type"] = {"typeof": concatenation(tokens)}
                if tokens.accept(":"):
                    value["map"] = _typeof_data(tokens)
            elif tokens.accept("flags"):
                value["flags"] = [name for name in _names(tokens) if name != "dynamic"]
            elif tokens.accept("timeout"):
                value["timeout"] = seconds(tokens)
            elif tokens.accept("gc-interval"):
                value["gc-interval"] = seconds(tokens)
            elif tokens.accept("size"):
                value["size"] = tokens.number()
            elif tokens.accept("policy"):
                value["policy"] = tokens.next().text
            elif tokens.accept("comment"):
                value["comment"] = tokens.next().text
            elif tokens.accept("elements"):
                tokens.expect("=")
                value["elem"] = elements(tokens)
            else:
                tokens.text_until_line_end()  # auto-merge, counter and the like

    # --- chains ---------------------------------------------------------------------------------

    def _chain(self, table: Json) -> None:
        tokens = self._tokens
        chain: Json = {"family": table["family"], "table": table["name"]}
        chain["name"] = tokens.next().text
        chain |= self._begin_block()
        self.objects.append({"chain": chain})
        of_iptables = table["family"] in ("ip", "ip6") and table["name"] in PRIORITIES
        first = True
        while not self._block_ends():
            if first and tokens.word == "type" and not tokens.token.quoted:
                self._hook(chain)
            elif first and tokens.word == "comment":
                tokens.next()
                chain["comment"] = tokens.next().text
            elif tokens.accept("policy"):
                chain["policy"] = tokens.next().text
            else:
                first = False
                self._rule(chain, of_iptables)

    def _hook(self, chain: Json) -> None:
        """``type filter hook prerouting device "eth0" priority mangle + 5``"""
        tokens = self._tokens
        tokens.expect("type")
        chain["type"] = tokens.next().text
        tokens.expect("hook")
        chain["hook"] = tokens.next().text
        if tokens.accept("device"):
            chain["dev"] = tokens.next().text
        elif tokens.accept("devices"):
            tokens.expect("=")
            chain["dev"] = elements(tokens)
        tokens.expect("priority")
        chain["prio"] = self._priority(chain["family"])
        chain.setdefault("policy", "accept")

    def _priority(self, family: str) -> int:
        tokens = self._tokens
        names = _BRIDGE_PRIORITIES if family == "bridge" else _PRIORITY_NAMES
        start = names[tokens.next().text] if tokens.word in names else None
        if start is None:
            return tokens.number()
        if tokens.accept("+"):
            return start + tokens.number()
        return start - tokens.number() if tokens.accept("-") else start

    def _rule(self, chain: Json, of_iptables: bool) -> None:
        tokens = self._tokens
        line = tokens.token.line
        statements, comment = rule_statements(tokens, chain["family"], of_iptables)
        rule: Json = {"family": chain["family"], "table": chain["table"], "chain": chain["name"]}
        rule["expr"] = statements
        if comment:
            rule["comment"] = comment
        handle = tokens.handle_of(line)
        if handle is not None:
            rule["handle"] = handle
        self.objects.append({"rule": rule})


def _names(tokens: Tokens) -> list[str]:
    names = [tokens.next().text]
    while tokens.accept(","):
        names.append(tokens.next().text)
    return names


def _types(tokens: Tokens) -> Json:
    names = [tokens.next().text]
    while tokens.accept("."):
        names.append(tokens.next().text)
    return names[0] if len(names) == 1 else names


def _typeof_data(tokens: Tokens) -> Json:
    if tokens.word == "verdict":
        return tokens.next().text
    tokens.accept("interval")
    return {"typeof": concatenation(tokens)}
