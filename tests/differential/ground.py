"""The ground: a router's namespace with everything that a random ruleset can ask about, and ends.

    client  eth0 ---- vc              vs ---- eth0  server
                         \\  router  /
    pod-a   eth0 -- pa -- br0 -- pb -- eth0  pod-b

The router forwards, translates and answers; it alone gets rules. The ends are taps: each frame
that reaches one is read by an AF_PACKET socket and then dropped before its IP layer, so that no
stack answers; what an end sends, the runner builds. Link addresses and neighbours are fixed.

The walk's World is read from the namespaces as they stand, by the agent's own dump.
"""

from __future__ import annotations

import itertools
import os
import re
import socket
import subprocess
import time
from collections.abc import Iterable, Mapping
from functools import partial
from pathlib import Path

from differential.plan import (
    BRIDGE_NUMBER,
    BRIDGED,
    CHAINS,
    DEAF,
    ENDS,
    LOADERS,
    LOGGERS,
    ROUTER,
    ROUTER6_LINES,
    ROUTER_LINES,
    RULES,
    STATE,
    SYSCTLS,
    End,
    place_of,
)

from kptrace.agent import netns
from kptrace.agent.state import files
from kptrace.protocol import NetnsHandle

_PACKET_IGNORE_OUTGOING = 23
_SOL_PACKET = 263
_ETH_P_ALL = 3
_COUNT = itertools.count(1)


class Refused(Exception):
    """A tool would not load what the generator made."""


