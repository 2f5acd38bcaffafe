"""The credentials: kubectl's flags and files in, a configuration of the Kubernetes client out.

The library reads kubeconfig files, exec credential plugins, certificates, ``proxy-url`` and
``tls-server-name``. What it lacks is added here, as kubectl has it (client-go,
tools/clientcmd/client_config.go): of several files the first that names a current context decides,
flags override single fields, a user may act as another (``--as``, or ``as`` in the file), and
without any file a pod's service account is used.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml
from kubernetes.client import Configuration
from kubernetes.config.config_exception import ConfigException
from kubernetes.config.incluster_config import (
    SERVICE_CERT_FILENAME,
    SERVICE_HOST_ENV_NAME,
    SERVICE_TOKEN_FILENAME,
    InClusterConfigLoader,
)
from kubernetes.config.kube_config import ConfigNode, KubeConfigLoader, KubeConfigMerger

from kptrace.kube.client.client_config import ClientConfig
from kptrace.model import Value
from kptrace.model.errors import ClusterUnreachableError, NotFoundError
from kptrace.model.suggestions import suggestion

DEFAULT_FILE = "~/.kube/config"
NAMESPACE_FILE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")
_OURS = "kptrace: as the flags say"  # no file names a context like that
_BY_TOKEN = ("exec", "auth-provider", "tokenFile", "username", "password")


class ClientCredentials(Value):
    """configuration: the library's; headers: of every request; namespace: the context's"""

    configuration: Any
    headers: dict[str, str]
    groups: tuple[str, ...] = ()
    namespace: str = "default"


def access(connection: ClientConfig, environ: Mapping[str, str] = os.environ) -> ClientCredentials:
    configuration = Configuration()
    merged = _merged(connection, environ)
    if merged is None and not connection.server and SERVICE_HOST_ENV_NAME in environ:
        user: Mapping[str, Any] = {}
        namespace = _of_the_pod(configuration)
    else:
        user, namespace = _of_the_files(configuration, merged or _empty(), connection)
    _override(configuration, connection)
    groups = connection.as_groups or tuple(user.get("as-groups") or ())
    headers = {
        "Impersonate-User": connection.as_user or user.get("as", ""),
        "Impersonate-Uid": connection.as_uid or user.get("as-uid", ""),
    }
    return ClientCredentials(
        configuration=configuration,
        headers={name: text for name, text in headers.items() if text},
        groups=groups,
        namespace=connection.namespace or namespace or "default",
    )


# --- files ------------------------------------------------------------------------------------


def _merged(connection: ClientConfig, environ: Mapping[str, str]) -> ConfigNode | None:
    """All files as one; None: there is none."""
    if connection.kubeconfig and not Path(connection.kubeconfig).expanduser().exists():
        raise ClusterUnreachableError(f"no such kubeconfig: {connection.kubeconfig}")
    named = connection.kubeconfig or environ.get("KUBECONFIG") or DEFAULT_FILE
    paths = os.pathsep.join(filter(_is_filled, named.split(os.pathsep)))
    try:
        merger = KubeConfigMerger(paths)
    except (OSError, yaml.YAMLError, ConfigException, AttributeError, TypeError) as error:
        raise ClusterUnreachableError(
            f"{paths}: not a kubeconfig: {' '.join(str(error).split())}",
            "`kubectl config view` shows what kubectl makes of it",
        ) from None
    if merger.config is None:
        return None
    files: Iterable[Mapping[str, Any]] = merger.config_files.values()
    current = (file.get("current-context") for file in files)
    merger.config.value["current-context"] = next(filter(None, current), "")
    return merger.config


def _is_filled(name: str) -> bool:
    """kubectl takes an empty file for none, so ``KUBECONFIG=/dev/null`` means: no file."""
    try:
        return bool(name) and Path(name).expanduser().stat().st_size > 0
    except OSError:
        return False


def _empty() -> ConfigNode:
    lists: dict[str, list[Any]] = {"contexts": [], "clusters": [], "users": []}
    return ConfigNode("flags", {**lists, "current-context": ""}, "")


def _of_the_files(
    configuration: Any,  # noqa: ANN401
    merged: ConfigNode,
    connection: ClientConfig,
) -> tuple[Mapping[str, Any], str]:
    """The user's entry, and the context's namespace."""
    context = _context(merged, connection)
    cluster = _entry(merged, "clusters", context.get("cluster", ""))
    user = _entry(merged, "users", context.get("user", ""))
    if connection.token:
        rest = {key: value for key, value in user.value.items() if key not in _BY_TOKEN}
        user = ConfigNode("user", {**rest, "token": connection.token}, user.path)
    if connection.server:
        cluster = ConfigNode("cluster", {**cluster.value, "server": connection.server}, "")
    if not cluster.value.get("server"):
        raise ClusterUnreachableError(
            "no cluster: there is no kubeconfig with a current context",
            "give --kubeconfig FILE or --context NAME, or set KUBECONFIG; --lab traces in the lab",
        )
    config = ConfigNode(
        "kubeconfig",
        {
            "current-context": _OURS,
            "contexts": [{"name": _OURS, "context": {"cluster": _OURS, "user": _OURS}}],
            "clusters": [_named("cluster", cluster)],
            "users": [_named("user", user)],
        },
    )
    with _complaints() as said:
        try:
            loader = KubeConfigLoader(config, config_base_path=None)
            loader.load_and_set(configuration)
        except (OSError, ConfigException, ValueError) as error:
            raise ClusterUnreachableError(f"the kubeconfig cannot be used: {error}") from None
    is_given = any(loader.__dict__.get(name) for name in ("token", "cert_file"))
    if "exec" in user.value and not is_given:
        command = user.value["exec"].get("command", "")
        raise ClusterUnreachableError(
            f"the credential plugin {command} gave no credentials"
            + "".join(f": {line}" for line in said[:1]),
            "try the same with `kubectl get ns`; log in anew if it asks for it",
        )
    return user.value, str(context.get("namespace") or "")


def _context(merged: ConfigNode, connection: ClientConfig) -> dict[str, Any]:
    name = connection.context or merged.value["current-context"]
    known = {entry["name"]: entry for entry in merged.value["contexts"]}
    if name and name not in known:
        raise NotFoundError(
            f"no context {name} in the kubeconfig", suggestion(name, known) or "it has none"
        )
    context = (known[name]["context"] if name else None) or {}
    context = dict(context.value if isinstance(context, ConfigNode) else context)
    for kind, requested in (("cluster", connection.cluster), ("user", connection.user)):
        if requested:
            entries = [entry["name"] for entry in merged.value[f"{kind}s"]]
            if requested not in entries:
                raise NotFoundError(
                    f"no {kind} {requested} in the kubeconfig",
                    suggestion(requested, entries) or "it has none",
                )
            context[kind] = requested
    return context


def _entry(merged: ConfigNode, kind: str, name: str) -> ConfigNode:
    """An entry with the path of its file, which relative file names start from."""
    for entry in merged.value[kind]:
        if entry["name"] == name:
            inner = entry[kind.removesuffix("s")]
            value = inner.value if isinstance(inner, ConfigNode) else inner
            return ConfigNode(name, dict(value or {}), getattr(entry, "path", ""))
    return ConfigNode(name, {}, "")


def _named(kind: str, entry: ConfigNode) -> ConfigNode:
    return ConfigNode(_OURS, {"name": _OURS, kind: entry.value}, entry.path)


# --- a pod ------------------------------------------------------------------------------------


def _of_the_pod(configuration: Any) -> str:  # noqa: ANN401
    try:
        InClusterConfigLoader(
            token_filename=SERVICE_TOKEN_FILENAME, cert_filename=SERVICE_CERT_FILENAME
        ).load_and_set(configuration)
    except (OSError, ConfigException) as error:
        raise ClusterUnreachableError(
            f"this pod has no service account to ask the API with: {error}",
            "give --kubeconfig FILE, or let the pod have a token (automountServiceAccountToken)",
        ) from None
    try:
        return NAMESPACE_FILE.read_text().strip()
    except OSError:
        return ""


# --- flags ------------------------------------------------------------------------------------


def _override(configuration: Any, connection: ClientConfig) -> None:  # noqa: ANN401
    # The library asks three times again, silently; what cannot be reached is said at once.
    configuration.retries = False
    if connection.certificate_authority:
        configuration.ssl_ca_cert = connection.certificate_authority
    if connection.insecure:
        configuration.verify_ssl, configuration.ssl_ca_cert = False, None
    if connection.tls_server_name:
        configuration.tls_server_name = connection.tls_server_name


@contextmanager
def _complaints() -> Iterator[list[str]]:
    """The library logs why a credential plugin failed, and goes on without credentials."""
    said: list[str] = []

    class Keep(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            said.append(" ".join(record.getMessage().split()))

    root = logging.getLogger()
    keep, before = Keep(), root.handlers[:]
    root.handlers[:] = [keep]
    try:
        yield said
    finally:
        root.handlers[:] = before
