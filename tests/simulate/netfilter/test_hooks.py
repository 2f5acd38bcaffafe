"""The interpreter on small rulesets of each language.

Expected ends are worked out from the kernel's source (named where it is not plain) and, for what
conntrack and NAT do, from traces of a real kernel.
"""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from kptrace.model import Flow, Netns, Packet, SimulatedStep
from kptrace.model.family import Family
from kptrace.rules.load import load_ruleset
from kptrace.simulate.branching import BranchPoints, ExploredBranch, enumerate_branches
from kptrace.simulate.ip.skb import Skb
from kptrace.simulate.netfilter.conntrack import Connection, SkbConntrack
from kptrace.simulate.netfilter.hooks import Netfilter, PacketDropped
from kptrace.simulate.snapshot.network import InterfaceAddress, Link, Nexthop
from kptrace.simulate.snapshot.snapshot import DEFAULT_RULES, Snapshot

PLACE = Netns(node="n")
TCP = Flow(protocol="tcp", src="10.0.0.2", dst="10.96.0.1", sport=4000, dport=80)


class Seen:
    """One way through the hooks: what killed it, the packet at the end, what was noted."""

    def __init__(
        self, killed: PacketDropped | None, skb: Skb, steps: list[SimulatedStep], notes: list[str]
    ) -> None:
        self.killed, self.skb, self.steps, self.notes = killed, skb, steps, notes

    @property
    def rules(self) -> list[str]:
        return [
            f"{step.rule.table} {step.rule.chain} {step.rule.number}"
            for step in self.steps
            if step.rule
        ]

    @property
    def actions(self) -> list[str]:
        return [step.action for step in self.steps]

    @property
    def dst(self) -> str:
        return f"{self.skb.flow.dst}:{self.skb.flow.dport}"


def snapshot(files: dict[str, str]) -> Snapshot:
    return Snapshot(
        netns=PLACE,
        links=(
            Link(index=1, name="lo", loopback=True),
            Link(index=2, name="eth0"),
            Link(index=3, name="cni0", kind="bridge"),
        ),
        addresses=(
            InterfaceAddress(interface="eth0", address="172.30.0.11", length=24),
            InterfaceAddress(interface="cni0", address="10.0.0.1", length=24),
            InterfaceAddress(interface="eth0", address="fd00::11", length=64),
        ),
        policy=DEFAULT_RULES[Family.IPV4] + DEFAULT_RULES[Family.IPV6],
        ruleset=load_ruleset(files),
    )


def run(
    files: dict[str, str],
    hooks: str = "prerouting",
    flow: Flow = TCP,
    prepare: Callable[[Skb], None] = lambda skb: None,
    **packet: object,
) -> list[ExploredBranch[Seen]]:
    made = snapshot(files)

    def story(choices: BranchPoints) -> Seen:
        steps: list[SimulatedStep] = []
        notes: list[str] = []
        netfilter = Netfilter(made, choices, steps.append, lambda kind, text: notes.append(text))
        skb = Skb(netns=PLACE, packet=Packet(flow=flow, **packet), iif="cni0")  # type: ignore[arg-type]
        prepare(skb)
        killed = None
        for hook in hooks.split():
            skb.oif = "eth0" if hook in ("forward", "output", "postrouting") else ""
            skb.iif = "" if hook == "output" else skb.iif
            killed = netfilter.run(hook, skb)
            if killed:
                break
        return Seen(killed, skb, steps, notes)

    return enumerate_branches(story)[0]


def only(*args: object, **kwargs: object) -> Seen:
    (told,) = run(*args, **kwargs)  # type: ignore[arg-type]
    assert told.certain
    return told.result


def save(nat: str = "", filter: str = "", mangle: str = "", raw: str = "") -> dict[str, str]:
    """iptables-save text of these tables; lines that begin with ``:`` declare chains."""
    builtin = {
        "raw": "PREROUTING OUTPUT",
        "mangle": "PREROUTING INPUT FORWARD OUTPUT POSTROUTING",
        "nat": "PREROUTING INPUT OUTPUT POSTROUTING",
        "filter": "INPUT FORWARD OUTPUT",
    }
    text = ""
    for table, rules in (("raw", raw), ("mangle", mangle), ("nat", nat), ("filter", filter)):
        if not rules:
            continue
        lines = [line.strip() for line in rules.strip().splitlines()]
        declared = {chain: f":{chain} ACCEPT" for chain in builtin[table].split()}
        declared |= {line.split()[0][1:]: line for line in lines if line.startswith(":")}
        text += f"*{table}\n" + "".join(f"{line} [0:0]\n" for line in declared.values())
        text += "".join(f"{line}\n" for line in lines if not line.startswith(":")) + "COMMIT\n"
    return {"iptables-legacy-save.txt": text}


