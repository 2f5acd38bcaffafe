"""Parse the arguments of an iptables rule into the parts of a rule's body.

iptables-save prints in a fixed order: address and interface options, then each ``-m MODULE``
followed by its options, then ``-j TARGET`` with its options (print_rule4, nft_rule_to_cs). What a
module's options mean is in MATCHES and TARGETS; a module that these do not know becomes an
UnknownStatement with its own text.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from kptrace.model import Value
from kptrace.rules.iptables.matches import MATCHES
from kptrace.rules.iptables.options import Context, Option, Unknown, address, field, protocol
from kptrace.rules.iptables.targets import TARGETS, VERDICTS
from kptrace.rules.model.expressions import (
    Comparison,
    Const,
    Expr,
    InterfaceWildcard,
    Part,
    UnknownStatement,
    Verdict,
)
from kptrace.rules.model.sets import Set


class ParsedRule(Value):
    """The body of a rule, and the text of its comments."""

    body: tuple[Part, ...]
    comment: str = ""


def parse_rule_args(
    args: Sequence[str],
    family: str,
    is_chain: Callable[[str], bool],
    ipset: Callable[[str], Set | None] = lambda name: None,
) -> ParsedRule:
    """Parse a rule.

    args: what follows ``-A CHAIN``, with quotes resolved
    is_chain: whether a name is a chain of the table; any other ``-j NAME`` is a target
    ipset: finds the sets that the rule names

    Raises ValueError if the arguments end in the middle of an option.
    """
    context = Context(family=family, ipset=ipset)
    body: list[Part] = []
    comments: list[str] = []
    for module, options in _segments(args):
        if module == "comment":
            comments += [option.args[0] for option in options if option.args]
        else:
            body += _compile(module, options, context, is_chain)
    return ParsedRule(body=tuple(body), comment=" ".join(comments))


def _segments(args: Sequence[str]) -> list[tuple[str, list[Option]]]:
    """The options by module: ``""`` has the core options, ``-j X`` those of a target."""
    segments: list[tuple[str, list[Option]]] = [("", [])]
    index, negated = 0, False
    while index < len(args):
        arg = _SYNONYMS.get(args[index], args[index])
        index += 1
        if arg == "!":
            negated = True
            continue
        if arg in _OPENERS:
            if index == len(args):
                raise ValueError(f"nothing after {arg}")
            segments.append((args[index] if arg == "-m" else f"{arg} {args[index]}", []))
            index += 1
            continue
        if index + 1 < len(args) and args[index] == "!" and not _is_option(args[index + 1]):
            negated = True  # ``-s ! ADDRESS``, as iptables took it before 1.4.3
            index += 1
        end = index
        while end < len(args) and args[end] != "!" and not _is_option(args[end]):
            end += 1
        option = Option(name=arg, args=tuple(args[index:end]), negated=negated)
        if arg in _CORE_OPTIONS:  # these belong to the rule: ``-m tcp -p tcp --dport 80``
            segments[0][1].append(option)
            index, negated = end, False
            continue
        if arg in _PROTOCOL_OPTIONS and segments[-1][0] not in _PROTOCOL_MODULES:
            segments.append((_implied_module(segments[0][1], arg), []))
        segments[-1][1].append(option)
        index, negated = end, False
    if negated:
        raise ValueError("nothing after !")
    return segments


def _implied_module(core: list[Option], name: str) -> str:
    """The module that iptables loads for an option of the rule's protocol without ``-m``."""
    if name in _MODULE_OF_OPTION:
        return _MODULE_OF_OPTION[name]
    protocols = (protocol(option.args[0]) for option in core if option.name == "-p" and option.args)
    return next(protocols, "tcp")


_OPENERS = frozenset({"-m", "-j", "-g"})
_CORE_OPTIONS = frozenset({"-s", "-d", "-i", "-o", "-p", "-f", "-c"})
_SHORT = _OPENERS | _CORE_OPTIONS
# what iptables accepts and never prints (iptables(8), iptables-extensions(8))
_SYNONYMS = {
    "--protocol": "-p",
    "--proto": "-p",
    "--source": "-s",
    "--src": "-s",
    "--destination": "-d",
    "--dst": "-d",
    "--in-interface": "-i",
    "--out-interface": "-o",
    "--fragment": "-f",
    "--match": "-m",
    "--jump": "-j",
    "--goto": "-g",
    "--set-counters": "-c",
    "--source-port": "--sport",
    "--destination-port": "--dport",
    "--source-ports": "--sports",
    "--destination-ports": "--dports",
    "--to-port": "--to-ports",
    "--to-dest": "--to-destination",
}
_PROTOCOL_OPTIONS = frozenset(
    {"--sport", "--dport", "--tcp-flags", "--syn", "--tcp-option", "--icmp-type", "--icmpv6-type"}
)
_PROTOCOL_MODULES = frozenset(
    {"tcp", "udp", "udplite", "sctp", "dccp", "icmp", "icmp6", "icmpv6", "mh"}
)
_MODULE_OF_OPTION = {"--icmp-type": "icmp", "--icmpv6-type": "icmp6"}
_MODULE_OF_OPTION |= dict.fromkeys(("--tcp-flags", "--syn", "--tcp-option"), "tcp")


def _is_option(word: str) -> bool:
    return word in _SHORT or (word.startswith("--") and len(word) > 2)


def _compile(
    module: str, options: list[Option], context: Context, is_chain: Callable[[str], bool]
) -> list[Part]:
    if module.startswith(("-j ", "-g ")):
        return _target(module, options, context, is_chain)
    if module == "":
        return [_core(option, context) for option in options if option.name != "-c"]
    reader = MATCHES.get(module)
    try:
        if reader is not None:
            return list(reader(options, context))
    except (Unknown, ValueError, LookupError):
        pass
    return [UnknownStatement(text=_text(f"-m {module}", options))]


def _target(
    module: str, options: list[Option], context: Context, is_chain: Callable[[str], bool]
) -> list[Part]:
    flag, name = module[:2], module[3:]
    if is_chain(name) and not options:
        return [Verdict(kind="jump" if flag == "-j" else "goto", chain=name)]
    if name in VERDICTS and not options:
        return [VERDICTS[name]]
    reader = TARGETS.get(name)
    try:
        if reader is not None:
            return list(reader(options, context))
    except (Unknown, ValueError, LookupError):
        pass
    return [UnknownStatement(text=_text(module, options), match=False)]


def _text(head: str, options: list[Option]) -> str:
    return " ".join([head, *(option.text for option in options)])


# --- the options that every rule has ----------------------------------------------------------


def _core(option: Option, context: Context) -> Part:
    reader = _CORE.get(option.name)
    try:
        if reader is not None:
            key, value = reader(option.args[0], context)
            return Comparison(left=field(key), op="!=" if option.negated else "==", right=value)
    except (ValueError, IndexError):
        pass
    return UnknownStatement(text=option.text)


def _interface(name: str) -> Expr:
    return InterfaceWildcard(start=name[:-1]) if name.endswith("+") else Const(value=name)


_CORE: dict[str, Callable[[str, Context], tuple[str, Expr]]] = {
    "-s": lambda text, context: (f"{context.family} saddr", address(text)),
    "-d": lambda text, context: (f"{context.family} daddr", address(text)),
    "-i": lambda text, context: ("meta iifname", _interface(text)),
    "-o": lambda text, context: ("meta oifname", _interface(text)),
    "-p": lambda text, context: ("meta l4proto", Const(value=protocol(text))),
}
