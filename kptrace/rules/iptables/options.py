"""Parse the arguments of iptables' options into expressions."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

from kptrace.model import Value
from kptrace.model.addresses import address as parse_address
from kptrace.model.addresses import network as parse_network
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
    """One option of a rule: ``! --name arg ...``."""

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
    """What an option's meaning depends on.

    family: ip or ip6
    ipset: finds a set by its name; None for a set that was not read
    """

    family: str
    ipset: Callable[[str], Set | None]


class Unknown(Exception):
    """An option, match or target is not known: the module as a whole becomes opaque."""


@cache
def field(key: str) -> Field:
    """The Field of this key; equal keys share one object."""
    return Field(key=key)


def test(key: str, option: Option, right: Expr) -> Comparison:
    """``key == right``, or ``!=`` if the option is negated."""
    return Comparison(left=field(key), op="!=" if option.negated else "==", right=right)


def flags(key: str, option: Option, names: str) -> Comparison:
    """A test for any of the named flags (``NEW,RELATED``)."""
    items = tuple(Const(value=name.lower()) for name in names.split(","))
    op = "not in" if option.negated else "in"
    return Comparison(left=field(key), op=op, right=AnonymousSet(items=items))  # type: ignore[arg-type]


def quoted(word: str) -> str:
    """An argument as iptables-save prints it (xtables_save_string), quoted if it must be."""
    if word and all(char.isalnum() or char in "-_+./:,%[]=@|" for char in word):
        return word
    escaped = "".join("\\" + char if char in "\"\\'" else char for char in word)
    return f'"{escaped}"'


def number(text: str) -> int:
    """A number as C's strtoul reads it with base 0: decimal, 0x hexadecimal, 0 octal."""
    if len(text) > 1 and text[0] == "0" and text.isdigit():
        return int(text, 8)
    return int(text, 0)


def numbers(text: str, low_default: int = 0, high_default: int = 65535) -> Expr:
    """A number or a range: ``80``, ``1000:2000``, ``1000:``; a port may have its usual name."""
    low, colon, high = text.partition(":")
    if not colon:
        return Const(value=_port(text))
    return Range(low=_port(low) if low else low_default, high=_port(high) if high else high_default)


def _port(text: str) -> int:
    return PORT_NAMES[text] if text in PORT_NAMES else number(text)


# names in /etc/services that iptables -L without -n prints for ports of a cluster
PORT_NAMES = {
    "ssh": 22,
    "domain": 53,
    "bootps": 67,
    "bootpc": 68,
    "http": 80,
    "ntp": 123,
    "bgp": 179,
    "ldap": 389,
    "https": 443,
    "ldaps": 636,
    "postgresql": 5432,
    "mysql": 3306,
    "mdns": 5353,
    "amqp": 5672,
    "http-alt": 8080,
    "webcache": 8080,
}


def address(text: str) -> Expr:
    """``ADDRESS``, ``ADDRESS/LENGTH``, or ``ADDRESS/MASK`` for a mask with holes.

    Raises ValueError for a text that is no address, such as one that was made unreadable by hand.
    """
    base, _, mask = text.partition("/")
    parse_address(base)
    if not mask or mask == ("128" if ":" in base else "32"):
        return Const(value=base)
    if mask.isdigit():
        parse_network(text)
        return Prefix(address=base, length=int(mask))
    parse_address(mask)
    return Masked(address=base, mask=mask)


def choice(items: list[Expr]) -> Expr:
    """One of these values: an anonymous set, unless there is only one."""
    return items[0] if len(items) == 1 else AnonymousSet(items=tuple(items))


def masked(key: str, text: str, option: Option) -> Comparison:
    """``VALUE/MASK`` of a 32-bit field: (field & mask) == value."""
    value, _, mask = text.partition("/")
    left: Expr = field(key)
    if mask and number(mask) != 0xFFFFFFFF:
        left = BitwiseExpr(op="and", left=left, right=Const(value=number(mask)))
    return Comparison(
        left=left, op="!=" if option.negated else "==", right=Const(value=number(value))
    )


def protocol(text: str) -> str:
    """The name in model/expressions.py, for iptables' name (/etc/protocols) or number."""
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