# --- control flow -----------------------------------------------------------------------------


def test_jump_return_and_policy() -> None:
    found = only(
        save(
            filter="""
            :FORWARD DROP
            :A -
            :B -
            -A FORWARD -j A
            -A FORWARD -p udp -j ACCEPT
            -A A -j B
            -A A -p tcp -j RETURN
            -A A -j ACCEPT
            -A B -p udp -j ACCEPT"""
        ),
        "prerouting forward",
    )
    assert found.rules == ["filter FORWARD 1", "filter A 1", "filter A 2", "filter FORWARD 0"]
    assert found.killed is not None
    assert (found.killed.rule, found.killed.ref.chain) == (None, "FORWARD")


def test_goto_does_not_come_back_to_its_chain() -> None:
    found = only(
        save(
            filter="""
            :A -
            :B -
            -A FORWARD -j A
            -A FORWARD -m comment --comment last
            -A A -g B
            -A A -j DROP
            -A B -p udp -j DROP"""
        ),
        "prerouting forward",
    )
    assert found.killed is None
    assert found.rules == ["filter FORWARD 1", "filter A 1", "filter FORWARD 2"]


def test_return_from_a_base_chain_is_its_policy() -> None:
    found = only(
        save(filter=":FORWARD DROP\n-A FORWARD -j RETURN\n-A FORWARD -j ACCEPT"),
        "prerouting forward",
    )
    assert found.killed is not None
    assert found.killed.rule is None


def test_accept_ends_one_table_only() -> None:
    found = only(
        save(mangle="-A FORWARD -j ACCEPT", filter="-A FORWARD -j DROP"), "prerouting forward"
    )
    assert found.rules == ["mangle FORWARD 1", "filter FORWARD 1"]


def test_chains_that_go_in_a_circle_end() -> None:
    told = run(
        save(filter=":A -\n:B -\n-A FORWARD -j A\n-A A -j B\n-A B -j A"), "prerouting forward"
    )
    assert not any(one.certain for one in told)


def test_reject_tells_its_reply() -> None:
    rule = "-A FORWARD -p tcp -j REJECT --reject-with tcp-reset"
    found = only(save(filter=rule), "prerouting forward")
    assert found.killed is not None
    assert found.killed.reply == "tcp reset"
    assert found.actions == ["rejected"]


# --- matches ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "matches"),
    [
        ("-s 10.0.0.0/24", True),
        ("! -s 10.0.0.0/24", False),
        ("-d 10.96.0.1/32 -p tcp -m tcp --dport 80", True),
        ("-p tcp -m tcp --dport 81:90", False),
        ("-p tcp -m tcp ! --dport 81:90", True),
        ("-p udp -m udp --dport 80", False),
        ("-i cni0", True),
        ("! -i cni+", False),
        ("-i eth0", False),
        ("-p tcp -m multiport --dports 22,80:82", True),
        ("-p tcp -m multiport --ports 4000", True),
        ("-p tcp -m multiport ! --ports 1,2", True),
        ("-p tcp -m tcp --tcp-flags SYN,RST,ACK,FIN SYN", True),
        ("-p tcp -m tcp --tcp-flags ACK ACK", False),
        ("-m mark --mark 0x1/0x1", True),
        ("-m mark ! --mark 0x2/0x2", True),
        ("-m conntrack --ctstate NEW", True),
        ("-m conntrack --ctstate RELATED,ESTABLISHED", False),
        ("-m conntrack ! --ctstate RELATED,ESTABLISHED,DNAT", True),
        ("-m addrtype --src-type LOCAL", False),
        ("-m addrtype ! --dst-type LOCAL", True),
        ("-m physdev --physdev-in veth1", True),
        ("-m physdev --physdev-is-bridged", False),
        ("-m iprange --src-range 10.0.0.1-10.0.0.3", True),
        ("-m ttl --ttl-lt 64", False),
        ("-m limit --limit 1/sec", True),
        ("-m recent --rcheck --seconds 10 --name X --mask 255.255.255.255 --rsource", False),
        ("-m recent --set --name X --mask 255.255.255.255 --rsource", True),
        ("-m comment --comment x", True),
        ("-m nfacct --nfacct-name  x", True),
    ],
)
def test_matches(words: str, matches: bool) -> None:
    def prepare(skb: Skb) -> None:
        skb.physin = "veth1"

    found = only(
        save(filter=f"-A FORWARD {words} -j DROP"),
        "prerouting forward",
        prepare=prepare,
        mark=1,
        flags="S",
    )
    assert (found.killed is not None) == matches


