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
    assert len(services) + sum(len(each.servers) for each in services) == sum(
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
    found = with_connection_counts(read_ipvs_save(SAVED_WITH_COUNTS, "ipvsadm-Sn.txt"), LISTED)
    counts = {
        server.address: (server.active, server.inactive)
        for service in found
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
