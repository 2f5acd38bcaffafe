"""``ipvsadm -Ln`` as it printed it, and what a person reads in it."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from kptrace.rules.ipvs.connection_counts import counted
from kptrace.rules.ipvs.ipvsadm import RealServer, VirtualService, read_ipvs

TOLD = """\
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
SAVED = """\
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
    found = counted(read_ipvs(SAVED, "ipvsadm-Sn.txt"), TOLD)
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


def test_nothing_told_is_nothing_known() -> None:
    services = read_ipvs(SAVED, "ipvsadm-Sn.txt")
    assert counted(services, "") == services


@given(st.text())
def test_any_text_is_passed_over(text: str) -> None:
    server = RealServer(address="10.0.0.1", port=80)
    service = VirtualService(
        protocol="tcp", address="10.0.0.9", port=80, scheduler="rr", servers=(server,)
    )
    assert counted((service,), f"TCP  10.0.0.9:80 rr\n  -> {text}\n{text}") == (service,)
