"""The native readers against the text readers, on one and the same state of the kernel.

Rulesets are loaded into a namespace of our own: those that real kube-proxies wrote, and corpora
with everything that iptables, nft and ipset can say here. What netlink and getsockopt tell, read by
``LiveSource``, must be what ``iptables-save``, ``nft -j list ruleset`` and ``ipset save`` print,
read by the text readers: every table, chain, rule, set and element.
"""

from __future__ import annotations

import gzip
import os
import subprocess
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import pytest
from msgspec.structs import replace

from kptrace.agent.netlink import socket as netlink
from kptrace.agent.netns import run_in_netns
from kptrace.agent.state.rule_queries import ReadError, RuleReader
from kptrace.rules.live.consistency import spans_generations
from kptrace.rules.live.queries import TABLES
from kptrace.rules.live.source import LiveSource
from kptrace.rules.load import load_ruleset
from kptrace.rules.model.expressions import UnknownStatement
from kptrace.rules.model.ruleset import Rule, Ruleset, Table
from kptrace.rules.model.sets import Element, SetElements

pytestmark = pytest.mark.kernel

HOOKS = ("prerouting", "input", "forward", "output", "postrouting")
# their bytes are kept, their words are not known here
UNREAD = ("-m u32", "-m string", "-m bpf", "-m time", "--chunk-types", "mb/s")
UNREAD_NFT = ("ct label", "meta time", "meta hour", "meta day", "ip option", "osf")
UNREAD_NFT += ("more-fragments", "ip dscp map")
NFACCT = ("ct_state_invalid_dropped_pkts", "localhost_nps_accepted_pkts")


class Namespace:
    """A network namespace of our own, its texts, and a native reader in it."""

    def __init__(self, name: str) -> None:
        self.name = name
        subprocess.run(["ip", "netns", "add", name], check=True)
        self.rulesets = RuleReader(f"/run/netns/{name}")
        self.asked: dict[str, str] = {}
        self.asks: Counter[str] = Counter()

    def run(self, *words: str, given: str = "", refusable: bool = False) -> str:
        done = subprocess.run(
            ["ip", "netns", "exec", self.name, *words],
            input=given,
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
        )
        assert refusable or done.returncode == 0, (words, done.stderr)
        return done.stdout if done.returncode == 0 else ""

    def close(self) -> None:
        self.rulesets.close()
        subprocess.run(["ip", "netns", "del", self.name], check=True)

    def ask(self, files: Sequence[str]) -> Mapping[str, str]:
        self.asks.update(files)
        found = {f: t for f, t in self.rulesets.read(files).items() if not isinstance(t, ReadError)}
        self.asked |= found
        return found

    def native(self) -> Ruleset:
        return Ruleset([LiveSource(self.ask)])

    def texts(self) -> dict[str, str]:
        names = self.run("cat", "/proc/net/ip_tables_names", "/proc/net/ip6_tables_names")
        legacy = bool(names.strip())
        return {
            "iptables-nft-save.txt": self.run("iptables-nft-save", "-c"),
            "ip6tables-nft-save.txt": self.run("ip6tables-nft-save", "-c"),
            "iptables-legacy-save.txt": self.run("iptables-legacy-save", "-c") if legacy else "",
            "ip6tables-legacy-save.txt": self.run("ip6tables-legacy-save", "-c") if legacy else "",
            "nft-ruleset.json": self.run("nft", "-j", "list", "ruleset"),
            "ipset-save.txt": self.run("ipset", "save"),
        }

    def spoken(self) -> Ruleset:
        return load_ruleset(self.texts())

    def account(self) -> None:
        """The nfacct objects that kube-proxy's rules count in."""

        def make() -> None:
            with netlink.NetlinkSocket() as conversation:
                for name in NFACCT:
                    body = netlink.netfilter(0, netlink.text(1, name))
                    conversation.ask(7 << 8, body, netlink.CREATE | netlink.EXCL)

        run_in_netns(f"/run/netns/{self.name}", make)

    def load(self, program: str, text: str) -> int:
        """iptables rules one by one, since a kernel may lack some; how many it took."""
        taken = 0
        for part in text.split("*")[1:]:
            table, *lines = part.splitlines()
            chains = [line for line in lines if line.startswith(":")]
            self.run(program, "--noflush", given="\n".join([f"*{table}", *chains, "COMMIT\n"]))
            for line in lines:
                if line.startswith("-A"):
                    given = f"*{table}\n{line}\nCOMMIT\n"
                    done = subprocess.run(
                        ["ip", "netns", "exec", self.name, program, "--noflush"],
                        input=given,
                        text=True,
                        capture_output=True,
                        check=False,
                    )
                    taken += done.returncode == 0
        return taken


