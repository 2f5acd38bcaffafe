"""The API server: paths and parameters in, JSON texts out.

The Kubernetes client library gives credentials, TLS, proxies and the connection pool; its models
are not imported, because they cost three times as much as all the rest together. An answer that is
no success is a ``ApiError`` with the server's own words; a server that cannot be reached is a
NoCluster.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import quote, urlencode

import msgspec
import urllib3
from kubernetes.client.rest import RESTClientObject

from kptrace.kube.client.client_config import ClientConfig
from kptrace.kube.client.exec_stream import ExecStream
from kptrace.kube.client.kubeconfig import ClientCredentials, access
from kptrace.model.errors import ClusterUnreachableError, ObservationError

SECONDS = 15.0  # for one request, where no --request-timeout is given
CHANGE = "application/strategic-merge-patch+json"
MAX_BODY = 512 << 20  # of one answer, unpacked: the largest list of a large cluster is a tenth
_CHUNK = 1 << 16
NAMES_ONLY = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1"


class Status(msgspec.Struct, frozen=True):
    """The API's word on a request that failed."""

    message: str = ""
    reason: str = ""


class ApiError(ObservationError):
    """code: of HTTP; reason: as in the API's Status (``NotFound``, ``Forbidden``)."""

    def __init__(self, code: int, status: Status) -> None:
        super().__init__(status.message or f"the API server answered with {code}")
        self.code, self.reason = code, status.reason