def test_statistic_is_a_chance() -> None:
    told = run(
        save(
            filter="""
            -A FORWARD -m statistic --mode random --probability 0.25 -j DROP
            -A FORWARD -m statistic --mode nth --every 3 --packet 0 -j DROP"""
        ),
        "prerouting forward",
    )
    weights = {tuple(one.result.rules): one.weight for one in told}
    assert weights == pytest.approx(
        {("filter FORWARD 1",): 0.25, ("filter FORWARD 2",): 0.25, (): 0.5}
    )
    assert all(one.certain for one in told)


def test_what_is_not_known_goes_both_ways() -> None:
    told = run(save(filter="-A FORWARD -m bpf --bytecode x -j DROP"), "prerouting forward")
    assert sorted(one.result.killed is None for one in told) == [False, True]
    assert not any(one.certain for one in told)


def test_a_port_that_the_sender_has_not_chosen_yet() -> None:
    flow = Flow(protocol="tcp", src="10.0.0.2", dst="10.96.0.1", sport=0, dport=80)
    rules = save(filter="-A FORWARD -p tcp -m tcp --sport 1000:2000 -j DROP")
    assert len(run(rules, "prerouting forward", flow)) == 2


def test_ipsets() -> None:
    sets = {
        "ipset-save.txt": "create PODS hash:net family inet\nadd PODS 10.0.0.0/24\n"
        "add PODS 10.0.0.2 nomatch\ncreate PORTS hash:ip,port family inet\n"
        "add PORTS 10.96.0.1,tcp:80\n"
    }
    for words, matches in (
        ("-m set --match-set PODS src", False),
        ("-m set ! --match-set PODS src", True),
        ("-m set --match-set PORTS dst,dst", True),
        ("-m set --match-set PORTS src,dst", False),
    ):
        rules = save(filter=f"-A FORWARD {words} -j DROP") | sets
        assert (only(rules, "prerouting forward").killed is not None) == matches
    missing = save(filter="-A FORWARD -m set --match-set NONE src -j DROP") | sets
    assert len(run(missing, "prerouting forward")) == 2


# --- marks, conntrack, NAT --------------------------------------------------------------------


def test_marks_are_set_kept_and_crossed() -> None:
    found = only(
        save(
            mangle="""
            -A PREROUTING -j MARK --set-xmark 0x4000/0x4000
            -A PREROUTING -j CONNMARK --save-mark --nfmask 0xffffffff --ctmask 0xffffffff
            -A PREROUTING -j MARK --set-xmark 0x1/0xffffffff
            -A PREROUTING -m connmark --mark 0x4010/0xffffffff
            -A PREROUTING -j MARK --set-xmark 0x3/0x0"""
        ),
        mark=0x10,
    )
    assert found.skb.mark == 0x2  # 1 xor 3
    assert found.skb.tracked is not None
    assert found.skb.tracked.connection.mark == 0x4010
    assert found.actions == ["mark", "rule", "mark", "rule", "mark"]


