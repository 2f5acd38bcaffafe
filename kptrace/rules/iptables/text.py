"""Read the rules of iptables in whatever textual form they come: ``read_iptables``."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Callable, Mapping

from kptrace.model.errors import ParseError
from kptrace.rules.iptables.base_chains import Backend
from kptrace.rules.iptables.save import IptablesSave
from kptrace.rules.iptables.save_index import Pages, split_pages
from kptrace.rules.iptables.save_text import SaveText
from kptrace.rules.model.ruleset import Table
from kptrace.rules.model.sets import Set

Ages = Mapping[tuple[Table, str], tuple[int, int]]

_LISTING = re.compile(r"^[^\S\n]*Chain \S+ \((?:policy|\d+ references?)", re.MULTILINE)
_SAVE = re.compile(r"^[^\S\n]*\*(?:nat|filter|mangle|raw|security)\s*$", re.MULTILINE)


def read_iptables(
    text: str | Pages,
    name: str,
    backend: Backend,
    family: str,
    ipset: Callable[[str], Set | None] = lambda name: None,
    ages: Ages | None = None,
) -> IptablesSave:
    """The tables of a text: a save, ``iptables -S``, ``iptables -L``, iptables-restore input.

    name: what to call the text in errors
    ipset: finds the sets that rules name
    ages: of base chains

    Raises ParseError for a text in none of these forms.
    """
    pages = split_pages(text) if isinstance(text, str) else text
    if next(iter(pages), "")[:1].isspace():  # pasted into a list or a code block
        pages = split_pages(textwrap.dedent("".join(pages)))
    try:
        save = IptablesSave(pages, name, backend, family, ipset, ages)
    except ParseError as error:
        other = _other_form("".join(pages), name)
        if other is None:
            raise error from None
    else:
        if all(save.base_chains(table) for table in save.tables()):
            return save
        other = _commands("".join(pages), name)
    return IptablesSave(other.text, name, backend, family, ipset, ages, other)


def _other_form(text: str, name: str) -> SaveText | None:
    """A text that is no save, as iptables-save would print it; None for no form that is known."""
    from kptrace.rules.iptables import commands, listing

    if listing.looks_like(text):
        return listing.read_listing(text, name)
    is_save = _SAVE.search(text) is not None
    if (commands.looks_like(text) and not is_save) or commands.is_cut(text):
        return _commands(text, name)
    if is_save and commands.has_restore_commands(text):
        return _commands(text, name)
    return None


def _commands(text: str, name: str) -> SaveText:
    from kptrace.rules.iptables.commands import read_commands

    return read_commands(text, name)
