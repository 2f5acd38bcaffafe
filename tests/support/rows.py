"""The matrix: what passed of what was asked, for each proxy and network, whatever tier asked it.

A test that speaks for a proxy on a network carries the marker ``row``. ``row`` below makes a
parameter with it, for labs that a fixture makes.
The totals are those of the collected tests: what was skipped or never ran counts as not passed.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import pytest

# the order of the columns and lines; what is not named here follows
PROXIES = ("iptables", "iptables-legacy", "nftables", "ipvs", "cilium")
SCHEDULERS = ("rr", "wrr", "lc", "wlc", "sh", "dh", "mh")
NETWORKS = ("bridge", "vxlan", "host-gw", "flannel-ipip")


class Row(NamedTuple):
    proxy: str
    network: str
    scheduler: str = ""  # of IPVS


def row(proxy: str, network: str, scheduler: str = "", *more: Any) -> Any:
    """A parameter ``(proxy, network)``, with the scheduler and what else there is behind it."""
    mark = pytest.mark.row(proxy=proxy, network=network, scheduler=scheduler)
    values = (proxy, network, *((scheduler,) if scheduler else ()), *more)
    return pytest.param(values, id="-".join(map(str, values)), marks=mark)


def row_of(item: pytest.Item) -> Row | None:
    mark = item.get_closest_marker("row")
    return Row(*mark.args, **mark.kwargs) if mark else None


def tables(asked: Mapping[str, Row], passed: set[str]) -> Iterator[str]:
    """Lines: proxy x network, and IPVS' schedulers x network. ``asked``: the row by a test's id."""
    main: dict[tuple[str, str], Counter[bool]] = defaultdict(Counter)
    ipvs: dict[tuple[str, str], Counter[bool]] = defaultdict(Counter)
    for test, one in asked.items():
        main[one.network, one.proxy][test in passed] += 1
        if one.scheduler:
            ipvs[one.network, one.scheduler][test in passed] += 1
    if main:
        yield from _grid("proxy x network", main, PROXIES)
    if ipvs:
        yield ""
        yield from _grid("IPVS scheduler", ipvs, SCHEDULERS)


def _grid(
    title: str, cells: Mapping[tuple[str, str], Counter[bool]], order: tuple[str, ...]
) -> Iterator[str]:
    networks = _in_order({network for network, _ in cells}, NETWORKS)
    columns = _in_order({column for _, column in cells}, order)
    width = max(map(len, (title, *networks)))
    widths = [max(len(column), 7) for column in columns]
    yield _line(title.ljust(width), zip(columns, widths, strict=True))
    for network in networks:
        said = (_share(cells.get((network, column))) for column in columns)
        yield _line(network.ljust(width), zip(said, widths, strict=True))


def _line(first: str, cells: Iterable[tuple[str, int]]) -> str:
    return "  ".join((first, *(text.rjust(width) for text, width in cells)))


def _share(counts: Counter[bool] | None) -> str:
    return f"{counts[True]}/{counts.total()}" if counts else "-"


def _in_order(found: set[str], order: tuple[str, ...]) -> list[str]:
    return sorted(found, key=lambda one: (order.index(one) if one in order else len(order), one))
