"""Datagrams come whole and in their order, however many; a socket pair stands for netlink."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator

import pytest

from kptrace.agent.netlink.recvmmsg import MultiReceiver


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    here, there = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    with here, there:
        here.settimeout(5)
        yield here, there


def test_more_is_received_by_each_call(pair: tuple[socket.socket, socket.socket]) -> None:
    here, there = pair
    sent = [bytes([n]) * (n + 1) for n in range(8)]
    for data in sent:
        there.send(data)
    intake = MultiReceiver()
    assert [list(intake.receive(here)) for _ in range(4)] == [
        sent[:1],
        sent[1:3],
        sent[3:7],
        sent[7:],
    ]


def test_room_is_used_again_and_what_was_told_stays(
    pair: tuple[socket.socket, socket.socket],
) -> None:
    here, there = pair
    intake, told = MultiReceiver(), list[bytes]()
    for data in (b"a long one", b"short", b"x" * (1 << 15)):
        there.send(data)
        told += intake.receive(here)
    assert told == [b"a long one", b"short", b"x" * (1 << 15)]


def test_it_waits_for_the_first(pair: tuple[socket.socket, socket.socket]) -> None:
    here, there = pair
    late = threading.Timer(0.05, lambda: there.send(b"late"))
    late.start()
    assert list(MultiReceiver().receive(here)) == [b"late"]
    late.join()


def test_it_waits_no_longer_than_the_socket(pair: tuple[socket.socket, socket.socket]) -> None:
    here, _ = pair
    here.settimeout(0.01)
    with pytest.raises(TimeoutError):
        list(MultiReceiver().receive(here))


def test_what_does_not_fit_is_an_error_and_not_cut(
    pair: tuple[socket.socket, socket.socket],
) -> None:
    here, there = pair
    there.send(b"x" * ((1 << 15) + 1))
    with pytest.raises(OSError, match="longer than its room"):
        list(MultiReceiver().receive(here))


def test_a_closed_socket_is_an_error() -> None:
    here, there = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    there.close()
    here.close()
    with pytest.raises(OSError, match="Bad file descriptor"):
        list(MultiReceiver().receive(here))
