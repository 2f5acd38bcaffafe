"""What was recognised on the nodes, in a line; and what cannot be told there, where it matters:
if the packet did not arrive, or in the wide form. Pure.
"""

from __future__ import annotations

from collections.abc import Iterable

from kptrace.model import DetectedNetwork
from kptrace.render.layout import TextLayout, span


def networks(page: TextLayout, networks: Iterable[DetectedNetwork], limits: bool) -> None:
    """``Network: Flannel (VXLAN), proxy iptables.``; nodes that are alike on one line."""
    alike: dict[str, list[DetectedNetwork]] = {}
    for network in networks:
        proxy = f", proxy {network.proxy}" if network.proxy else ""
        alike.setdefault(f"{network.name}{proxy}", []).append(network)
    for text, detected_networks in alike.items():
        where = (
            f" on {', '.join(detected.node for detected in detected_networks)}"
            if len(alike) > 1
            else ""
        )
        page.line(span(f"Network{where}: {text}."), hang=2)
    untold = dict.fromkeys(
        limit for value in alike.values() for detected in value for limit in detected.limits
    )
    for limit in untold if limits else ():
        page.line(span("Not seen here: ", "unsure"), span(f"{limit}."), hang=2)
