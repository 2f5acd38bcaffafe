"""The exec stream: a WebSocket to the API server that carries a program's stdin, stdout and stderr.

In: the URL and who we are. Out: frames, each with the number of its stream; and what we write.

Each message begins with the number of its stream: 0 stdin, 1 stdout, 2 stderr, 3 the API's own
word on how it went (a Status). In protocol v5 a message ``255, N`` closes stream N, so the program
can be told that its input ends while its last words are still read; in v4 only the whole connection
can be closed (apimachinery, pkg/util/remotecommand/constants.go). The library's own client for this
sends no impersonation headers, has no timeout for connecting, and copies all that was received for
each frame; its ways of TLS and proxies are used.

One thread reads while others write, and a TLS connection is not made for that (OpenSSL,
SSL_read(3)): so a reader waits for the socket and not in it, and then takes turns.
"""

from __future__ import annotations

import select
import socket
import ssl
import threading
from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import Any

import certifi
import msgspec
import websocket
from kubernetes.stream.ws_client import get_websocket_url, websocket_proxycare

from kptrace.model.errors import ClusterUnreachableError

STDIN, STDOUT, STDERR, STATUS, CLOSE = 0, 1, 2, 3, 255
V5, V4 = "v5.channel.k8s.io", "v4.channel.k8s.io"
_PIECE = 1 << 15  # the API server's own buffers are not larger
_GONE = (OSError, ValueError, AttributeError, websocket.WebSocketException)  # also: closed by us


class ExecStream:
    def __init__(
        self,
        configuration: Any,  # noqa: ANN401
        url: str,
        headers: Sequence[tuple[str, str]],
        seconds: float,
    ) -> None:
        """Raises NoCluster; ``refused`` tells that the server was there and did not want to."""
        self.refused: tuple[int, bytes] | None = None
        self._turn = threading.Lock()
        self._socket = websocket.WebSocket(
            sslopt=_tls(configuration), skip_utf8_validation=True, enable_multithread=True
        )
        self._socket.settimeout(seconds)
        options: dict[str, Any] = {
            "header": [f"{name}: {text}" for name, text in headers],
            "subprotocols": [V5, V4],
            "redirect_limit": 0,  # a redirect would hand our credentials to another server
        }
        address = get_websocket_url(url)
        if configuration.proxy or configuration.proxy_headers:
            options = websocket_proxycare(options, configuration, address)
        try:
            self._socket.connect(address, **options)  # type: ignore[no-untyped-call]
        except websocket.WebSocketBadStatusException as error:
            body = error.resp_body or b""
            self.refused = (error.status_code, body if isinstance(body, bytes) else body.encode())
        except (OSError, ssl.SSLError, websocket.WebSocketException) as error:
            raise ClusterUnreachableError(f"gave no exec stream: {error}") from None
        else:
            self._socket.settimeout(None)

    def write(self, data: bytes) -> None:
        """OSError: it is gone."""
        for at in range(0, len(data), _PIECE):
            self._send(bytes([STDIN]) + data[at : at + _PIECE])

    def end(self) -> None:
        """No more input; what the program still says can be read on."""
        with suppress(*_GONE):
            if self._socket.subprotocol == V5:
                self._send(bytes([CLOSE, STDIN]))
            else:
                with self._turn:
                    self._socket.send_close()

    def frames(self) -> Iterator[tuple[int, bytes]]:
        """Until the other side closes it, or it is cut."""
        while self.refused is None:
            try:
                self._await()
                with self._turn:
                    code, data = self._socket.recv_data()
            except _GONE:
                return
            if code == websocket.ABNF.OPCODE_CLOSE:
                return
            if data and data[0] != CLOSE:
                yield data[0], data[1:]

    def close(self) -> None:
        """From any thread: who reads the frames sees their end."""
        with suppress(*_GONE):
            self._under.shutdown(socket.SHUT_RDWR)

    def _await(self) -> None:
        under = self._under
        if isinstance(under, ssl.SSLSocket) and under.pending():
            return
        poll = select.poll()
        poll.register(under, select.POLLIN)
        poll.poll()

    @property
    def _under(self) -> socket.socket:
        if self._socket.sock is None:
            raise ValueError("it is closed")
        return self._socket.sock

    def _send(self, message: bytes) -> None:
        try:
            with self._turn:
                self._socket.send_binary(message)
        except _GONE as error:
            raise BrokenPipeError(str(error)) from None


class _Cause(msgspec.Struct, frozen=True):
    reason: str = ""
    message: str = ""


class _Details(msgspec.Struct, frozen=True):
    causes: tuple[_Cause, ...] = ()


class ExecStatus(msgspec.Struct, frozen=True):
    """How the program ended, as the API tells it at last."""

    status: str = ""
    message: str = ""
    reason: str = ""
    details: _Details = _Details()

    @property
    def exit_code(self) -> int | None:
        """None: it never ran, or ended otherwise."""
        if self.status == "Success":
            return 0
        codes = (cause.message for cause in self.details.causes if cause.reason == "ExitCode")
        return next((int(code) for code in codes if code.isdecimal()), None)


def ending(text: bytes) -> ExecStatus:
    try:
        return msgspec.json.decode(text, type=ExecStatus)
    except (msgspec.DecodeError, UnicodeError):
        return ExecStatus(status="Failure", message=text.decode(errors="replace").strip())


def _tls(configuration: Any) -> dict[str, Any]:  # noqa: ANN401
    """As the library has it (stream/ws_client.py)."""
    options: dict[str, Any] = {"cert_reqs": ssl.CERT_NONE, "check_hostname": False}
    if configuration.verify_ssl:
        options = {
            "cert_reqs": ssl.CERT_REQUIRED,
            "ca_certs": configuration.ssl_ca_cert or certifi.where(),
        }
    named = {
        "certfile": configuration.cert_file,
        "keyfile": configuration.key_file,
        "server_hostname": configuration.tls_server_name,
    }
    return {**options, **{name: value for name, value in named.items() if value}}
