"""An API server that wants our credentials, our memory or our time."""

from __future__ import annotations

import gzip
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from kptrace.kube.client import client as client_module
from kptrace.kube.client.client import Client
from kptrace.kube.client.client_config import ClientConfig
from kptrace.model.errors import ClusterUnreachableError, ObservationError

TOKEN = "secret-token-of-the-user"
Answer = Callable[[socket.socket], None]


class Server:
    """A TCP server that keeps the head of each request and answers with raw bytes."""

    def __init__(self, answer: Answer) -> None:
        self._answer, self.heads = answer, list[bytes]()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._one, args=(connection,), daemon=True).start()

    def _one(self, connection: socket.socket) -> None:
        with connection:
            head = b""
            while b"\r\n\r\n" not in head:
                part = connection.recv(65536)
                if not part:
                    return
                head += part
            self.heads.append(head)
            try:
                self._answer(connection)
            except OSError:
                return  # the client has closed it, as it should

    def close(self) -> None:
        self._listener.close()


@contextmanager
def server(answer: Answer) -> Iterator[Server]:
    running = Server(answer)
    try:
        yield running
    finally:
        running.close()


def raw(text: bytes) -> Answer:
    return lambda connection: connection.sendall(text)


def redirect(code: int, location: str) -> Answer:
    head = f"HTTP/1.1 {code} Moved\r\nLocation: {location}\r\nContent-Length: 0\r\n\r\n"
    return raw(head.encode())


def client(port: int, seconds: float = 2.0) -> Client:
    return Client(
        ClientConfig(
            server=f"http://127.0.0.1:{port}",
            token=TOKEN,
            timeout=seconds,
            kubeconfig="/dev/null",
        )
    )


OK = raw(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}")


@pytest.mark.parametrize("code", [301, 302, 303, 307, 308])
def test_a_redirect_of_a_request_gets_no_credentials(code: int) -> None:
    with server(OK) as thief, server(redirect(code, f"http://127.0.0.1:{thief.port}/x")) as api:
        with pytest.raises(ClusterUnreachableError, match="does not follow"):
            client(api.port).get("/api/v1/pods")
        assert TOKEN.encode() in api.heads[0], "the server that the user named gets them"
        assert thief.heads == []


@pytest.mark.parametrize("code", [301, 302, 303, 307, 308])
@pytest.mark.parametrize("scheme", ["ws", "http"])
def test_a_redirect_of_an_exec_stream_gets_no_credentials(code: int, scheme: str) -> None:
    with (
        server(OK) as thief,
        server(redirect(code, f"{scheme}://127.0.0.1:{thief.port}/x")) as api,
    ):
        try:
            stream = client(api.port).exec("/api/v1/namespaces/shop/pods/a", "agent", ["true"])
        except ObservationError:
            pass
        else:
            assert stream.refused is not None
        assert TOKEN.encode() in api.heads[0]
        assert thief.heads == []


def test_a_body_that_never_ends_is_bounded_in_size(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client_module, "MAX_BODY", 4 << 20)

    def endless(connection: socket.socket) -> None:
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n")
        while True:
            connection.sendall(bytes(1 << 16))

    with server(endless) as api, pytest.raises(ClusterUnreachableError, match="more than 4 MiB"):
        client(api.port, 30).get("/api/v1/pods")


def test_a_small_body_that_unpacks_to_much_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client_module, "MAX_BODY", 4 << 20)
    packed = gzip.compress(bytes(64 << 20))
    head = f"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: {len(packed)}\r\n\r\n"
    bomb = raw(head.encode() + packed)
    with server(bomb) as api, pytest.raises(ClusterUnreachableError, match="more than 4 MiB"):
        client(api.port, 30).get("/api/v1/pods")


def test_a_body_that_trickles_ends_with_the_requests_time() -> None:
    """Each read has data in time; the request as a whole has not."""
    ended = threading.Event()

    def trickle(connection: socket.socket) -> None:
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n")
        try:
            while True:
                connection.sendall(b" ")
                time.sleep(0.05)
        finally:
            ended.set()

    with server(trickle) as api:
        with pytest.raises(ClusterUnreachableError, match="did not answer"):
            client(api.port, 0.5).get("/api/v1/pods")
        assert ended.wait(30), "the connection is closed"