@pytest.fixture
def namespace() -> Iterator[Namespace]:
    made = Namespace(f"kpt-native-{os.getpid()}")
    try:
        yield made
    finally:
        made.close()


# --- comparing ----------------------------------------------------------------------------------


def differences(spoken: Ruleset, native: Ruleset) -> Iterator[str]:
    """Where the two rulesets say different things; nothing: they are equal."""
    if set(spoken.tables()) != set(native.tables()):
        yield f"tables {spoken.tables()} {native.tables()}"
    for table in spoken.tables():
        there = set(native.chain_names(table))
        for name in spoken.chain_names(table):
            # iptables-nft-save prints the chains of its tables also where the kernel has none
            if name in there:
                yield from _chain_differences(spoken, native, table, name)
            elif len(spoken.chain(table, name).rules):  # type: ignore[union-attr]
                yield f"no chain {name}"
        for name in spoken.set_names(table):
            yield from _set_differences(spoken, native, table, name)
    for name in spoken.set_names(None):
        yield from _set_differences(spoken, native, None, name)


def _chain_differences(spoken: Ruleset, native: Ruleset, table: Table, name: str) -> Iterator[str]:
    one, other = spoken.chain(table, name), native.chain(table, name)
    assert one is not None
    assert other is not None
    for key in ("hook", "priority", "policy", "type", "device"):
        if getattr(one, key) != getattr(other, key):
            yield f"{table} {name} {key}: {getattr(one, key)} {getattr(other, key)}"
    if one.hook and one.age != other.age and one.age != (0, 0):
        yield f"{table} {name} age: {one.age} {other.age}"
    if len(one.rules) != len(other.rules):
        yield f"{table} {name}: {len(one.rules)} rules, {len(other.rules)} rules"
    for wanted, found in zip(one.rules, other.rules, strict=False):
        if not same(wanted, found):
            yield f"{table} {name}\n  {show(wanted)}\n  {show(found)}"


def same(wanted: Rule, found: Rule) -> bool:
    """Equal, or one of the few whose bytes are kept because their words are not known here."""
    if any(text in wanted.text for text in (*UNREAD, *UNREAD_NFT)):
        return any(
            isinstance(part, UnknownStatement) for part in found.body
        ) or "UnknownExpr" in repr(found.body)
    keys = ("number", "text", "body", "comment", "packets", "bytes")
    return all(getattr(wanted, key) == getattr(found, key) for key in keys)


def show(rule: Rule) -> str:
    return f"{rule.number} [{rule.packets}:{rule.bytes}] {rule.text} {rule.body} {rule.comment!r}"


def _set_differences(
    spoken: Ruleset, native: Ruleset, table: Table | None, name: str
) -> Iterator[str]:
    one, other = spoken.set(table, name), native.set(table, name)
    assert one is not None
    if other is None:
        yield f"no set {name}"
        return
    for key in ("kind", "type", "method", "timeout", "comment"):
        if getattr(one, key) != getattr(other, key):
            yield f"set {name} {key}: {getattr(one, key)} {getattr(other, key)}"
    if _sorted(one.members) != _sorted(other.members):
        yield f"set {name}\n  {_sorted(one.members)}\n  {_sorted(other.members)}"


def _sorted(members: SetElements) -> list[Element]:
    """A hash has no order, and time passes."""
    timeless = (replace(element, timeout=None, expires=None) for element in members)
    return sorted(timeless, key=repr)


def count(ruleset: Ruleset) -> int:
    return sum(
        len(chain.rules)
        for table in ruleset.tables()
        for name in ruleset.chain_names(table)
        if (chain := ruleset.chain(table, name))
    )


# --- what real kube-proxies wrote ---------------------------------------------------------------

IPTABLES = (
    ("iptables-nft-default", "node-a"),
    ("iptables-nft-default", "node-b"),
    ("iptables-legacy-default", "node-a"),
    ("iptables-legacy-default", "node-b"),
    ("v1.30-iptables-legacy-default", "node-a"),
)
NFTABLES = (
    ("nftables-default", "node-a"),
    ("nftables-default", "node-b"),
    ("v1.30-nftables-default", "node-a"),
)


def text_of(path: Path) -> str:
    if path.is_file():
        return path.read_text()
    zipped = path.with_name(f"{path.name}.gz")
    return gzip.decompress(zipped.read_bytes()).decode() if zipped.is_file() else ""


