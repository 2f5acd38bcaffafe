"""``ipvsadm -Sn``: services, servers, affinity, IPv6, SCTP, firewall marks."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kptrace.model.errors import ParseError
from kptrace.rules.ipvs.ipvsadm import (
    RealServer,
    VirtualService,
    looks_like_list,
    looks_like_save,
    read_ipvs_list,
    read_ipvs_save,
    with_connection_counts,
)

SAVE = """\
-A -t 172.30.0.11:30083 -s rr -p 10800
-a -t 172.30.0.11:30083 -r 10.244.1.11:8080 -m -w 1
-a -t 172.30.0.11:30083 -r 10.244.1.12:8080 -m -w 0
-A -u 10.96.0.10:53 -s lc
-a -u 10.96.0.10:53 -r 10.244.1.53:53 -g -w 5
-A --sctp-service 10.96.1.11:132 -s sh -b sh-port,sh-fallback
-A -t [fd00:10:96::6]:80 -s rr -p 300 -M 64
-a -t [fd00:10:96::6]:80 -r [fd00:10:244:1::11]:8080 -i -w 1
-A -f 7 -s wlc -6
-A -f 7 -s wlc
-a -f 7 -r 10.0.0.1:0 -m -w 1 -x 10 -y 5
-A -u 10.0.0.9:53 -s rr -o
"""


def test_what_is_read() -> None:
    assert read_ipvs_save(SAVE, "ipvsadm-Sn.txt") == (
        VirtualService(
            protocol="tcp",
            address="172.30.0.11",
            port=30083,
            scheduler="rr",
            persistent=10800,
            servers=(
                RealServer(address="10.244.1.11", port=8080),
                RealServer(address="10.244.1.12", port=8080, weight=0),
            ),
        ),
        VirtualService(
            protocol="udp",
            address="10.96.0.10",
            port=53,
            scheduler="lc",
            servers=(RealServer(address="10.244.1.53", port=53, method="route", weight=5),),
        ),
        VirtualService(
            protocol="sctp",
            address="10.96.1.11",
            port=132,
            scheduler="sh",
            flags=("sh-port", "sh-fallback"),
        ),
        VirtualService(
            protocol="tcp",
            address="fd00:10:96::6",
            port=80,
            family="ip6",
            scheduler="rr",
            persistent=300,
            netmask="64",
            servers=(RealServer(address="fd00:10:244:1::11", port=8080, method="tunnel"),),
        ),
        VirtualService(
            protocol="fwmark", address="", port=0, fwmark=7, family="ip6", scheduler="wlc"
        ),
        VirtualService(
            protocol="fwmark",
            address="",
            port=0,
            fwmark=7,
            scheduler="wlc",
            servers=(RealServer(address="10.0.0.1", port=0),),
        ),
        VirtualService(protocol="udp", address="10.0.0.9", port=53, scheduler="rr", flags=("ops",)),
    )


def test_no_services() -> None:
    assert read_ipvs_save("", "ipvsadm-Sn.txt") == ()


BROKEN = [
    ("hello\n", 1),
    ("-A -t 10.0.0.1:80 -s rr\n-a -t 10.0.0.2:80 -r 10.0.0.3:80 -m -w 1\n", 2),
    ("-A -t 10.0.0.1:80 -s rr\n-A -t 10.0.0.1:80 -s rr\n", 2),
    ("-A -t 10.0.0.1 -s rr\n", 1),
    ("-A -t name:80 -s rr\n", 1),
    ("-A -t 10.0.0.1:80 -s\n", 1),
    ("-A -t 10.0.0.1:80 -s rr\n-a -t 10.0.0.1:80 -m -w 1\n", 2),
    ("-A -s rr\n", 1),
]


@pytest.mark.parametrize(("text", "line"), BROKEN)
def test_broken_text_is_named_with_its_line(text: str, line: int) -> None:
    with pytest.raises(ParseError) as caught:
        read_ipvs_save(text, "ipvsadm-Sn.txt")
    assert (caught.value.source, caught.value.line) == ("ipvsadm-Sn.txt", line)


def test_every_line_of_every_dump(dumps: Path) -> None:
    paths = sorted(dumps.glob("*/node-*/ipvsadm-Sn.txt"))
    assert paths
    for path in paths:
        lines = path.read_text().split("\n")
        services = read_ipvs_save(path.read_text(), path.name)
        assert len(services) == sum(line.startswith("-A ") for line in lines)
        servers = sum(len(service.servers) for service in services)
        assert servers == sum(line.startswith("-a ") for line in lines)


@given(st.lists(st.sampled_from([*SAVE.split(), "\n", "x", "-w", "[", ":"])).map(" ".join))
def test_anything_is_read_or_refused(text: str) -> None:
    try:
        services = read_ipvs_save(text, "ipvsadm-Sn.txt")
    except ParseError:
        return
    assert len(services) + sum(len(service_.servers) for service_ in services) == sum(
        bool(line.strip()) for line in text.split("\n")
    )


# --- ipvsadm -Ln ------------------------------------------------------------------------------

LISTED = """\
IP Virtual Server version 1.2.1 (size=4096)
Prot LocalAddress:Port Scheduler Flags
  -> RemoteAddress:Port           Forward Weight ActiveConn InActConn