def test_dnat_once_and_masquerade_when_marked() -> None:
    rules = save(
        nat="""
        -A PREROUTING -p tcp -m tcp --dport 80 -j DNAT --to-destination 10.0.0.9:8080
        -A PREROUTING -j DNAT --to-destination 10.0.0.10
        -A POSTROUTING -m mark --mark 0x4000/0x4000 -j MASQUERADE --random-fully
        -A POSTROUTING -p tcp -j SNAT --to-source 1.2.3.4:5"""
    )
    plain = only(rules, "prerouting postrouting")
    assert plain.dst == "10.0.0.9:8080"
    assert (plain.skb.flow.src, plain.skb.flow.sport) == ("1.2.3.4", 5)
    assert plain.rules == ["nat PREROUTING 1", "nat POSTROUTING 2"]
    assert plain.actions == ["dnat", "snat"]
    marked = only(rules, "prerouting postrouting", mark=0x4000)
    assert (marked.skb.flow.src, marked.skb.flow.sport) == ("172.30.0.11", 0)


def test_masquerade_takes_the_address_near_the_next_hop() -> None:
    def prepare(skb: Skb) -> None:
        skb.hop = Nexthop(interface="cni0", gateway="10.0.0.77")
        skb.oif = "cni0"

    files = save(nat="-A POSTROUTING -j MASQUERADE")
    made = snapshot(files)
    skb = Skb(netns=PLACE, packet=Packet(flow=TCP))
    prepare(skb)
    netfilter = Netfilter(made, BranchPoints(), lambda step: None, lambda kind, text: None)
    skb.tracked = netfilter.conntrack.track(skb.packet)
    assert netfilter.run("postrouting", skb) is None
    assert (skb.flow.src, skb.flow.sport) == ("10.0.0.1", 4000)


def test_redirect_to_the_interface_it_came_in_by() -> None:
    found = only(save(nat="-A PREROUTING -p tcp -j REDIRECT --to-ports 15001"))
    assert found.dst == "10.0.0.1:15001"
    own = only(save(nat="-A OUTPUT -p tcp -j REDIRECT --to-ports 15001"), "output")
    assert own.dst == "127.0.0.1:15001"


def test_nat_is_asked_for_the_first_packet_only() -> None:
    files = save(
        nat="-A PREROUTING -j DNAT --to-destination 10.0.0.9:8080\n-A POSTROUTING -j MASQUERADE",
        filter="-A FORWARD -m conntrack --ctstate ESTABLISHED -j ACCEPT",
    )
    made = snapshot(files)
    steps: list[SimulatedStep] = []
    netfilter = Netfilter(made, BranchPoints(), steps.append, lambda kind, text: None)
    first = Skb(netns=PLACE, packet=Packet(flow=TCP), iif="cni0")
    for hook in ("prerouting", "forward", "postrouting"):
        first.oif = "" if hook == "prerouting" else "eth0"
        assert netfilter.run(hook, first) is None
    assert first.flow.src == "172.30.0.11"
    steps.clear()
    answer = Skb(netns=PLACE, packet=Packet(flow=first.flow.reverse), iif="eth0")
    netfilter.run("prerouting", answer)
    assert (answer.flow.dst, answer.flow.dport) == ("10.0.0.2", 4000)  # un-SNAT comes first
    netfilter.run("forward", answer)
    netfilter.run("postrouting", answer)
    assert answer.flow == TCP.reverse
    assert [(s.action, s.rule.chain if s.rule else "") for s in steps] == [
        ("dnat", ""),
        ("rule", "FORWARD"),
        ("snat", ""),
    ]


def test_notrack() -> None:
    found = only(
        save(
            raw="-A PREROUTING -j CT --notrack",
            nat="-A PREROUTING -j DNAT --to-destination 10.0.0.9",
            filter="-A FORWARD -m conntrack --ctstate UNTRACKED -j DROP",
        ),
        "prerouting forward",
    )
    assert found.dst == "10.96.0.1:80"
    assert found.killed is not None


def test_invalid_packets_have_no_connection() -> None:
    def prepare(skb: Skb) -> None:
        skb.untracked = False

    files = save(filter="-A FORWARD -m conntrack --ctstate INVALID -j DROP")
    assert only(files, "forward", prepare=prepare).killed is not None


def test_tproxy_hands_to_a_socket() -> None:
    rule = "-A PREROUTING -p tcp -j TPROXY --on-port 15001 --on-ip 0.0.0.0 --tproxy-mark 0x1/0x1"
    found = only(save(mangle=rule))
    assert found.skb.socket == ("10.96.0.1", 15001)
    assert found.skb.mark == 1


