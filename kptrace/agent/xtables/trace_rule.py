"""A TRACE rule in the table raw that matches our probes alone, where nft cannot mark them.

In: the probes and where UDP answers come from. Out: the rules as text for iptables-legacy-restore.

Kernels without nftables for IPv4 (old ones, User Mode Linux) have no table of flag OWNER, so
nothing traces a packet there but a rule of iptables-legacy. Such a rule outlives its maker, so it
is set only when the user allows it, and the guard takes it out again, also after SIGKILL. The rules
stand first in PREROUTING and OUTPUT of ``raw``; the empty table, which the kernel makes for them,
stays.

What is matched is what agent/nftables/trace_table.py matches, word by word with xt_u32:
``0>>22&0x3C@4&MASK=VALUE`` reads the word four bytes behind an IPv4 header of any length
(iptables-extensions(8)).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from kptrace.agent.cleanup_guard import Guard, run_within
from kptrace.agent.nftables import trace_table
from kptrace.agent.nftables.trace_table import L4PROTO, NFPROTO, TRANSPORT, Bytes, Condition
from kptrace.bpf.capture_filter import Source
from kptrace.model import Probe
from kptrace.model.errors import UnsupportedError
from kptrace.protocol import NetnsHandle

CHAINS = ("PREROUTING", "OUTPUT")
PROGRAMS = {4: "iptables-legacy-restore", 6: "ip6tables-legacy-restore"}
_WORD = 4
_IPV6_HEADER = 40


class RawTrace:
    """The rules in one namespace. ``count``: how many stand before others of the same chain."""

    def __init__(
        self, handle: NetnsHandle, probes: Iterable[Probe], sources: Iterable[Source], guard: Guard
    ) -> None:
        self._guard = guard
        self._undo: list[int] = []
        self.count: dict[str, int] = {}
        selectors = tuple(probes), tuple(sources)
        for version, family in ((4, "ip"), (6, "ip6")):
            rules = list(lines(version, *selectors))
            if rules:
                self._set(handle, version, rules)
                self.count[family] = len(rules)

    def _set(self, handle: NetnsHandle, version: int, rules: list[str]) -> None:
        argv = (PROGRAMS[version], "--noflush", "--wait")
        self._undo.append(
            self._guard.order(handle.held_path or handle.ns_path, argv, text("-D {chain}", rules))
        )
        why = run_within(handle.ns_path, argv, text("-I {chain} 1", rules))
        if why:
            self.close()
            raise UnsupportedError(
                f"the TRACE rule cannot be set: {why}",
                "it needs iptables-legacy and the kernel's iptable_raw, xt_TRACE and xt_u32",
            )

    def close(self) -> None:
        for id in reversed(self._undo):
            self._guard.undo(id)
        self._undo.clear()


def text(how: str, rules: Iterable[str]) -> str:
    texts = [f"{how.format(chain=chain)} {rule}\n" for chain in CHAINS for rule in rules]
    return f"*raw\n{''.join(texts)}COMMIT\n"


def lines(version: int, probes: tuple[Probe, ...], sources: tuple[Source, ...]) -> Iterator[str]:
    """The rules of one family, without the chain; none where no probe is of this family."""
    if all(probe.flow.ipv6 != (version == 6) for probe in probes):
        return
    for carrier, conditions in trace_table.matches(probes, sources):
        texts = _words(version, conditions)
        if carrier.version == version and _family(conditions) in (None, version):
            yield f'-m u32 --u32 "{" && ".join(texts)}" -j TRACE'


_FAMILIES = {2: 4, 10: 6}


def _family(conditions: tuple[Condition, ...]) -> int | None:
    """Of the outer packet, where the conditions ask for one."""
    for condition in conditions:
        if not isinstance(condition, Bytes) and condition.key == NFPROTO:
            return _FAMILIES[condition.value]
    return None


def _words(version: int, conditions: tuple[Condition, ...]) -> Iterator[str]:
    for condition in conditions:
        if isinstance(condition, Bytes):
            yield from _bytes(version, condition)
        elif condition.key == L4PROTO:
            where = "6&0xFF" if version == 4 else "4>>8&0xFF"
            yield f"{where}={condition.value:#x}"


def _bytes(version: int, requested: Bytes) -> Iterator[str]:
    size = len(requested.value)
    mask = requested.mask or b"\xff" * size
    for at in range(0, size, _WORD):
        value, bits = (
            part[at : at + _WORD].ljust(_WORD, b"\0") for part in (requested.value, mask)
        )
        if any(bits):
            where = _where(version, requested.base, requested.offset + at)
            yield f"{where}&0x{bits.hex()}=0x{value.hex()}"


def _where(version: int, base: int, offset: int) -> str:
    if base != TRANSPORT:
        return str(offset)
    return f"0>>22&0x3C@{offset}" if version == 4 else str(_IPV6_HEADER + offset)
