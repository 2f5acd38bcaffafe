"""Signs on a node by which plugins recognise who made it: devices, chains, tables, routes."""

from __future__ import annotations

from fnmatch import fnmatchcase

from kptrace.simulate.snapshot.network import Link, Route
from kptrace.simulate.snapshot.snapshot import Snapshot


def links(node: Snapshot, *patterns: str) -> tuple[Link, ...]:
    """Return the devices whose name matches any of the patterns (``cali*``)."""
    return tuple(
        link for link in node.links if any(fnmatchcase(link.name, pattern) for pattern in patterns)
    )


def chain(node: Snapshot, *requested: str) -> str:
    """Return the first of these chains (``nat KIND-MASQ-AGENT``) that exists; empty: none does.

    On a live node each costs a request, so devices are looked at first.
    """
    for table in node.ruleset.tables():
        for where in requested:
            of, _, name = where.partition(" ")
            if table.name == of and node.ruleset.chain(table, name) is not None:
                return where
    return ""


def nft_table(node: Snapshot, *patterns: str) -> str:
    """Return the first nft table whose name matches; empty: none does."""
    for table in node.ruleset.tables():
        if table.backend == "nft" and any(fnmatchcase(table.name, p) for p in patterns):
            return f"{table.family} {table.name}"
    return ""


def routes(node: Snapshot, *protocols: str, device: str = "", type: str = "") -> tuple[Route, ...]:
    """Return the routes of these writers (empty: any), out of this device, of this type."""
    return tuple(
        route
        for route in node.routes
        if (not protocols or route.protocol in protocols)
        and (not device or any(hop.interface == device for hop in route.nexthops))
        and (not type or route.type == type)
    )


def named(links: tuple[Link, ...]) -> str:
    """Return the names of links for a report: ``cali1, cali2 and 3 more``."""
    names = [link.name for link in links]
    rest = f" and {len(names) - 2} more" if len(names) > 2 else ""
    return ", ".join(names[:2]) + rest