@pytest.mark.parametrize("backend", ["nft", "legacy"])
@pytest.mark.parametrize(("folder", "node"), IPTABLES)
def test_iptables_rules_of_real_kube_proxies(
    dumps: Path, namespace: Namespace, folder: str, node: str, backend: str
) -> None:
    where = dumps / folder / node
    namespace.account()
    for program in ("iptables", "ip6tables"):
        if text := text_of(where / f"{program}-save.txt"):
            namespace.run(f"{program}-{backend}-restore", given=text)
    assert list(differences(namespace.spoken(), namespace.native())) == []
    assert count(namespace.native()) > 300


@pytest.mark.parametrize(("folder", "node"), NFTABLES)
def test_nftables_rules_of_real_kube_proxies(
    dumps: Path, namespace: Namespace, folder: str, node: str
) -> None:
    where = dumps / folder / node
    namespace.run("nft", "-f", "-", given=text_of(where / "nft-ruleset.txt"))
    spoken, native = namespace.spoken(), namespace.native()
    assert list(differences(spoken, native)) == []
    assert count(native) > 150


def test_ipsets_and_rules_of_a_real_kube_proxy_in_ipvs_mode(
    dumps: Path, namespace: Namespace
) -> None:
    where = dumps / "ipvs-rr-default" / "node-a"
    namespace.run("ipset", "restore", given=text_of(where / "ipset-save.txt"))
    namespace.run("iptables-nft-restore", given=text_of(where / "iptables-save.txt"))
    namespace.run("iptables-legacy-restore", given=text_of(where / "iptables-save.txt"))
    assert list(differences(namespace.spoken(), namespace.native())) == []


# --- everything that can be said ----------------------------------------------------------------


@pytest.mark.parametrize("backend", ["nft", "legacy"])
@pytest.mark.parametrize("program", ["iptables", "ip6tables"])
def test_every_match_and_target(
    cases: Path, namespace: Namespace, program: str, backend: str
) -> None:
    namespace.account()
    for line in (cases / "native" / "ipsets.txt").read_text().splitlines():
        namespace.run("ipset", "restore", given=f"{line}\n", refusable=True)
    text = (cases / "native" / f"{program}.txt").read_text()
    taken = namespace.load(f"{program}-{backend}-restore", text)
    assert taken > (50 if program == "ip6tables" else 150)
    assert list(differences(namespace.spoken(), namespace.native())) == []


def test_every_statement_of_nft(cases: Path, namespace: Namespace) -> None:
    namespace.run("ip", "link", "set", "lo", "up")
    text = (cases / "native" / "native.nft").read_text()
    namespace.run("nft", "-f", "-", given=text)
    assert list(differences(namespace.spoken(), namespace.native())) == []


def test_every_type_of_ipset(cases: Path, namespace: Namespace) -> None:
    for line in (cases / "native" / "ipsets.txt").read_text().splitlines():
        namespace.run("ipset", "restore", given=f"{line}\n", refusable=True)
    spoken, native = namespace.spoken(), namespace.native()
    assert len(spoken.set_names(None)) >= 8
    assert sorted(spoken.set_names(None)) == sorted(native.set_names(None))
    assert list(differences(spoken, native)) == []


# --- looking changes nothing --------------------------------------------------------------------


def test_no_table_is_created_by_looking(namespace: Namespace) -> None:
    native = namespace.native()
    assert native.tables() == ()
    assert native.chain(Table(backend="legacy", family="ip", name="nat"), "PREROUTING") is None
    assert native.chain(Table(backend="nft", family="ip", name="nat"), "PREROUTING") is None
    assert native.set(None, "no-such") is None
    for family in ("ip", "ip6"):
        asked = namespace.ask((f"rules/legacy/{family}/nat/chain/OUTPUT.json",))
        assert '"chain": null' in next(iter(asked.values()))
        assert namespace.run("cat", f"/proc/net/{family}_tables_names") == ""
    assert namespace.run("nft", "list", "tables") == ""


# --- what is asked for --------------------------------------------------------------------------

MANY = 300


def many_rules() -> str:
    """A chain like KUBE-SERVICES: many rules, each for one address, and some that are for all."""
    lines = ["*nat", ":PREROUTING ACCEPT [0:0]", ":MANY - [0:0]", ":ONE - [0:0]"]
    lines += ["-A PREROUTING -j MANY", "-A MANY -m mark --mark 0x1 -j ONE"]
    for turn in range(MANY):
        said = f'-m comment --comment "default/web-{turn}:http cluster IP" -m tcp --dport 80'
        lines.append(f"-A MANY -d 10.96.{turn // 250}.{turn % 250}/32 -p tcp {said} -j ONE")
    lines += ["-A MANY ! -d 10.96.0.7/32 -i eth0 -j ONE", "-A MANY -d 10.0.0.0/8 -j ONE"]
    lines += ["-A MANY -s 10.96.0.9/32 -j ONE", "-A MANY -m limit --limit 5/min -j ONE"]
    return "\n".join([*lines, "-A ONE -j RETURN", "COMMIT\n"])


