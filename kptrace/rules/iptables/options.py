"""The options of an iptables module, and how their arguments read."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

from kptrace.model import Value
from kptrace.rules.model.expressions import (
    PROTOCOLS,
    AnonymousSet,
    BitwiseExpr,
    Comparison,
    Const,
    Expr,
    Field,
    Masked,
    Prefix,
    Range,
)
from kptrace.rules.model.sets import Set


class Option(Value):
    """``! --name arg ...``"""

    name: str
    args: tuple[str, ...] = ()
    negated: bool = False

    @property
    def text(self) -> str:
        return " ".join([*(("!",) if self.negated else ()), self.name, *map(quoted, self.args)])

    @property
    def arg(self) -> str:
        if len(self.args) != 1:
            raise Unknown(self.text)
        return self.args[0]


class Context(Value):
    """What an option's meaning depends on. ``ipset``: the set of this name, if its dump is here."""

    family: str
    ipset: Callable[[str], Set | None]


class Unknown(Exception):
    """An option that we do not know: the module as a whole becomes opaque."""


@cache
def field(key: str) -> Field:
    return Field(key=key)


def test(key: str, option: Option, right: Expr) -> Comparison:
    return Comparison(left=field(key), op="!=" if option.negated else "==", right=right)


def flags(key: str, option: Option, names: str) -> Comparison:
    items = tuple(Const(value=name.lower()) for name in names.split(","))
    op = "not in" if option.negated else "in"
    return Comparison(left=field(key), op=op, right=AnonymousSet(items=items))  # type: ignore[arg-type]


def quoted(word: str) -> str:
    """A word as iptables-save prints it (xtables_save_string quotes all but these characters)."""
    if word and all(char.isalnum() or char in "-_+./:,%[]=@|" for char in word):
        return word
    escaped = "".join("\\" + char if char in "\"\\'" else char for char in word)
    return f'"{escaped}"'


def number(text: str) -> int:
    """C's strtoul with base 0: decimal, 0x hexadecimal, 0 octal."""
    if len(text) > 1 and text[0] == "0" and text.isdigit():
        return int(text, 8)
    return int(text, 0)


def numbers(text: str, low_default: int = 0, high_default: int = 65535) -> Expr:
    """``80`` or ``1000:2000`` or ``1000:``"""
    low, colon, high = text.partition(":")
    if not colon:
        return Const(value=number(text))
    return Range(
        low=number(low) if low else low_default, high=number(high) if high else high_default
    )


def address(text: str) -> Expr:
    """iptables-save prints ``ADDRESS/LENGTH``, or ``ADDRESS/MASK`` for a mask with holes."""
    given, _, mask = text.partition("/")
    if not mask or mask == ("128" if ":" in given else "32"):
        return Const(value=given)
    if mask.isdigit():
        return Prefix(address=given, length=int(mask))
    return Masked(address=given, mask=mask)


def choice(items: list[Expr]) -> Expr:
    return items[0] if len(items) == 1 else AnonymousSet(items=tuple(items))


def masked(key: str, text: str, option: Option) -> Comparison:
    """``VALUE/MASK``: (field & mask) == value, for marks of 32 bits."""
    value, _, mask = text.partition("/")
    left: Expr = field(key)
    if mask and number(mask) != 0xFFFFFFFF:
        left = BitwiseExpr(op="and", left=left, right=Const(value=number(mask)))
    return Comparison(
        left=left, op="!=" if option.negated else "==", right=Const(value=number(value))
    )


def protocol(text: str) -> str:
    """The name that rules/model/expressions.py uses, from iptables' name (/etc/protocols) or
    number.
    """
    name = text.lower()
    if name.isdigit():
        return PROTOCOLS.get(int(name), name)
    return _ALIASES.get(name, name)


_ALIASES = {
    "ipencap": "ipip",
    "ipv4": "ipip",
    "ip-encap": "ipip",
    "ipv6-icmp": "icmpv6",
    "icmp6": "icmpv6",
    "ipv6-auth": "ah",
    "ipv6-crypt": "esp",
    "ospfigp": "ospf",
}