class Ground:
    """``with Ground() as ground``. Names carry our pid; only what was made here is removed."""

    def __init__(self) -> None:
        self._tag = f"kpd{os.getpid()}-{next(_COUNT)}"
        self.taps: dict[str, socket.socket] = {}
        self._has_sets = False
        self.place = place_of(ROUTER)

    def __enter__(self) -> Ground:
        made: list[str] = []
        try:
            for name in (ROUTER, *ENDS):
                netns.create(self._name(name))
                made.append(name)
            self._build()
        except BaseException:
            for name in made:
                netns.delete(self._name(name))
            raise
        return self

    def __exit__(self, *_: object) -> None:
        for tap in self.taps.values():
            tap.close()
        for name in (ROUTER, *ENDS):
            netns.delete(self._name(name))

    def _name(self, name: str) -> str:
        return f"{self._tag}-{name}"

    def path(self, name: str = ROUTER) -> str:
        return f"/run/netns/{self._name(name)}"

    def run(self, argv: Iterable[str], text: str = "", name: str = ROUTER) -> str:
        call = partial(
            subprocess.run, list(argv), input=text, capture_output=True, text=True, timeout=60
        )
        done = netns.run_in_netns(self.path(name), call)
        if done.returncode:
            raise Refused(f"{' '.join(argv)}: {done.stderr.strip()}")
        return str(done.stdout)

    def write(self, values: dict[str, str], name: str = ROUTER) -> None:
        def put() -> None:
            for key, value in values.items():
                Path("/proc/sys", key).write_text(value)

        netns.run_in_netns(self.path(name), put)

    # --- building -----------------------------------------------------------------------------

    def _build(self) -> None:
        links, neighbours = [], []
        for end in ENDS.values():
            self._quiet(end.name)
            own = f"02:00:00:00:{end.number:02x}:01"
            links += [
                f"link add {end.port} address {own} type veth peer name eth0 address {end.mac} "
                f"netns {self._name(end.name)}",
                *([f"link set {end.port} master br0"] if end.port in BRIDGED else []),
                f"link set {end.port} up",
            ]
            device = "br0" if end.port in BRIDGED else end.port
            neighbours += [
                f"neigh replace {one.split('/')[0]} dev {device} lladdr {end.mac} nud permanent"
                for one in end.addresses
            ]
        self._quiet(ROUTER)
        self.write(SYSCTLS)
        text = ROUTER_LINES.format(
            bridge=f"02:00:00:00:{BRIDGE_NUMBER:02x}:01",
            links="\n".join(links),
            neighbours="\n".join(neighbours),
        )
        self.run(("ip", "-batch", "-"), text)
        self.run(("ip", "-6", "-batch", "-"), ROUTER6_LINES)
        self.write(dict.fromkeys(LOGGERS, "nfnetlink_log"))
        for end in ENDS.values():
            self._build_end(end)

    def _quiet(self, name: str) -> None:
        """No link-local address, no router solicitation: nothing that anybody sends unasked."""
        values = {"accept_ra": "0", "addr_gen_mode": "1", "accept_dad": "0"}
        for scope in ("all", "default"):
            self.write({f"net/ipv6/conf/{scope}/{k}": v for k, v in values.items()}, name)

    def _build_end(self, end: End) -> None:
        lines = ["link set lo up", "link set eth0 up"]
        lines += [
            f"addr add {one} dev eth0{' nodad' if ':' in one else ''}" for one in end.addresses
        ]
        lines += [f"route add default via {gateway}" for gateway in end.gateway]
        lines += [
            f"neigh replace {gateway} dev eth0 lladdr {end.router_mac} nud permanent"
            for gateway in end.gateway
        ]
        if end.port in BRIDGED:
            others = [one for one in ENDS.values() if one.port in BRIDGED and one != end]
            lines += [
                f"neigh replace {text.split('/')[0]} dev eth0 lladdr {other.mac} nud permanent"
                for other in others
                for text in other.addresses
            ]
        self.run(("ip", "-batch", "-"), "\n".join(lines) + "\n", end.name)
        self.run(("nft", "-f", "-"), DEAF, end.name)
        self.taps[end.name] = netns.run_in_netns(self.path(end.name), _tap)

    # --- rules --------------------------------------------------------------------------------

    def clear(self) -> None:
        self.run(("nft", "flush", "ruleset"))
        for version in ("", "6"):
            empty = "".join(
                f"*{table}\n{_chains(table)}COMMIT\n" for table in self.legacy_tables(version)
            )
            if empty:
                self.run((f"ip{version}tables-legacy-restore",), empty)
        if self._has_sets:
            self._destroy_sets()
            self._has_sets = False

    def _destroy_sets(self) -> None:
        """Lists of sets hold on to their sets; a removed rule lets go of its a little later."""
        for last in (False,) * 20 + (True,):
            try:
                self.run(("ipset", "restore"), "flush\ndestroy\n")
                return
            except Refused:
                if last:
                    raise
                time.sleep(0.02)

    def legacy_tables(self, version: str) -> list[str]:
        path = Path(f"/proc/thread-self/net/ip{version}_tables_names")

        def read() -> str:
            return path.read_text() if path.exists() else ""

        return netns.run_in_netns(self.path(), read).split()

    def load(self, rules: Mapping[str, str], whole: bool = False) -> dict[str, str]:
        """rules: loader -> text, as a case keeps them. What was loaded: without lines refused.

        whole: a refused line is an error
        """
        self.clear()
        self._has_sets = bool(rules.get("ipset"))
        return {
            loader: self._load(loader, argv, rules[loader], 1 if whole else _REFUSALS)
            for loader, argv in LOADERS.items()
            if rules.get(loader)
        }

    def _load(self, loader: str, argv: tuple[str, ...], text: str, tries: int) -> str:
        for _ in range(tries):
            try:
                self.run(argv, text)
                return text
            except Refused as refused:
                text = _without(text, str(refused), refused)
        raise Refused(f"{loader}: too many lines are refused")

    def saved(self) -> dict[str, str]:
        """The rules as the tools tell them, by their names in a bundle."""
        door = NetnsHandle(netns=self.place, ns_path=self.path())
        return {
            fact.file: fact.text for fact in files.facts(1, door, RULES) if not fact.unavailable
        }

    # --- what the walk starts from ------------------------------------------------------------

    def state(self) -> dict[str, dict[str, str]]:
        """The dump of every namespace as it stands, without rules, by its name."""
        return {name: self._state(name) for name in (ROUTER, *ENDS)}

    def _state(self, name: str) -> dict[str, str]:
        door = NetnsHandle(netns=place_of(name), ns_path=self.path(name))
        return {
            fact.file: fact.text for fact in files.facts(1, door, STATE) if not fact.unavailable
        }


_REFUSALS = 12
_REFUSED_LINE = re.compile(r"/dev/stdin:(\d+):|line:? (\d+)", re.IGNORECASE)


def _without(text: str, words: str, refused: Refused) -> str:
    """The text without the lines that the tool complained about."""
    numbers = {int(a or b) for a, b in _REFUSED_LINE.findall(words)}
    lines = text.split("\n")
    kept = [line for number, line in enumerate(lines, 1) if number not in numbers]
    if len(kept) == len(lines) or any(lines[n - 1] == "COMMIT" for n in numbers if n <= len(lines)):
        raise refused
    return "\n".join(kept)


def _chains(table: str) -> str:
    return "".join(f":{chain} ACCEPT [0:0]\n" for chain in CHAINS[table])


def _tap() -> socket.socket:
    tap = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(_ETH_P_ALL))
    tap.bind(("eth0", _ETH_P_ALL))
    tap.setsockopt(_SOL_PACKET, _PACKET_IGNORE_OUTGOING, 1)
    tap.setblocking(False)
    return tap
