"""One iptables rule's words -> its parts. What the words mean is in two tables, by module name.

Comes in: the words of a rule after ``-A CHAIN`` as iptables-save prints them, with quotes already
resolved. Goes out: body and comment. iptables-save prints in a fixed order: address and interface
options, then each ``-m MODULE`` followed by its options, then ``-j TARGET`` with its options
(print_rule4 in iptables/iptables-standalone; nft_rule_to_cs in iptables-nft prints the same).

A module or option that the tables do not know becomes an Opaque of its own words.
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
    body: tuple[Part, ...]
    comment: str = ""


def compile_words(
    words: Sequence[str],
    family: str,
    is_chain: Callable[[str], bool],
    ipset: Callable[[str], Set | None] = lambda name: None,
) -> ParsedRule:
    """Raises ValueError where the words end in the middle of an option."""
    context = Context(family=family, ipset=ipset)
    body: list[Part] = []
    comments: list[str] = []
    for module, options in _segments(words):
        if module == "comment":
            comments += [option.args[0] for option in options if option.args]
        else:
            body += _compile(module, options, context, is_chain)
    return ParsedRule(body=tuple(body), comment=" ".join(comments))


def _segments(words: Sequence[str]) -> list[tuple[str, list[Option]]]:
    """The options by the module that they belong to: ``""``: the core, ``-j X``, ``-g X``."""
    segments: list[tuple[str, list[Option]]] = [("", [])]
    place, negated = 0, False
    while place < len(words):
        word = words[place]
        place += 1
        if word == "!":
            negated = True
            continue
        if word in _OPENERS:
            if place == len(words):
                raise ValueError(f"nothing after {word}")
            segments.append((words[place] if word == "-m" else f"{word} {words[place]}", []))
            place += 1
            continue
        end = place
        while end < len(words) and words[end] != "!" and not _is_option(words[end]):
            end += 1
        args = tuple(words[place:end])
        segments[-1][1].append(Option(name=word, args=args, negated=negated))
        place, negated = end, False
    if negated:
        raise ValueError("nothing after !")
    return segments


_OPENERS = frozenset({"-m", "-j", "-g"})
_SHORT = frozenset({"-m", "-j", "-g", "-s", "-d", "-i", "-o", "-p", "-f", "-c"})


def _is_option(word: str) -> bool:
    return word in _SHORT or (word.startswith("--") and len(word) > 2)


def _compile(
    module: str, options: list[Option], context: Context, is_chain: Callable[[str], bool]
) -> list[Part]:
    if module.startswith(("-j ", "-g ")):
        return _target(module, options, context, is_chain)
    if module == "":
        return [_core(option, context) for option in options]
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