def test_both_backends_of_iptables() -> None:
    """A packet passes both; where both would translate, the snapshot cannot tell which wins."""
    one = "*nat\n:PREROUTING ACCEPT [0:0]\n-A PREROUTING{} -j DNAT --to-destination {}\nCOMMIT\n"
    files = {
        "iptables-legacy-save.txt": one.format("", "10.0.0.7"),
        "iptables-nft-save.txt": one.format("", "10.0.0.8"),
    }
    told = run(files)
    assert {one.result.dst for one in told} == {"10.0.0.7:80", "10.0.0.8:80"}
    assert not any(one.certain for one in told)
    assert all("table loaded last wins" in one.result.notes[0] for one in told)
    files["iptables-legacy-save.txt"] = one.format(" -p udp", "10.0.0.7")
    alone = only(files)
    assert alone.dst == "10.0.0.8:80"
    assert alone.steps[0].rule is not None
    assert alone.steps[0].rule.backend == "nft"


# --- nftables ---------------------------------------------------------------------------------


def nft(*objects: dict[str, object]) -> dict[str, str]:
    table = {"table": {"family": "ip", "name": "t", "handle": 1}}
    return {"nft-ruleset.json": json.dumps({"nftables": [table, *objects]})}


def chain(name: str, hook: str = "", prio: int = 0, kind: str = "filter") -> dict[str, object]:
    made: dict[str, object] = {"family": "ip", "table": "t", "name": name, "handle": 2}
    if hook:
        made |= {"type": kind, "hook": hook, "prio": prio, "policy": "accept"}
    return {"chain": made}


def rule(chain: str, *expr: object) -> dict[str, object]:
    made = {"family": "ip", "table": "t", "chain": chain, "handle": 9, "expr": list(expr)}
    return {"rule": made}


def match(left: object, right: object, op: str = "==") -> dict[str, object]:
    return {"match": {"op": op, "left": left, "right": right}}


def payload(protocol: str, field: str) -> dict[str, object]:
    return {"payload": {"protocol": protocol, "field": field}}


DNAT_MAP = {
    "dnat": {
        "family": "ip",
        "addr": {
            "map": {
                "key": {"numgen": {"mode": "random", "mod": 3}},
                "data": {
                    "set": [
                        [0, {"concat": ["10.0.0.7", 8080]}],
                        [1, {"concat": ["10.0.0.8", 8080]}],
                        [2, {"concat": ["10.0.0.9", 8081]}],
                    ]
                },
            }
        },
    }
}


def test_numgen_and_a_map_of_backends() -> None:
    told = run(nft(chain("pre", "prerouting", -100, "nat"), rule("pre", DNAT_MAP)))
    weights = {one.result.dst: one.weight for one in told}
    assert weights == pytest.approx(
        {"10.0.0.7:8080": 1 / 3, "10.0.0.8:8080": 1 / 3, "10.0.0.9:8081": 1 / 3}
    )
    assert all(one.certain for one in told)
    assert all(one.result.actions == ["dnat"] for one in told)


def test_verdict_map_and_a_key_that_it_lacks() -> None:
    elements = [[{"concat": ["10.96.0.1", "tcp", 80]}, {"goto": {"target": "svc"}}]]
    key = {"concat": [payload("ip", "daddr"), {"meta": {"key": "l4proto"}}, payload("th", "dport")]}
    made = nft(
        {
            "map": {
                "family": "ip",
                "table": "t",
                "name": "ips",
                "handle": 3,
                "type": ["ipv4_addr", "inet_proto", "inet_service"],
                "map": "verdict",
                "elem": elements,
            }
        },
        chain("pre", "prerouting", 0),
        chain("svc"),
        rule("pre", {"vmap": {"key": key, "data": "@ips"}}),
        rule("pre", {"counter": {"packets": 0, "bytes": 0}}),
        rule("svc", {"drop": None}),
    )
    found = only(made)
    assert found.rules == ["t pre 1", "t svc 1"]
    assert found.killed is not None
    assert found.killed.via_map == ("ips",)
    other = Flow(protocol="tcp", src="10.0.0.2", dst="10.96.0.1", sport=1, dport=81)
    assert only(made, flow=other).rules == ["t pre 2"]  # the rule itself did not match


