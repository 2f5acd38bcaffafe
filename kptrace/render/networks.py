"""What was recognised on the nodes, in a line; and what cannot be told there, where it matters:
if the packet did not arrive, or in the wide form. Pure.
"""

from __future__ import annotations

from collections.abc import Iterable

from kptrace.model import Network
from kptrace.render.page import Page, say


def networks(page: Page, told: Iterable[Network], limits: bool) -> None:
    """``Network: Flannel (VXLAN), proxy iptables.``; nodes that are alike on one line."""
    alike: dict[str, list[Network]] = {}
    for one in told:
        proxy = f", proxy {one.proxy}" if one.proxy else ""
        alike.setdefault(f"{one.name}{proxy}", []).append(one)
    for words, some in alike.items():
        where = f" on {', '.join(one.node for one in some)}" if len(alike) > 1 else ""
        page.line(say(f"Network{where}: {words}."), hang=2)
    untold = dict.fromkeys(limit for some in alike.values() for one in some for limit in one.limits)
    for limit in untold if limits else ():
        page.line(say("Not seen here: ", "unsure"), say(f"{limit}."), hang=2)