@pytest.mark.parametrize("backend", ["nft", "legacy"])
def test_of_many_rules_only_those_that_matter_are_asked_for(
    namespace: Namespace, backend: str
) -> None:
    namespace.run(f"iptables-{backend}-restore", given=many_rules())
    table = Table(backend=backend, family="ip", name="nat")  # type: ignore[arg-type]
    spoken, native = namespace.spoken(), namespace.native()
    one, other = spoken.chain(table, "MANY"), native.chain(table, "MANY")
    assert one is not None
    assert other is not None
    everybody = [1, *range(MANY + 2, MANY + 6)]

    toward = list(other.rules.candidates_for_destination("10.96.0.7"))
    assert [rule.number for rule in toward] == [1, 9, *everybody[1:]]
    assert [rule.text for rule in toward] == [one.rules[n - 1].text for n in (1, 9, *everybody[1:])]
    assert [
        rule.number for rule in other.rules.candidates_for_destination("10.96.9.9")
    ] == everybody
    assert [rule.number for rule in other.rules.candidates_for_destination("fd00::1")] != []
    assert [rule.number for rule in other.rules.containing_text("default/web-17:")] == [19]
    assert same(one.rules[100], other.rules[100])
    assert len(other.rules) == len(one.rules)
    assert not any(file.endswith("/all.json") for file in namespace.asks)

    assert list(differences(spoken, native)) == []


def test_one_key_of_a_large_map_is_one_question(namespace: Namespace) -> None:
    keys = [(f"10.96.{turn // 250}.{turn % 250}", "tcp", 80 + turn % 7) for turn in range(MANY)]
    elements = ", ".join(f"{a} . {p} . {n} : goto web" for a, p, n in keys)
    names = ", ".join(f'"eth{turn}"' for turn in range(MANY))
    nets = ", ".join(f"10.{turn // 200}.{turn % 200}.0/25" for turn in range(MANY))
    namespace.run(
        "nft",
        "-f",
        "-",
        given="table ip t {\n chain web { }\n"
        "map m { type ipv4_addr . inet_proto . inet_service : verdict\n"
        f"elements = {{ {elements} }} }}\n"
        f"set names {{ type ifname\n elements = {{ {names} }} }}\n"
        "map rest { type ipv4_addr : mark\n"
        f"elements = {{ {', '.join(f'{a} : 0x5' for a, _, _ in keys)}, * : 0x7 }} }}\n"
        "set nets { type ipv4_addr; flags interval\n"
        f"elements = {{ {nets} }} }}\n"
        "}\n",
    )
    table = Table(backend="nft", family="ip", name="t")
    native, spoken = namespace.native(), namespace.spoken()
    found, listed = native.set(table, "m"), spoken.set(table, "m")
    assert found is not None
    assert listed is not None
    for key in (keys[0], keys[123], ("10.96.0.1", "udp", 81), ("10.96.0.1", "tcp", 99)):
        assert found.members.lookup(key) == listed.members.lookup(key)
    assert found.members.lookup(("fd00::1", "tcp", 80)) is None
    like = list(found.members.matching_pattern((None, "tcp", 80)))
    assert len(like) == len([key for key in keys if key[2] == 80])
    assert len(list(found.members.matching_pattern(("10.96.0.9", None, None)))) == 1
    names_found = native.set(table, "names")
    assert names_found is not None
    assert names_found.members.lookup(("eth7",)) is not None
    assert names_found.members.lookup(("eth",)) is None
    rest = native.set(table, "rest")
    assert rest is not None
    assert rest.members.lookup((keys[5][0],)) == spoken.set(table, "rest").members.lookup(  # type: ignore[union-attr]
        (keys[5][0],)
    )
    assert rest.members.lookup(("9.9.9.9",)) == spoken.set(table, "rest").members.lookup(  # type: ignore[union-attr]
        ("9.9.9.9",)
    )
    assert not any(file.endswith("/all.json") for file in namespace.asks)

    wide = native.set(table, "nets")
    assert wide is not None
    assert wide.members.lookup(("10.1.50.7",)) is not None
    assert wide.members.lookup(("10.1.50.200",)) is None
    assert list(differences(spoken, native)) == []