def test_sets_prefixes_and_negation() -> None:
    made = nft(
        chain("f", "prerouting", 0),
        rule("f", match(payload("ip", "saddr"), {"prefix": {"addr": "10.0.0.0", "len": 8}}, "!="),
             {"drop": None}),
        rule("f", match(payload("ip", "saddr"), {"set": ["1.1.1.1", "10.0.0.2"]}),
             match(payload("tcp", "dport"), {"range": [70, 90]}), {"reject": None}),
    )  # fmt: skip
    found = only(made)
    assert found.rules == ["t f 2"]
    assert found.killed is not None
    assert found.killed.reply


@pytest.mark.parametrize(
    ("kind", "code", "refused"),
    [
        ("icmp", "host-unreachable", True),
        ("icmpx", "admin-prohibited", True),
        ("icmpv6", "addr-unreachable", False),
        ("tcp reset", None, True),
    ],
)
def test_a_refusal_of_one_family(kind: str, code: str | None, refused: bool) -> None:
    """In a table of both: ``nft`` lists no ``meta nfproto`` before it."""
    reject = {"type": kind, **({"expr": code} if code else {})}
    made = nft(chain("f", "prerouting", 0), rule("f", {"reject": reject}))
    made = {name: text.replace('"ip"', '"inet"') for name, text in made.items()}
    found = only(made)
    assert (found.killed is not None) is refused
    assert found.rules == (["t f 1"] if refused else [])
    over6 = Flow(protocol="tcp", src="fd00::2", dst="fd00::1", sport=4000, dport=80)
    assert (only(made, flow=over6).killed is not None) is (kind != "icmp")


def test_a_header_that_the_packet_lacks_never_matches() -> None:
    made = nft(
        chain("f", "prerouting", 0),
        rule("f", match(payload("udp", "dport"), 53, "!="), {"drop": None}),
    )
    assert only(made).killed is None


def test_status_of_a_translated_connection() -> None:
    made = nft(
        chain("pre", "prerouting", -100, "nat"),
        chain("post", "postrouting", 100, "nat"),
        rule("pre", {"dnat": {"addr": "10.0.0.2", "port": 8080}}),
        rule("post", match({"ct": {"key": "status"}}, "dnat", "in"), {"masquerade": None}),
    )
    found = only(made, "prerouting postrouting")
    assert found.actions == ["dnat", "snat"]
    assert found.skb.flow.src == "172.30.0.11"


def test_a_zone_that_comes_behind_conntrack_is_not_followed() -> None:
    """What began no connection gets a template then, and nat is asked about that."""
    zone = {"mangle": {"key": {"ct": {"key": "zone"}}, "value": 1}}
    made = nft(
        chain("pre", "prerouting", -190),
        chain("nat", "prerouting", -100, "nat"),
        rule("pre", zone),
        rule("nat", {"counter": {"packets": 0, "bytes": 0}}),
    )
    (told,) = run(made, flags="RA")
    assert not told.certain
    (told,) = run(made, flags="S")
    assert told.certain


def test_nat_chains_hang_on_one_hook_whatever_their_priority() -> None:
    """nf_nat_register_fn: a nat chain at 0 still runs at -100, before a filter chain at -50."""
    made = nft(
        chain("late", "prerouting", 0, "nat"),
        chain("check", "prerouting", -50),
        rule("late", {"dnat": {"addr": "10.0.0.9"}}),
        rule("check", match(payload("ip", "daddr"), "10.0.0.9"), {"drop": None}),
    )
    assert only(made).rules == ["t late 1", "t check 1"]


def test_local_destinations_by_fib() -> None:
    made = nft(
        chain("f", "prerouting", 0),
        rule("f", match({"fib": {"result": "type", "flags": ["daddr"]}}, "local"), {"drop": None}),
    )
    own = Flow(protocol="tcp", src="10.0.0.2", dst="172.30.0.11", sport=1, dport=30080)
    assert only(made, flow=own).killed is not None
    assert only(made).killed is None


def test_an_established_packet_skips_what_is_for_new_ones() -> None:
    def prepare(skb: Skb) -> None:
        entry = Connection(original=TCP, reply=TCP.reverse, replied=True, confirmed=True)
        skb.tracked = SkbConntrack(entry)

    made = nft(
        chain("f", "forward", 0),
        rule("f", match({"ct": {"key": "state"}}, "new", "in"), {"drop": None}),
    )
    assert only(made, "forward", prepare=prepare).killed is None
