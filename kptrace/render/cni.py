"""What was recognised on the nodes, in a line; and what cannot be told there, where it matters:
if the packet did not arrive, or in the wide form. Pure.
"""

from __future__ import annotations

from collections.abc import Iterable

from kptrace.model import DetectedNetwork
from kptrace.render.layout import TextLayout, span


def networks(page: TextLayout, told: Iterable[DetectedNetwork], limits: bool) -> None:
    """``Network: Flannel (VXLAN), proxy iptables.``; nodes that are alike on one line."""
    alike: dict[str, list[DetectedNetwork]] = {}
    for one in told:
        proxy = f", proxy {one.proxy}" if one.proxy else ""
        alike.setdefault(f"{one.name}{proxy}", []).append(one)
    for words, some in alike.items():
        where = f" on {', '.join(one.node for one in some)}" if len(alike) > 1 else ""
        page.line(span(f"Network{where}: {words}."), hang=2)
    untold = dict.fromkeys(limit for some in alike.values() for one in some for limit in one.limits)
    for limit in untold if limits else ():
        page.line(span("Not seen here: ", "unsure"), span(f"{limit}."), hang=2)
