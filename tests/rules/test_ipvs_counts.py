"""/proc/net/ip_vs as Linux 6.1 printed it, and what a person reads in it."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from kptrace.rules.ipvs import RealServer, VirtualService, read_ipvs
from kptrace.rules.ipvs_counts import counted

TOLD = """\
IP Virtual Server version 1.2.1 (size=4096)
Prot LocalAddress:Port Scheduler Flags
  -> RemoteAddress:Port Forward Weight ActiveConn InActConn
TCP  0A600101:0050 lc persistent 1080000 FFFFFFFF
  -> 0AF4020D:1F90      Masq    1      3          0         
  -> 0AF4010B:1F90      Masq    0      0          17        
UDP  0A60000A:0035 lc  
  -> 0AF40236:0035      Masq    1      0          2         
TCP  [fd00:0010:0096:0000:0000:0000:0000:0112]:0050 lc 
  -> [fd00:0010:0244:0001:0000:0000:0000:0011]:1F90      Masq    1      5          6         
FWM  00000007 rr  
  -> 0A000001:0000      Masq    1      1          2         
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
    assert counted((service,), f"TCP  0A000009:0050 rr\n  -> {text}\n{text}") == (service,)