TCP  10.96.1.1:80 lc persistent 10800
  -> 10.244.1.11:8080             Masq    0      0          17        
  -> 10.244.2.13:8080             Masq    1      3          0         
TCP  [fd00:10:96::112]:80 lc
  -> [fd00:10:244:1::11]:8080     Masq    1      5          6         
UDP  10.96.0.10:53 lc
  -> 10.244.2.54:53               Masq    1      0          2         
FWM  7 rr
  -> 10.0.0.1:0                   Masq    1      1          2         
"""  # noqa: W291 - as the kernel has it
SAVED_WITH_COUNTS = """\
-A -t 10.96.1.1:80 -s lc -p 10800
-a -t 10.96.1.1:80 -r 10.244.1.11:8080 -m -w 0
-a -t 10.96.1.1:80 -r 10.244.2.13:8080 -m -w 1
-a -t 10.96.1.1:80 -r 10.244.2.14:8080 -m -w 1
-A -u 10.96.0.10:53 -s lc
-a -u 10.96.0.10:53 -r 10.244.2.54:53 -m -w 1
-A -t [fd00:10:96::112]:80 -s lc
-a -t [fd00:10:96::112]:80 -r [fd00:10:244:1::11]:8080 -m -w 1
-A -f 7 -s rr
-a -f 7 -r 10.0.0.1:0 -m -w 1
"""


def test_each_server_has_its_connections() -> None:
    actual = with_connection_counts(read_ipvs_save(SAVED_WITH_COUNTS, "ipvsadm-Sn.txt"), LISTED)
    counts = {
        server.address: (server.active, server.inactive)
        for service in actual
        for server in service.servers
    }
    assert counts == {
        "10.244.1.11": (0, 17),
        "10.244.2.13": (3, 0),
        "10.244.2.14": (None, None),  # it came between the two looks
        "10.244.2.54": (0, 2),
        "fd00:10:244:1::11": (5, 6),
        "10.0.0.1": (1, 2),
    }


def test_without_a_list_there_are_no_counts() -> None:
    services = read_ipvs_save(SAVED_WITH_COUNTS, "ipvsadm-Sn.txt")
    assert with_connection_counts(services, "") == services


@given(st.text())
def test_any_list_is_passed_over(text: str) -> None:
    server = RealServer(address="10.0.0.1", port=80)
    service = VirtualService(
        protocol="tcp", address="10.0.0.9", port=80, scheduler="rr", servers=(server,)
    )
    assert with_connection_counts((service,), f"TCP  10.0.0.9:80 rr\n  -> {text}\n{text}") == (
        service,
    )


# --- ipvsadm -Ln alone --------------------------------------------------------------------------

LIST = """\
IP Virtual Server version 1.2.1 (size=4096)
Prot LocalAddress:Port Scheduler Flags
  -> RemoteAddress:Port           Forward Weight ActiveConn InActConn
TCP  10.96.1.1:80 rr persistent 10800
  -> 10.244.1.11:8080             Masq    0      0          17
  -> 10.244.2.13:8080             Route   3      3          0
TCP  [fd00:10:96::112]:80 sh (sh-fallback,sh-port) persistent 300 mask 64
  -> [fd00:10:244:1::11]:8080     Tunnel  1      5          6
UDP  10.96.0.10:53 lc ops
FWM  7 IPv6 wlc
  -> [fd00::1]:0                  Masq    1      1          2
