"""kindnet, of kind: a veth a pod, routes via the nodes' addresses, its own masquerading."""

from __future__ import annotations

from collections.abc import Mapping

from kptrace.cni import Recognised
from kptrace.walk.snapshot import Snapshot
from kptrace_plugins import signs

name = "kindnet"


def wants() -> tuple[str, ...]:
    return ()


def detect(node: Snapshot, files: Mapping[str, str]) -> Recognised | None:
    chain = signs.chain(node, "KIND-MASQ-AGENT")
    table = signs.nft_table(node, "kindnet*")
    if not chain and not table:
        return None
    signal = f"chain {chain}" if chain else f"table {table}"
    return Recognised(name="kindnet", sure=0.9, signal=signal)
