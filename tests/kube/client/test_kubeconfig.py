"""kubeconfig files and flags, read as kubectl reads them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import yaml

from kptrace.kube.client.client_config import ClientConfig
from kptrace.kube.client.kubeconfig import access
from kptrace.model.errors import ClusterUnreachableError, NotFoundError, ObservationError

CONFIG: dict[str, Any] = {
    "apiVersion": "v1",
    "kind": "Config",
    "current-context": "dev",
    "contexts": [
        {"name": "dev", "context": {"cluster": "one", "user": "jane", "namespace": "shop"}},
        {"name": "prod", "context": {"cluster": "two", "user": "plug"}},
    ],
    "clusters": [
        {"name": "one", "cluster": {"server": "http://one:1"}},
        {"name": "two", "cluster": {"server": "http://two:2", "proxy-url": "http://proxy:3"}},
    ],
    "users": [
        {"name": "jane", "user": {"token": "of-jane"}},
        {"name": "boss", "user": {"token": "of-boss", "as": "root", "as-groups": ["wheel"]}},
        {"name": "plug", "user": {"exec": {"apiVersion": "v1", "command": "./plug"}}},
    ],
}


def _written(file: Path, **changed: Any) -> str:
    file.write_text(yaml.safe_dump({**CONFIG, **changed}))
    return str(file)


@pytest.fixture
def file(tmp_path: Path) -> str:
    return _written(tmp_path / "config")


def _token(found: Any) -> str:
    return str(found.configuration.auth_settings()["BearerToken"]["value"])


def test_the_current_context(file: str) -> None:
    found = access(ClientConfig(), {"KUBECONFIG": file})
    assert found.configuration.host == "http://one:1"
    assert found.namespace == "shop"
    assert _token(found) == "Bearer of-jane"


def test_flags_override_single_fields(file: str) -> None:
    asked = ClientConfig(
        kubeconfig=file, cluster="two", user="boss", namespace="kube-system", as_uid="9"
    )
    found = access(asked, {})
    assert (found.configuration.host, found.configuration.proxy) == (
        "http://two:2",
        "http://proxy:3",
    )
    assert _token(found) == "Bearer of-boss"
    assert found.headers == {"Impersonate-User": "root", "Impersonate-Uid": "9"}
    assert found.groups == ("wheel",)
    assert found.namespace == "kube-system"


def test_a_token_takes_the_place_of_a_plugin(file: str) -> None:
    found = access(ClientConfig(kubeconfig=file, context="prod", token="mine"), {})
    assert _token(found) == "Bearer mine"


def test_of_several_files_the_first_with_a_context_decides(file: str, tmp_path: Path) -> None:
    """client-go, tools/clientcmd/loader.go: what an earlier file sets no later one changes."""
    other = _written(tmp_path / "other", **{"current-context": "prod"})
    nothing = str(tmp_path / "missing")
    found = access(ClientConfig(), {"KUBECONFIG": os.pathsep.join((nothing, file, other))})
    assert found.configuration.host == "http://one:1"


def test_files_beside_the_kubeconfig(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("from-file")
    user = [{"name": "jane", "user": {"tokenFile": "token"}}]
    found = access(ClientConfig(kubeconfig=_written(tmp_path / "config", users=user)), {})
    assert _token(found) == "Bearer from-file"


def test_a_credential_plugin(tmp_path: Path) -> None:
    plug = tmp_path / "plug"
    answer = '{"apiVersion": "v1", "kind": "ExecCredential", "status": {"token": "fresh"}}'
    plug.write_text(f"#!/bin/sh\necho '{answer}'\n")
    plug.chmod(0o755)
    found = access(ClientConfig(kubeconfig=_written(tmp_path / "config"), context="prod"), {})
    assert _token(found) == "Bearer fresh"


def test_a_credential_plugin_that_fails_says_why(tmp_path: Path) -> None:
    plug = tmp_path / "plug"
    plug.write_text("#!/bin/sh\necho please log in >&2\nexit 1\n")
    plug.chmod(0o755)
    with pytest.raises(ClusterUnreachableError) as caught:
        access(ClientConfig(kubeconfig=_written(tmp_path / "config"), context="prod"), {})
    assert "plug gave no credentials" in str(caught.value)


@pytest.mark.parametrize(
    ("asked", "said", "hint"),
    [
        ({"context": "deve"}, "no context deve", "did you mean dev?"),
        ({"context": "zzz"}, "no context zzz", "dev, prod"),
        ({"cluster": "oen"}, "no cluster oen", "one"),
        ({"user": "jan"}, "no user jan", "jane"),
    ],
)
def test_what_is_not_in_it(file: str, asked: dict[str, str], said: str, hint: str) -> None:
    with pytest.raises(NotFoundError) as caught:
        access(ClientConfig(kubeconfig=file, **asked), {})
    assert said in caught.value.message
    assert hint in caught.value.hint


@pytest.mark.parametrize("text", ["{", "- a\n- b\n", "just words", "clusters: 7\n"])
def test_what_is_no_kubeconfig(tmp_path: Path, text: str) -> None:
    (tmp_path / "config").write_text(text)
    with pytest.raises(ObservationError):
        access(ClientConfig(kubeconfig=str(tmp_path / "config")), {})


def test_no_file_at_all(tmp_path: Path) -> None:
    with pytest.raises(ClusterUnreachableError, match="no such kubeconfig"):
        access(ClientConfig(kubeconfig=str(tmp_path / "none")), {})
    with pytest.raises(ClusterUnreachableError, match="no kubeconfig with a current context"):
        access(ClientConfig(), {"KUBECONFIG": str(tmp_path / "none")})


def test_a_server_by_flag_needs_no_file() -> None:
    found = access(ClientConfig(server="http://here:1"), {"KUBECONFIG": "/dev/null"})
    assert (found.configuration.host, found.namespace) == ("http://here:1", "default")


def test_a_pod_without_a_service_account() -> None:
    with pytest.raises(ClusterUnreachableError, match="no service account"):
        access(ClientConfig(), {"KUBECONFIG": "/dev/null", "KUBERNETES_SERVICE_HOST": ""})