"""


def test_services_of_a_list() -> None:
    assert read_ipvs_list(LIST, "ipvsadm-Ln.txt") == (
        VirtualService(
            protocol="tcp",
            address="10.96.1.1",
            port=80,
            scheduler="rr",
            persistent=10800,
            servers=(
                RealServer(address="10.244.1.11", port=8080, weight=0, active=0, inactive=17),
                RealServer(
                    address="10.244.2.13",
                    port=8080,
                    method="route",
                    weight=3,
                    active=3,
                    inactive=0,
                ),
            ),
        ),
        VirtualService(
            protocol="tcp",
            address="fd00:10:96::112",
            port=80,
            scheduler="sh",
            family="ip6",
            persistent=300,
            netmask="64",
            flags=("sh-fallback", "sh-port"),
            servers=(
                RealServer(
                    address="fd00:10:244:1::11",
                    port=8080,
                    method="tunnel",
                    active=5,
                    inactive=6,
                ),
            ),
        ),
        VirtualService(
            protocol="udp", address="10.96.0.10", port=53, scheduler="lc", flags=("ops",)
        ),
        VirtualService(
            protocol="fwmark",
            address="",
            port=0,
            scheduler="wlc",
            fwmark=7,
            family="ip6",
            servers=(RealServer(address="fd00::1", port=0, active=1, inactive=2),),
        ),
    )


STATS = """\
IP Virtual Server version 1.2.1 (size=4096)
Prot LocalAddress:Port               Conns   InPkts  OutPkts  InBytes OutBytes
  -> RemoteAddress:Port
TCP  172.30.0.11:30080                   1        2        0      120        0
  -> 10.244.1.11:8080                    0        0        0        0        0
  -> 10.244.2.11:8080                    1        2        0      120        0
"""
PERSISTENT = """\
Prot LocalAddress:Port            Weight    PersistConn ActiveConn InActConn
  -> RemoteAddress:Port
TCP  10.96.1.3:80 rr persistent 10800
  -> 10.244.1.11:8080             4         0           1          0
"""


def test_a_list_of_statistics_has_servers_without_weights() -> None:
    (service,) = read_ipvs_list(STATS, "x")
    assert (service.address, service.port, service.scheduler) == ("172.30.0.11", 30080, "")
    assert [(server.address, server.weight, server.active) for server in service.servers] == [
        ("10.244.1.11", 1, None),
        ("10.244.2.11", 1, None),
    ]


def test_a_list_of_persistent_connections() -> None:
    (service,) = read_ipvs_list(PERSISTENT, "x")
    assert (service.scheduler, service.persistent) == ("rr", 10800)
    assert [server.weight for server in service.servers] == [4]


@pytest.mark.parametrize(
    "text",
    [
        "TCP  web.example:http rr\n",
        "TCP  10.96.0.1:443 rr persistent\n",
        "  -> 10.244.1.1:80 Masq 1 0 0\n",
        "GRE  10.96.0.1:443 rr\n",
        "TCP  10.96.0.1:443 rr\n  -> 10.244.1.1:80 Masq x 0 0\n",
    ],
)
def test_a_line_of_another_form_is_refused(text: str) -> None:
    with pytest.raises(ParseError, match="is no line of ipvsadm -Ln"):
        read_ipvs_list(text, "x")


def test_real_lists_have_the_services_of_the_saves(dumps: Path) -> None:
    """But for servers that came or went between the two."""
    checked = 0
    for listed in sorted(dumps.glob("ipvs-*/node-*/ipvsadm-Ln*.txt")):
        if listed.name == "ipvsadm-Lnc.txt":
            continue
        save = read_ipvs_save((listed.parent / "ipvsadm-Sn.txt").read_text(), "save")
        services = read_ipvs_list(listed.read_text(), listed.name)
        with_scheduler = "stats" not in listed.name
        shown = {(s.protocol, s.address, s.port): s for s in services}
        for service in save:
            actual = shown[service.protocol, service.address, service.port]
            if with_scheduler:
                assert (actual.scheduler, actual.persistent) == (
                    service.scheduler,
                    service.persistent,
                )
            assert {s.address for s in actual.servers} == {s.address for s in service.servers}
        checked += 1
    assert checked >= 6


def test_which_form_it_is() -> None:
    assert looks_like_save(SAVE)
    assert not looks_like_list(SAVE)
    for text in (LIST, STATS, "TCP  10.96.0.1:443 rr\n  -> 10.0.0.1:6443 Masq 1 0 0\n"):
        assert looks_like_list(text)
        assert not looks_like_save(text)
    assert not looks_like_save("-A KUBE-SERVICES -d 10.96.0.1/32 -j ACCEPT\n")
