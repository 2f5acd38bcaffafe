"""What ``ss -Hlntu`` prints, of iproute2 6.1 and 4.20."""

from __future__ import annotations

from kptrace.simulate.snapshot.listening_sockets import read_listeners

TEXT = """\
udp UNCONN 0      0      127.0.0.53%lo:53   0.0.0.0:*
udp UNCONN 0      0            0.0.0.0:68   0.0.0.0:*
tcp LISTEN 0      128                *:8080       *:*
tcp LISTEN 0      5          127.0.0.1:9999 0.0.0.0:*
tcp LISTEN 0      128             [::]:22      [::]:*
tcp LISTEN 0      128            [::1]:631     [::]:*
tcp LISTEN 0      128                *:8080       *:*
what is this?
tcp LISTEN 0      128     not-an-address:1     *:*
"""


def test_each_once_by_port() -> None:
    assert [str(one) for one in read_listeners(TEXT)] == [
        "[::]:22/tcp",
        "127.0.0.53:53/udp",
        "0.0.0.0:68/udp",
        "[::1]:631/tcp",
        "*:8080/tcp",
        "127.0.0.1:9999/tcp",
    ]


def test_who_takes_what() -> None:
    found = {str(one): one for one in read_listeners(TEXT)}
    assert found["*:8080/tcp"].takes("tcp", "10.244.1.31", 8080)
    assert found["*:8080/tcp"].takes("tcp", "fd00::1", 8080)
    assert not found["*:8080/tcp"].takes("udp", "10.244.1.31", 8080)
    assert not found["[::]:22/tcp"].takes("tcp", "10.244.1.31", 22)
    assert found["0.0.0.0:68/udp"].takes("udp", "10.244.1.31", 68)
    assert not found["127.0.0.1:9999/tcp"].takes("tcp", "10.244.1.31", 9999)


def test_who_is_alone() -> None:
    loopback = {str(one) for one in read_listeners(TEXT) if one.loopback}
    assert loopback == {"127.0.0.53:53/udp", "[::1]:631/tcp", "127.0.0.1:9999/tcp"}
