"""An API server small enough to read: objects by path, selectors, refusals; it keeps what it was
asked. What a real one does is tried in tests/cluster.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

import pytest

from kptrace.kube.client.client import Client
from kptrace.kube.client.client_config import ClientConfig

SLICES = "/apis/discovery.k8s.io/v1/namespaces/shop/endpointslices"
MYSELF = "/apis/authentication.k8s.io/v1/selfsubjectreviews"
REVIEWS = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"


class Api:
    def __init__(self) -> None:
        self.objects: dict[str, dict[str, Any]] = {}
        self.refusals: dict[tuple[str, str], tuple[int, str, str]] = {}
        self.allowed: Callable[[dict[str, str]], bool] = lambda attributes: True
        self.asked: list[tuple[str, str, dict[str, str]]] = []
        self.headers: list[dict[str, str]] = []
        self.url = ""

    def put(self, path: str, spec: dict[str, Any] | None = None, **more: Any) -> dict[str, Any]:
        """``/api/v1/namespaces/shop/services/web``; ``labels`` and others go where they belong."""
        parts = path.split("/")
        namespace = parts[parts.index("namespaces") + 1] if "namespaces" in parts[:-2] else ""
        metadata = {"name": parts[-1], "uid": f"uid-of-{parts[-1]}", "managedFields": [{}]}
        metadata |= {"namespace": namespace} if namespace else {}
        metadata |= {"labels": more.pop("labels")} if "labels" in more else {}
        made = {"metadata": metadata, **({"spec": spec} if spec is not None else {}), **more}
        self.objects[path] = made
        return made

    def refuse(self, method: str, path: str, code: int, message: str, reason: str = "") -> None:
        self.refusals[method, path] = (code, message, reason)

    def paths(self, method: str = "GET") -> list[str]:
        return [path for how, path, _ in self.asked if how == method]

    # --- as a server --------------------------------------------------------------------------

    def answer(self, method: str, path: str, query: dict[str, str], body: Any) -> tuple[int, Any]:
        if (method, path) in self.refusals:
            code, message, reason = self.refusals[method, path]
            return code, {"kind": "Status", "message": message, "reason": reason}
        if path == REVIEWS:
            allowed = self.allowed(body["spec"]["resourceAttributes"])
            return 201, {"status": {"allowed": allowed}}
        if path == MYSELF:
            return 201, {"status": {"userInfo": {"username": "jane"}}}
        if method == "POST":
            self.objects[f"{path}/{body['metadata']['name']}"] = body
            return 201, body
        if method == "DELETE" and path in self.objects:
            return 200, self.objects.pop(path)
        if path in self.objects:
            return 200, self.objects[path]
        if path.rpartition("/")[2] in ("services", "pods", "nodes", "endpointslices", "namespaces"):
            return 200, {"kind": "List", "items": list(self._listed(path, query)) or None}
        return 404, {"kind": "Status", "message": "not found", "reason": "NotFound"}

    def _listed(self, path: str, query: dict[str, str]) -> Iterator[dict[str, Any]]:
        kind = path.rpartition("/")[2]
        for own, one in self.objects.items():
            inside = own.rpartition("/")[0] == path
            anywhere = "/namespaces/" not in path and own.split("/")[-2] == kind
            if (inside or anywhere) and _selected(one, query):
                yield one


def _selected(one: dict[str, Any], query: dict[str, str]) -> bool:
    labels = one["metadata"].get("labels", {})
    for pair in filter(None, query.get("labelSelector", "").split(",")):
        key, _, value = pair.partition("=")
        if key not in labels or (value and labels[key] != value):
            return False
    for pair in filter(None, query.get("fieldSelector", "").split(",")):
        names, _, value = pair.partition("=")
        found: Any = one
        for name in names.removesuffix("!").split("."):
            found = found.get(name, {})
        if (found == value) is names.endswith("!"):
            return False
    return True


@pytest.fixture
def api() -> Iterator[Api]:
    api = Api()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _serve(self) -> None:
            parts = urlsplit(self.path)
            asked = unquote(parts.path)
            query = dict(parse_qsl(parts.query))
            length = int(self.headers.get("Content-Length") or 0)
            body = json.loads(self.rfile.read(length) or "null")
            api.asked.append((self.command, asked, query))
            api.headers.append(dict(self.headers.items()))
            code, answer = api.answer(self.command, asked, query, body)
            data = json.dumps(answer).encode()
            self.send_response(code)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        do_GET = do_POST = do_DELETE = do_PATCH = _serve

        def log_message(self, format: str, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    api.url = f"http://127.0.0.1:{server.server_address[1]}"
    yield api
    server.shutdown()
    server.server_close()


@pytest.fixture
def client(api: Api, monkeypatch: pytest.MonkeyPatch) -> Client:
    for name in ("http_proxy", "HTTP_PROXY", "KUBECONFIG"):
        monkeypatch.delenv(name, raising=False)
    return Client(ClientConfig(server=api.url, namespace="shop", kubeconfig="/dev/null"))
