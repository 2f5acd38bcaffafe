"""The names and addresses of a cluster: its name and number in, everything else computed; pure.

Pods, Services and nodes are where kptrace's lab has them: node-a's pods in 10.244.1.0/24 and
fd00:10:244:1::/64, Services in 10.96.0.0/16 and fd00:10:96::/112. Clusters stand side by side
because only the underlay can be seen from outside their namespaces, and it has the cluster's
number in it: 198.18.N.0/24 (RFC 2544: never in use on a network) and fd00:198:18:N::/64.
The control plane stands at .1, which is also the nodes' router; the machine itself has .2, through
an interface ``kpcN``; node-a has .11.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal, get_args

Proxy = Literal["iptables", "iptables-legacy", "nftables"]
Backend = Literal["vxlan", "host-gw"]
PROXIES: tuple[Proxy, ...] = get_args(Proxy)
BACKENDS: tuple[Backend, ...] = get_args(Backend)

POD_NETWORK = ("10.244.0.0/16", "fd00:10:244::/48")
SERVICE_NETWORK = ("10.96.0.0/16", "fd00:10:96::/112")
API_SERVICE = ("10.96.0.1", "fd00:10:96::1")
DNS_SERVICE = "10.96.0.10"
EXTERNAL_IP = "203.0.113.10"
API_PORT = 6443

NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,18}[a-z0-9])?")
NUMBERS = range(1, 255)


class NotPossible(Exception):
    """The ground cannot be made here; the text says what is wrong and what to do."""


@dataclass(frozen=True)
class MachinePlan:
    """A network namespace with what runs in it. ``role``: control, node-a, node-b."""

    cluster: str
    role: str
    addresses: tuple[str, str]

    @property
    def netns(self) -> str:
        return f"kpc-{self.cluster}-{self.role}"

    @property
    def cgroup(self) -> str:
        return f"kpc-{self.cluster}/{self.role}"


@dataclass(frozen=True)
class NodePlan(MachinePlan):
    pod_cidrs: tuple[str, str]


@dataclass(frozen=True)
class Plan:
    name: str
    number: int

    def address(self, host: int) -> tuple[str, str]:
        return (f"198.18.{self.number}.{host}", f"fd00:198:18:{self.number:x}::{host}")

    @property
    def control(self) -> MachinePlan:
        return MachinePlan(self.name, "control", self.address(1))

    @property
    def outside(self) -> tuple[str, str]:
        """The machine's own addresses in the underlay."""
        return self.address(2)

    @property
    def outside_interface(self) -> str:
        return f"kpc{self.number}"

    @property
    def nodes(self) -> tuple[NodePlan, ...]:
        return tuple(
            NodePlan(
                self.name,
                f"node-{letter}",
                self.address(10 + number),
                (f"10.244.{number}.0/24", f"fd00:10:244:{number}::/64"),
            )
            for number, letter in enumerate("ab", start=1)
        )

    @property
    def machines(self) -> tuple[MachinePlan, ...]:
        return (self.control, *self.nodes)

    @property
    def server(self) -> str:
        """The API server as kubeconfigs name it."""
        return f"https://{self.control.addresses[0]}:{API_PORT}"


def check_name(name: str) -> str:
    if not NAME.fullmatch(name):
        said = f"{name!r} cannot name a cluster: up to 20 small letters, digits and '-'"
        raise NotPossible(said)
    return name
