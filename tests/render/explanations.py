"""Explanations to be rendered: real kube-proxy's rules of ``tests/cases``, whole and damaged."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path

from kptrace.explain.explain import explain_from_state
from kptrace.model import Explanation, SourceSpec
from kptrace.model.targets import parse_target

CASE = Path(__file__).parents[1] / "cases" / "kube-proxy"
IPTABLES = ("iptables-save.txt", "ip6tables-save.txt")
NFTABLES = ("nft-ruleset.json",)

# the ground that those rules stood on: a bridge for pods, a tunnel to the other node, an uplink
LINKS = (("lo", 1, ""), ("eth0", 2, ""), ("cni0", 3, "bridge"), ("flannel.1", 4, "vxlan"))
ADDRESSES = {
    "lo": ("127.0.0.1/8", "::1/128"),
    "eth0": ("172.30.0.11/24", "fd00:30::11/64"),
    "cni0": ("10.244.1.1/24", "fd00:10:244:1::1/64"),
    "flannel.1": ("10.244.1.0/32",),
}
ROUTES = (
    {"dst": "default", "gateway": "172.30.0.1", "dev": "eth0"},
    {"dst": "10.244.1.0/24", "dev": "cni0", "scope": "link", "prefsrc": "10.244.1.1"},
    {"dst": "10.244.2.0/24", "gateway": "10.244.2.0", "dev": "flannel.1", "flags": ["onlink"]},
    {"dst": "172.30.0.0/24", "dev": "eth0", "scope": "link", "prefsrc": "172.30.0.11"},
)
ROUTES6 = (
    {"dst": "default", "gateway": "fd00:30::1", "dev": "eth0"},
    {"dst": "fd00:10:244:1::/64", "dev": "cni0"},
    {"dst": "fd00:10:244:2::/64", "gateway": "fd00:30::12", "dev": "eth0"},
    {"dst": "fd00:30::/64", "dev": "eth0"},
)


def ground() -> dict[str, str]:
    links = [
        {
            "ifindex": index,
            "ifname": name,
            "flags": ["UP", "LOWER_UP", *(["LOOPBACK"] if name == "lo" else [])],
            "mtu": 1500,
            "operstate": "UP",
            "link_type": "loopback" if name == "lo" else "ether",
            "address": f"02:00:00:00:00:0{index}",
            "linkinfo": {"info_kind": kind} if kind else {},
            "addr_info": [
                {
                    "family": "inet6" if ":" in text else "inet",
                    "local": text.split("/")[0],
                    "prefixlen": int(text.split("/")[1]),
                    "scope": "host" if name == "lo" else "global",
                }
                for text in ADDRESSES[name]
            ],
        }
        for name, index, kind in LINKS
    ]
    return {
        "ip-addr.json": json.dumps(links),
        "ip-route.json": json.dumps(ROUTES),
        "ip6-route.json": json.dumps(ROUTES6),
        "sysctl.txt": "net.ipv4.ip_forward = 1\nnet.ipv6.conf.all.forwarding = 1\n",
    }


class Case:
    """The state of node-a; ``edit`` changes the text of each ruleset file."""

    nodes = ("node-a", "node-b")

    def __init__(
        self,
        files: tuple[str, ...],
        edit: Callable[[str], str] = str,
        api: bool = True,
        routes: bool = True,
    ) -> None:
        self._files, self._edit, self._api, self._routes = files, edit, api, routes

    def api(self) -> Mapping[str, str | bytes]:
        return (
            {path.name: path.read_bytes() for path in (CASE / "api").iterdir()} if self._api else {}
        )

    def node(self, name: str) -> Mapping[str, str]:
        texts = {file: self._edit((CASE / name / file).read_text()) for file in self._files}
        return {**texts, **(ground() if self._routes else {})}

    def rules_changed_while_reading(self, name: str) -> bool:
        return False

    def refresh_after(self, seconds: float) -> bool:
        return False


def explained(
    name: str, case: Case, source: SourceSpec | None = None, namespace: str = "default"
) -> Explanation:
    return explain_from_state(parse_target(f"svc/{name}", namespace), source, "node-a", case)


def damaged(text: str) -> str:
    """web has lost its second backend and still sends to a pod that is gone; the first is twice."""
    gone = text.replace("10.244.2.11:8080", "10.244.2.77:8080")
    lines = []
    for line in gone.splitlines(keepends=True):
        if '"default/web -> 10.244.1.12:8080"' in line:
            line = line.replace("KUBE-SEP-", "KUBE-SEP-").replace(_chain(line), _first(gone))
        lines.append(line)
    return "".join(lines)


def _chain(line: str) -> str:
    return line.rsplit(" ", 1)[1].strip()


def _first(text: str) -> str:
    line = next(line for line in text.splitlines() if '"default/web -> 10.244.1.11:8080"' in line)
    return _chain(line)


def hostile(text: str) -> str:
    return text.replace('"default/web cluster IP"', '"default/web \x1b[2J\u202ecluster IP"')


OUTSIDE = SourceSpec(kind="outside", text="198.51.100.9", address="198.51.100.9")

SAMPLES: dict[str, Callable[[], Explanation]] = {
    "web.iptables": lambda: explained("web", Case(IPTABLES)),
    "web.nftables": lambda: explained("web", Case(NFTABLES)),
    "np-local.iptables": lambda: explained("np-local", Case(IPTABLES)),
    "np-local.nftables": lambda: explained("np-local", Case(NFTABLES)),
    "np-local-remote.iptables": lambda: explained("np-local-remote", Case(IPTABLES)),
    "lb.iptables": lambda: explained("lb", Case(IPTABLES)),
    "lb.nftables": lambda: explained("lb", Case(NFTABLES)),
    "lb-from-outside.nftables": lambda: explained("lb", Case(NFTABLES), OUTSIDE),
    "dual.iptables": lambda: explained("dual", Case(IPTABLES)),
    "empty.iptables": lambda: explained("empty", Case(IPTABLES)),
    "itp-local-none.nftables": lambda: explained("itp-local-none", Case(NFTABLES)),
    "sticky-300.nftables": lambda: explained("sticky-300", Case(NFTABLES)),
    "hints-zone.iptables": lambda: explained("hints-zone", Case(IPTABLES)),
    "kube-dns.iptables": lambda: explained("kube-dns", Case(IPTABLES), None, "kube-system"),
    "damaged.iptables": lambda: explained("web", Case(IPTABLES, damaged)),
    "not-there.nftables": lambda: explained("web", Case(())),
    "two-tables": lambda: explained("web", Case((*IPTABLES, *NFTABLES))),
    "no-api.iptables": lambda: explained("lb", Case(IPTABLES, api=False)),
    "no-api.nftables": lambda: explained("lb", Case(NFTABLES, api=False)),
    "no-routes.iptables": lambda: explained("np-local", Case(IPTABLES, routes=False)),
    "hostile.iptables": lambda: explained("web", Case(IPTABLES, hostile)),
}
