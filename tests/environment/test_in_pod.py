"""In a pod without rights: who we are, what is asked of DNS instead of the API, what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from kptrace.environment import in_pod
from kptrace.environment.in_pod import IN_CLUSTER, InPod, PodIdentity, this_pod
from kptrace.kube.objects.cluster_state import read_cluster_state
from kptrace.model import TraceRequest
from kptrace.model.errors import ObservationError, PermissionDeniedError
from kptrace.model.targets import parse_target

REFUSAL = PermissionDeniedError(
    "you are not allowed to:\n  list pods in namespace shop", "apply:\nroles"
)
POD = PodIdentity(name="client", namespace="shop")


def asked(target: str, source: str = "pod/client.shop") -> TraceRequest:
    return TraceRequest(target=parse_target(target, "shop"), source=source, namespace="shop")


def test_outside_of_a_cluster() -> None:
    assert this_pod({"HOSTNAME": "laptop"}) is None


def test_who_we_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "namespace").write_text("shop")
    monkeypatch.setattr(in_pod, "ACCOUNT", tmp_path)
    environ = {IN_CLUSTER: "10.96.0.1", "HOSTNAME": "client", "NODE_NAME": "node-a"}
    assert this_pod(environ) == PodIdentity(name="client", namespace="shop", node="node-a")


def test_without_an_account_the_search_list_tells(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    conf = tmp_path / "resolv.conf"
    monkeypatch.setattr(in_pod, "ACCOUNT", tmp_path)
    monkeypatch.setattr(in_pod, "RESOLV_CONF", conf)
    environ = {IN_CLUSTER: "10.96.0.1", "HOSTNAME": "client"}
    for text, namespace in (
        ("search shop.svc.cluster.local svc.cluster.local\n", "shop"),
        ("search example.org\n", "default"),
        ("", "default"),
    ):
        conf.write_text(text)
        assert this_pod(environ) == PodIdentity(name="client", namespace=namespace)


@pytest.mark.parametrize(
    ("target", "name", "port"),
    [
        ("svc/web", "web", "9000"),
        ("svc/web:metrics", "web", "9090"),
        ("svc/web:8080", "web", "8080"),
        ("svc/web.other", "web.other", ""),
        ("svc/two-words", "two-words", "7000"),
    ],
)
def test_a_service_is_what_its_name_says(
    target: str, name: str, port: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """kubelet, pkg/kubelet/envvars: SERVICE_PORT is the first port, ..._NAME the one so called."""
    monkeypatch.setenv("WEB_SERVICE_PORT", "9000")
    monkeypatch.setenv("WEB_SERVICE_PORT_METRICS", "9090")
    monkeypatch.setenv("TWO_WORDS_SERVICE_PORT", "7000")
    made = InPod(asked(target), POD, {}, REFUSAL).request.target
    assert (made.kind, made.name, made.port, made.text) == ("name", name, port, target)


def test_what_the_documents_say_of_themselves() -> None:
    made = read_cluster_state(InPod(asked("svc/web"), POD, {}, REFUSAL).api())
    assert [pod.key for pod in made.pods] == ["shop/client"]
    assert made.told_by is not None
    assert made.told_by.why == "not asked: you are not allowed to: list pods in namespace shop"
    assert "services.json" in made.missing


def test_with_the_api_the_question_stays() -> None:
    texts = {
        "pods.json": '{"kind": "Pod", "metadata": {"name": "client", "namespace": "shop"},'
        ' "spec": {"nodeName": "node-a"}}'
    }
    ground = InPod(asked("svc/web"), POD, texts, REFUSAL)
    assert ground.name == "node-a"
    assert ground.request == asked("svc/web")
    assert read_cluster_state(ground.api()).told_by is None


def test_another_source_is_refused_with_the_reason() -> None:
    with pytest.raises(PermissionDeniedError, match="not allowed"):
        _ = InPod(asked("svc/web", "pod/other"), POD, {}, REFUSAL).request
    with pytest.raises(ObservationError, match="not allowed"):
        InPod(asked("svc/web"), POD, {}, REFUSAL).agent("node-b")


def test_from_another_pod_the_api_alone_tells_where_it_does() -> None:
    texts = {"pods.json": '{"kind": "List", "items": []}'}
    ground = InPod(asked("svc/web", "pod/other"), POD, texts, REFUSAL)
    assert ground.request.source == "pod/other"
    with pytest.raises(PermissionDeniedError, match="not allowed"):
        ground.agent(ground.name)
    assert ground.api_only_documents() == texts
    assert InPod(asked("svc/web"), POD, {}, REFUSAL).api_only_documents() is None