def test_what_was_asked_is_enough_to_read_it_again(cases: Path, namespace: Namespace) -> None:
    namespace.run("nft", "-f", "-", given=(cases / "native" / "native.nft").read_text())
    namespace.run("iptables-nft-restore", given=many_rules())
    first = namespace.native()
    assert list(differences(namespace.spoken(), first)) == []
    kept = dict(namespace.asked)
    again = Ruleset(
        [LiveSource(lambda files: {file: kept[file] for file in files if file in kept})]
    )
    assert list(differences(first, again)) == []


# --- odd and hostile ----------------------------------------------------------------------------


def test_names_that_are_paths_and_quotes(namespace: Namespace) -> None:
    long = "x" * 200
    odd = ("a/b", "..", "with space", 'a"b', "ünï", long)
    made = "".join(f"add chain ip t2 {_quoted(name)}\n" for name in odd[:1])
    namespace.run("nft", "-f", "-", given=f"add table ip t2\n{made}")
    rules = "".join(f"-A OUTPUT -m comment --comment {_quoted(name)} -j LOG\n" for name in odd)
    namespace.run("iptables-nft-restore", given=f"*filter\n:OUTPUT DROP [0:0]\n{rules}COMMIT\n")
    namespace.run("iptables-legacy-restore", given=f"*filter\n:OUTPUT DROP [0:0]\n{rules}COMMIT\n")
    assert list(differences(namespace.spoken(), namespace.native())) == []
    assert all(not part.startswith("..") for file in namespace.asked for part in file.split("/"))


def _quoted(name: str) -> str:
    escaped = name.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"' if set(name) - set("abcdefghijklmnopqrstuvwxyz/") else name


def test_a_rule_of_nfts_own_in_a_table_of_iptables(namespace: Namespace) -> None:
    """iptables-nft-save refuses the whole table then; rule by rule it can still be read."""
    namespace.run("iptables-nft", "-A", "FORWARD", "-s", "10.0.0.1", "-m", "u32", "--u32", "0&1=0")
    namespace.run("nft", "add rule ip filter FORWARD ip daddr vmap { 10.0.0.9 : drop }")
    chain = namespace.native().chain(Table(backend="nft", family="ip", name="filter"), "FORWARD")
    assert chain is not None
    assert chain.rules[0].text.startswith("-s 10.0.0.1/32 -m u32 --revision 0 --info ")
    assert [type(part) for part in chain.rules[0].body][1:] == [UnknownStatement]
    assert chain.rules[1].text == "ip daddr vmap { 10.0.0.9 : drop }"


def test_the_generation_tells_that_rules_changed_between_two_looks(namespace: Namespace) -> None:
    namespace.run("iptables-nft", "-A", "FORWARD", "-j", "ACCEPT")
    table = Table(backend="nft", family="ip", name="filter")
    asked = LiveSource(namespace.ask)
    assert asked.chain(table, "FORWARD") is not None
    assert not spans_generations(namespace.asked)
    namespace.run("iptables-nft", "-A", "FORWARD", "-j", "DROP")
    asked.chain(table, "no-such")
    assert spans_generations(namespace.asked)


def test_both_backends_hold_rules(namespace: Namespace) -> None:
    namespace.run("iptables-legacy", "-t", "nat", "-A", "OUTPUT", "-j", "RETURN")
    namespace.run("iptables-nft", "-t", "nat", "-A", "OUTPUT", "-p", "tcp", "-j", "RETURN")
    native = namespace.native()
    met = [(chain.table.backend, len(chain.rules)) for chain in native.base_chains("ip", "output")]
    assert sorted(met) == [("legacy", 1), ("nft", 1)]
    assert list(differences(namespace.spoken(), native)) == []


def test_a_legacy_table_is_read_anew_when_a_look_begins(namespace: Namespace) -> None:
    """The kernel gives it as a whole, so it is kept; with all tables being asked for it is not."""
    chain = "rules/legacy/ip/filter/chain/INPUT.json"
    namespace.run("iptables-legacy", "-A", "INPUT", "-p", "tcp", "-j", "ACCEPT")
    before = namespace.ask([TABLES, chain])[chain]
    namespace.run("iptables-legacy", "-A", "INPUT", "-p", "udp", "-j", "DROP")
    assert namespace.ask([chain])[chain] == before
    after = namespace.ask([TABLES, chain])[chain]
    assert '"count": 1' in before
    assert '"count": 2' in after
