"""The rule trace names each rule that matched, by its place in its chain as -save prints it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from kptrace.agent_client.subprocess_agent import SubprocessAgent
from kptrace.model import ProbeResult, RuleTraceEvent
from kptrace.protocol import CaptureStarted, ReadFiles, SourceUnavailable, StartCapture

if TYPE_CHECKING:
    from tests.kernel.agent.conftest import Ground, Observe, ProbeTo

pytestmark = pytest.mark.kernel

VIP = {4: "10.96.0.50", 6: "fd00:10:96::50"}
SERVER = {4: "10.244.2.20", 6: "fd00:10:244:2::20"}
PORTS = {"tcp": 8080, "udp": 8081}
RULES = """*nat
:KUBE-SERVICES - [0:0]
:KUBE-SVC-WEB - [0:0]
:KUBE-SEP-ONE - [0:0]
:KUBE-SEP-TWO - [0:0]
:KUBE-POSTROUTING - [0:0]
-A PREROUTING -m comment --comment "kubernetes service portals" -j KUBE-SERVICES
-A OUTPUT -m comment --comment "kubernetes service portals" -j KUBE-SERVICES
-A POSTROUTING -m comment --comment "kubernetes postrouting rules" -j KUBE-POSTROUTING
-A KUBE-SERVICES -d {vip} -p {protocol} -m {protocol} --dport 81 -j KUBE-SVC-WEB
-A KUBE-SERVICES -d {vip} -p {protocol} -m {protocol} --dport 80 -j KUBE-SVC-WEB
-A KUBE-SVC-WEB -s {server} -j RETURN
-A KUBE-SVC-WEB -m statistic --mode random --probability 0.00001 -j KUBE-SEP-ONE
-A KUBE-SVC-WEB -j KUBE-SEP-TWO
-A KUBE-SEP-ONE -p {protocol} -j DNAT --to-destination {to}
-A KUBE-SEP-TWO -s {server} -j RETURN
-A KUBE-SEP-TWO -p {protocol} -j DNAT --to-destination {to}
-A KUBE-POSTROUTING -m mark ! --mark 0x4000/0x4000 -j RETURN
-A KUBE-POSTROUTING -j MASQUERADE
COMMIT
*filter
:KUBE-FORWARD - [0:0]
-A FORWARD -j KUBE-FORWARD
-A KUBE-FORWARD -m conntrack --ctstate INVALID -j DROP
-A KUBE-FORWARD -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
COMMIT
"""
# What the first packet matches, in the kernel's order (the marked one does not return).
FORTH = [
    ("nat", "PREROUTING", "-j KUBE-SERVICES"),
    ("nat", "KUBE-SERVICES", "--dport 80"),
    ("nat", "KUBE-SVC-WEB", "-j KUBE-SEP-TWO"),
    ("nat", "KUBE-SEP-TWO", "-j DNAT"),
    ("filter", "FORWARD", "-j KUBE-FORWARD"),
    ("nat", "POSTROUTING", "-j KUBE-POSTROUTING"),
    ("nat", "KUBE-POSTROUTING", "-j RETURN"),
]


def _load(ground: Ground, version: int, backend: str, protocol: str) -> None:
    server = SERVER[version]
    to = f"{server}:{PORTS[protocol]}" if version == 4 else f"[{server}]:{PORTS[protocol]}"
    text = RULES.format(vip=VIP[version], server=server, protocol=protocol, to=to)
    ground.run("a", f"ip{_six(version)}tables-{backend}-restore", text=text)


def _six(version: int) -> str:
    return "6" if version == 6 else ""


def _saved(ground: Ground, version: int, backend: str) -> dict[tuple[str, str], list[str]]:
    """The -A lines by table and chain."""
    chains: dict[tuple[str, str], list[str]] = {}
    table = ""
    for line in ground.run("a", f"ip{_six(version)}tables-{backend}-save").splitlines():
        if line.startswith("*"):
            table = line[1:]
        elif line.startswith("-A "):
            chains.setdefault((table, line.split()[1]), []).append(line)
    return chains


@pytest.mark.parametrize("protocol", ["tcp", "udp"])
@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("backend", ["nft", "legacy"])
def test_a_hit_is_the_line_of_save(
    ground: Ground, observe: Observe, backend: str, version: int, protocol: str
) -> None:
    _load(ground, version, backend, protocol)
    replies = observe(VIP[version], 80, protocol, backend=SERVER[version])
    assert next(r for r in replies if isinstance(r, ProbeResult)).result in ("connected", "replied")

    hits = [r for r in replies if isinstance(r, RuleTraceEvent) and r.netns == ground.places["a"]]
    # Legacy tables stay, empty, once another test made them: then both are traced.
    hits = [h for h in hits if h.backend == backend]
    assert {h.family for h in hits} <= {"ip", "ip6"}
    assert [h.sequence for h in hits] == sorted(h.sequence for h in hits)
    family = f"ip{_six(version)}"
    chains = _saved(ground, version, backend)
    lines = [
        (h.table, h.chain, chains[h.table, h.chain][h.number - 1])
        for h in hits
        if h.family == family and _names_a_line(h, chains)
    ][: len(FORTH)]
    assert [(table, chain) for table, chain, _ in lines] == [want[:2] for want in FORTH]
    for (_, _, line), (_, _, text) in zip(lines, FORTH, strict=True):
        assert text in line
    if backend == "nft":
        verdicts = [h.verdict for h in hits if h.kind == "rule"][:4]
        assert verdicts == ["jump", "jump", "jump", "accept"]
        assert [h.target for h in hits if h.kind == "rule"][:3] == [
            "KUBE-SERVICES",
            "KUBE-SVC-WEB",
            "KUBE-SEP-TWO",
        ]


def _names_a_line(hit: RuleTraceEvent, chains: dict[tuple[str, str], list[str]]) -> bool:
    """Legacy calls an unconditional verdict a chain's end, with that rule's number."""
    return hit.kind == "rule" or 0 < hit.number <= len(chains.get((hit.table, hit.chain), []))


@pytest.mark.parametrize("backend", ["nft", "legacy"])
def test_the_outer_packet_of_the_tunnel_is_traced(
    ground: Ground, observe: Observe, backend: str
) -> None:
    rules = "*filter\n-A OUTPUT -p udp --dport 8472 -j ACCEPT\nCOMMIT\n"
    ground.run("a", f"iptables-{backend}-restore", text=rules)
    rules = "*filter\n-A INPUT -p udp --dport 8472 -j ACCEPT\nCOMMIT\n"
    ground.run("b", f"iptables-{backend}-restore", text=rules)
    hits = [r for r in observe("10.244.2.20", 8080) if isinstance(r, RuleTraceEvent)]
    found = {(h.netns.node, h.chain, h.number) for h in hits if h.kind == "rule"}
    assert {("a", "OUTPUT", 1), ("b", "INPUT", 1)} <= found


NATIVE = {
    4: """table ip kube-proxy {
  map service-ips {
    type ipv4_addr . inet_proto . inet_service : verdict
    elements = { 10.96.0.50 . tcp . 80 : goto service-web }
  }
  chain services {
    ip daddr 10.1.1.1 drop
    ip daddr . meta l4proto . th dport vmap @service-ips
  }
  chain service-web {
    ip saddr 10.1.1.1 accept
    meta l4proto tcp dnat to 10.244.2.20:8080
  }
  chain nat-prerouting { type nat hook prerouting priority dstnat; jump services; }
}
""",
    6: """table ip6 kube-proxy {
  map service-ips {
    type ipv6_addr . inet_proto . inet_service : verdict
    elements = { fd00:10:96::50 . tcp . 80 : goto service-web }
  }
  chain services {
    ip6 daddr fd00::1 drop
    ip6 daddr . meta l4proto . th dport vmap @service-ips
  }
  chain service-web {
    ip6 saddr fd00::1 accept
    meta l4proto tcp dnat to [fd00:10:244:2::20]:8080
  }
  chain nat-prerouting { type nat hook prerouting priority dstnat; jump services; }
}
""",
}


@pytest.mark.parametrize("version", [4, 6])
def test_native_nft_rules_by_handle_and_place(
    ground: Ground, observe: Observe, version: int
) -> None:
    ground.run(
        "a",
        "nft",
        "-f",
        "-",
        text=NATIVE[version],
    )
    replies = observe(VIP[version], 80)
    assert next(r for r in replies if isinstance(r, ProbeResult)).result == "connected"
    hits = [r for r in replies if isinstance(r, RuleTraceEvent) and r.table == "kube-proxy"][:3]
    assert [(h.chain, h.number, h.verdict, h.target) for h in hits] == [
        ("nat-prerouting", 1, "jump", "services"),
        ("services", 2, "goto", "service-web"),
        ("service-web", 2, "accept", ""),
    ]
    listed = json.loads(ground.run("a", "nft", "-j", "-a", "list", "ruleset"))["nftables"]
    handles = [(one["rule"]["chain"], one["rule"]["handle"]) for one in listed if "rule" in one]
    assert {(h.chain, h.handle) for h in hits if h.handle} <= set(handles)


def test_looking_makes_no_legacy_table(ground: Ground, observe: Observe) -> None:
    def tables() -> list[str]:
        return [ground.run(p, "cat", "/proc/self/net/ip_tables_names") for p in ground.places]

    before = tables()
    observe("10.244.2.20", 8080)
    files = ("iptables-legacy-save.txt", "ip6tables-legacy-save.txt", "iptables-nft-save.txt")
    observe.ask(ReadFiles(id=901, netns=ground.places["b"], files=files))
    assert tables() == before


def test_a_second_reader_of_the_legacy_log_is_told_who_has_it(
    ground: Ground, agent: SubprocessAgent, probe_to: ProbeTo
) -> None:
    _load(ground, 4, "legacy", "tcp")
    watch = StartCapture(id=70, namespaces=(ground.places["a"],), probes=probe_to("10.96.0.50", 80))
    agent.send(watch)
    assert agent.wait(70, 10)
    with SubprocessAgent("a", ground.netns_handles) as second:
        second.send(watch)
        assert second.wait(70, 10)
        ready = second.log[-1]
    assert isinstance(ready, CaptureStarted)
    assert "rules" in ready.armed, "nft is traced all the same"
    [missing] = ready.unarmed
    assert isinstance(missing, SourceUnavailable)
    assert str(agent.pid) in missing.reason
    assert "NFLOG group 0" in missing.reason


@pytest.mark.parametrize("protocol", ["tcp", "udp"])
@pytest.mark.parametrize("port", [80, 53])
def test_everybody_can_list_rules_meanwhile(
    ground: Ground, agent: SubprocessAgent, probe_to: ProbeTo, protocol: str, port: int
) -> None:
    """nft 1.0.6 aborts on tables that it cannot interpret; ours must not be one."""
    probes = (*probe_to("10.96.0.50", port, protocol), *probe_to("fd00:10:96::50", port, protocol))
    agent.send(StartCapture(id=70, namespaces=(ground.places["a"],), probes=probes))
    assert agent.wait(70, 10)
    for words in ("nft list tables", "nft -a list ruleset", "nft -j list ruleset"):
        assert "kptrace" in ground.run("a", *words.split())
    for words in ("iptables-nft-save", "ip6tables-nft-save", "nft add table ip theirs"):
        ground.run("a", *words.split())