class Client:
    def __init__(self, connection: ClientConfig) -> None:
        self._access: ClientCredentials = access(connection)
        self._seconds = connection.timeout or SECONDS
        self._signing = threading.Lock()
        if not self._access.configuration.verify_ssl:
            urllib3.disable_warnings(urllib3.exceptions.InsecureRequestWarning)
        try:
            self._rest = RESTClientObject(self._access.configuration)
        except (OSError, ValueError) as error:
            raise ClusterUnreachableError(f"the kubeconfig cannot be used: {error}") from None

    @property
    def namespace(self) -> str:
        """Of the flags, else of the context."""
        return self._access.namespace

    @property
    def server(self) -> str:
        return str(self._access.configuration.host)

    def get(self, path: str, *, accept: str = "application/json", **query: str) -> str:
        return self._ask("GET", path, query, None, {"Accept": accept})

    def post(self, path: str, body: object) -> str:
        return self._ask("POST", path, {}, body, {"Content-Type": "application/json"})

    def patch(self, path: str, body: object) -> str:
        return self._ask("PATCH", path, {}, body, {"Content-Type": CHANGE})

    def delete(self, path: str, **query: str) -> str:
        return self._ask("DELETE", path, query, None, {"Content-Type": "application/json"})

    def exec(self, pod: str, container: str, command: Sequence[str]) -> ExecStream:
        """``pod``: its path in the API."""
        query = [("command", word) for word in command] + [
            (name, "true") for name in ("stdin", "stdout", "stderr")
        ]
        url = f"{self.server}{pod}/exec?{urlencode([('container', container), *query])}"
        try:
            return ExecStream(self._access.configuration, url, self._headers(), self._seconds)
        except ClusterUnreachableError as error:
            raise ClusterUnreachableError(
                f"the API server {self.server} {error.message}", error.hint, error.manifest
            ) from None

    # --- inside -------------------------------------------------------------------------------

    def _headers(self) -> list[tuple[str, str]]:
        """Who we are; credentials that have expired are got anew, by one thread at a time."""
        with self._signing:
            settings = self._access.configuration.auth_settings()
        signed = [(value["key"], value["value"]) for value in settings.values()]
        groups = [("Impersonate-Group", group) for group in self._access.groups]
        return [*signed, *self._access.headers.items(), *groups]

    def _ask(
        self,
        method: str,
        path: str,
        query: Mapping[str, str],
        body: object,
        more: Mapping[str, str],
    ) -> str:
        url = f"{self.server}{path}" + (f"?{urlencode(query)}" if query else "")
        headers = urllib3.HTTPHeaderDict(more)
        for name, text in self._headers():
            headers.add(name, text)
        deadline = time.monotonic() + self._seconds
        try:
            # No redirect is followed: it would hand our credentials to another server.
            response = self._rest.pool_manager.request(
                method,
                url,
                headers=headers,
                body=None if body is None else msgspec.json.encode(body),
                timeout=urllib3.Timeout(total=self._seconds),
                redirect=False,
                retries=False,
                preload_content=False,
            )
            try:
                data = self._read(response, deadline)
            finally:
                response.release_conn()
        except (urllib3.exceptions.HTTPError, OSError) as error:
            raise self._unreachable(error) from None
        if 300 <= response.status < 400:
            raise ClusterUnreachableError(
                f"the API server {self.server} redirects to "
                f"{response.headers.get('Location', 'nowhere')[:200]!r}, which kptrace does not "
                "follow with credentials",
                "is the server's URL in the kubeconfig right? give it with --server",
            )
        if not 200 <= response.status < 300:
            raise self._refusal(response.status, data)
        return data.decode(errors="replace")

    def _read(self, response: urllib3.BaseHTTPResponse, deadline: float) -> bytes:
        """The body, unpacked: bounded in size, and in time as a whole and not a read."""
        chunks, size = [], 0
        while chunk := response.read1(_CHUNK, decode_content=True):
            chunks.append(chunk)
            size += len(chunk)
            if size > MAX_BODY:
                response.close()
                raise ClusterUnreachableError(
                    f"the API server {self.server} answers with more than {MAX_BODY >> 20} MiB"
                )
            if time.monotonic() > deadline:
                response.close()
                raise urllib3.exceptions.TimeoutError("the body did not end in time")
        return b"".join(chunks)

    def _refusal(self, code: int, data: bytes) -> ObservationError:
        try:
            status = msgspec.json.decode(data, type=Status)
        except (msgspec.DecodeError, UnicodeError):
            status = Status(message=data.decode(errors="replace").strip()[:200])
        if code == 401:
            return ClusterUnreachableError(
                f"the API server {self.server} does not accept the credentials",
                "try the same with `kubectl get ns`; log in anew if it asks for it",
            )
        return ApiError(code, status)

    def _unreachable(self, error: Exception) -> ClusterUnreachableError:
        why = {
            # the order matters: a connection that is refused counts as a timeout there
            urllib3.exceptions.NewConnectionError: "cannot be reached",
            urllib3.exceptions.TimeoutError: f"did not answer in {self._seconds:g} s",
            urllib3.exceptions.SSLError: "cannot be trusted",
            urllib3.exceptions.ProxyError: "cannot be reached through the proxy",
        }
        phrase = next((text for kind, text in why.items() if isinstance(error, kind)), "failed")
        detail = str(getattr(error, "reason", "") or error).rpartition("): ")[2]
        return ClusterUnreachableError(
            f"the API server {self.server} {phrase}: {detail}",
            "`kubectl cluster-info` asks the same server; --request-timeout gives it more time",
        )


def path(kind: str, namespace: str = "", name: str = "", *more: str) -> str:
    """``path("pods", "shop", "web-1")``; the group of a kind that is not of the core one stands
    before it: ``apis/discovery.k8s.io/v1/endpointslices``.
    """
    group, _, plural = kind.rpartition("/")
    parts = [group or "api/v1", *(("namespaces", namespace) if namespace else ()), plural]
    return "/" + "/".join([*parts, *(quote(text, safe="") for text in (name, *more) if text)])


def decoded(text: str) -> dict[str, Any]:
    document = msgspec.json.decode(text)
    return document if isinstance(document, dict) else {}


def is_rbac_denial(error: ObservationError) -> bool:
    """RBAC (or another authorizer) said no, and not an admission plugin."""
    return isinstance(error, ApiError) and error.code == 403 and " cannot " in str(error)
