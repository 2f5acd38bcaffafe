"""Lines of /proc/net/ip_vs_conn as a 6.1 kernel printed them, for services kept by client."""

from __future__ import annotations

from kptrace.rules.ipvs.ip_vs_conn import with_persistent_clients
from kptrace.rules.ipvs.ipvsadm import PersistentClient, read_ipvs_save

SERVICES = """\
-A -t 10.96.0.50:80 -s rr -p 300
-a -t 10.96.0.50:80 -r 10.244.9.9:8080 -m -w 1
-A -u 10.96.0.50:53 -s rr -p 300
-A -t [fd00::50]:80 -s rr -p 10800 -M 64
-A -t 10.96.0.51:80 -s rr
"""
TABLE = """\
Pro FromIP   FPrt ToIP     TPrt DestIP   DPrt State       Expires PEName PEData
TCP 0AFA0008 8961 0A600032 0050 0AF40909 1F90 ESTABLISHED     899
TCP 0AFA0004 0000 0A600032 0050 0AF40909 1F90 ASSURED         299
TCP 0AFA0001 0000 0A600032 0050 0AF4090A 1F90 ASSURED         298
UDP 0A600032 0000 0A600032 0035 0AF40909 1F75 NONE            299
TCP fd00:0000:0000:0000:0000:0000:0000:0000 0000 fd00:0000:0000:0000:0000:0000:0000:0050 0050 fd00:0000:0000:0000:0000:0000:0000:0009 1F90 ASSURED       10799
"""  # noqa: E501


def test_who_is_bound_to_what() -> None:
    tcp, udp, six, plain = with_persistent_clients(read_ipvs_save(SERVICES, "x"), TABLE)
    assert tcp.persistent_clients == (
        PersistentClient(client="10.250.0.4", address="10.244.9.9", port=8080, seconds=299),
        PersistentClient(client="10.250.0.1", address="10.244.9.10", port=8080, seconds=298),
    )
    assert udp.persistent_clients == (
        PersistentClient(client="10.96.0.50", address="10.244.9.9", port=8053, seconds=299),
    )
    assert plain.persistent_clients == ()
    assert tcp.client_binding("10.250.0.1") == tcp.persistent_clients[1]
    assert tcp.client_binding("10.250.0.2") is None
    assert tcp.client_binding("") is None, "a client that is not known"
    assert six.client_binding("fd00::10:0:0:1234") == six.persistent_clients[0], (
        "one of its network, by the mask"
    )
    assert six.client_binding("fd01::1") is None


def test_other_lines_are_passed_over() -> None:
    rubbish = "TCP x 0000 y z a b NONE 1\nTCP 0AFA0004 0000\nIP 0 0000 0 0 0 0 NONE 9\n"
    services = read_ipvs_save(SERVICES, "x")
    assert with_persistent_clients(services, rubbish) == services
    assert with_persistent_clients(services, "") == services
