"""What a target means; the cluster here is small and every expectation is read off it."""

from __future__ import annotations

import pytest

from kptrace.kube.objects.cluster_state import ClusterState
from kptrace.kube.objects.resolve import choose_source, resolve
from kptrace.model import (
    ContainerPort,
    Endpoint,
    Netns,
    Node,
    Pod,
    Service,
    ServicePort,
    TraceRequest,
)
from kptrace.model.errors import KptraceError, NotFoundError, UsageError
from kptrace.model.targets import parse_target

HTTP = ServicePort(name="http", protocol="tcp", port=80, target_port="web", node_port=30080)
DNS = ServicePort(name="dns", protocol="udp", port=53, target_port="53")
V4 = Endpoint(address="10.244.2.20", port=8080, port_name="http", node="b", pod="shop/web-1")
V6 = Endpoint(address="fd00:10:244:2::20", port=8080, port_name="http", node="b", pod="shop/web-1")
TALK = Endpoint(address="10.244.2.20", port=53, protocol="udp", port_name="dns", node="b")

CLUSTER = ClusterState(
    services=(
        Service(
            namespace="shop",
            name="web",
            type="NodePort",
            cluster_ips=("10.96.1.1", "fd00:10:96::1"),
            external_ips=("192.0.2.7",),
            ports=(HTTP, DNS),
        ),
        Service(namespace="shop", name="headless", type="ClusterIP", headless=True, ports=(HTTP,)),
        Service(namespace="shop", name="nobody", type="ClusterIP", headless=True, ports=(HTTP,)),
        Service(namespace="other", name="far", type="ClusterIP", cluster_ips=("10.96.1.2",)),
    ),
    endpoints={"shop/web": (V4, V6, TALK), "shop/headless": (V4,)},
    pods=(
        Pod(namespace="shop", name="web-1", node="b", ips=("10.244.2.20",), ready=True),
        Pod(
            namespace="shop",
            name="client",
            node="a",
            ips=("10.244.1.10", "fd00:10:244:1::10"),
            ready=True,
            ports=(ContainerPort(name="admin", port=9000),),
        ),
        Pod(namespace="shop", name="aaa", node="a", ips=("10.244.1.9",), ready=False),
        Pod(namespace="sys", name="proxy", node="b", ips=("172.30.0.12",), host_network=True),
        Pod(namespace="shop", name="pending", phase="Pending"),
    ),
    nodes=(
        Node(name="a", addresses=("172.30.0.11",)),
        Node(name="b", addresses=("172.30.0.12",)),
    ),
)


def ask(text: str, **more: object) -> TraceRequest:
    namespace = str(more.pop("namespace", "shop"))
    return TraceRequest(target=parse_target(text, namespace), namespace=namespace, **more)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("question", "address", "port", "protocol", "endpoints"),
    [
        (ask("svc/web"), "10.96.1.1", 80, "tcp", (V4,)),
        (ask("svc/web", family=6), "fd00:10:96::1", 80, "tcp", (V6,)),
        (ask("svc/web:dns"), "10.96.1.1", 53, "udp", (TALK,)),
        (ask("svc/web:53"), "10.96.1.1", 53, "udp", (TALK,)),
        (ask("svc/web", via="nodePort", node="b"), "172.30.0.12", 30080, "tcp", (V4,)),
        (ask("svc/web", via="nodePort"), "172.30.0.11", 30080, "tcp", (V4,)),
        (ask("svc/web", via="externalIP"), "192.0.2.7", 80, "tcp", (V4,)),
        (ask("svc/headless"), "10.244.2.20", 8080, "tcp", (V4,)),
        (ask("10.96.1.1:80"), "10.96.1.1", 80, "tcp", (V4,)),
        (ask("10.96.1.1:53/udp"), "10.96.1.1", 53, "udp", (TALK,)),
        (ask("172.30.0.12:30080"), "172.30.0.12", 30080, "tcp", (V4,)),
        (ask("[fd00:10:96::1]:80"), "fd00:10:96::1", 80, "tcp", (V6,)),
        (ask("9.9.9.9:443"), "9.9.9.9", 443, "tcp", ()),
    ],
)
def test_where_the_packet_will_be_sent(
    question: TraceRequest, address: str, port: int, protocol: str, endpoints: tuple[Endpoint, ...]
) -> None:
    found = resolve(question, CLUSTER)
    assert (found.address, found.port, found.protocol) == (address, port, protocol)
    assert found.endpoints == endpoints


def test_a_pod_and_its_declared_port() -> None:
    found = resolve(ask("pod/client:admin"), CLUSTER)
    assert (found.address, found.port) == ("10.244.1.10", 9000)
    assert found.endpoints[0].pod == "shop/client"


@pytest.mark.parametrize(
    ("question", "kind", "words", "hint"),
    [
        (ask("svc/wbe"), NotFoundError, "no Service wbe", "did you mean svc/web?"),
        (ask("svc/far"), NotFoundError, "no Service far", "namespace other"),
        (ask("svc/web:nope"), NotFoundError, "no port nope", "http 80/tcp, dns 53/udp"),
        (ask("svc/nobody"), NotFoundError, "headless and has no endpoint", "selector"),
        (ask("svc/web:dns", via="nodePort"), UsageError, "no node port", "--via clusterIP"),
        (ask("svc/web", via="nodePort", node="c"), NotFoundError, "no node c", "there are: a, b"),
        (
            ask("svc/web", via="loadBalancer"),
            UsageError,
            "load-balancer",
            "--via clusterIP or --via",
        ),
        (ask("svc/web", via="externalIP", family=6), UsageError, "no IPv6", "192.0.2.7"),
        (ask("pod/clint"), NotFoundError, "no pod clint", "pod/client"),
        (ask("pod/web-1"), UsageError, "which port", "pod/web-1:8080"),
        (ask("pod/pending:1"), NotFoundError, "no address yet", ""),
        (ask("9.9.9.9"), UsageError, "which port", ":80"),
    ],
)
def test_what_is_not_there_is_said_with_the_nearest(
    question: TraceRequest, kind: type[KptraceError], words: str, hint: str
) -> None:
    with pytest.raises(kind) as error:
        resolve(question, CLUSTER)
    assert words in error.value.message
    assert hint in error.value.hint


def test_the_source_is_a_ready_pod_that_is_no_backend() -> None:
    source = choose_source(ask("svc/web"), CLUSTER, ["shop/web-1"])
    assert source.netns == Netns(node="a", pod="shop/client")
    assert "no backend" in source.why


def test_without_such_a_pod_it_is_a_node() -> None:
    source = choose_source(ask("svc/far", namespace="other"), CLUSTER, [])
    assert (source.kind, source.netns) == ("node", Netns(node="a"))


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("pod/client", Netns(node="a", pod="shop/client")),
        ("node/b", Netns(node="b")),
        ("pod/proxy.sys", Netns(node="b")),  # on the host's network
    ],
)
def test_the_source_as_asked(text: str, place: Netns) -> None:
    assert choose_source(ask("svc/web", source=text), CLUSTER, []).netns == place


@pytest.mark.parametrize("text", ["pod/nope", "node/nope", "pod/pending", "1.2.3.4", "what"])
def test_a_source_that_cannot_send(text: str) -> None:
    with pytest.raises(KptraceError):
        choose_source(ask("svc/web", source=text), CLUSTER, [])
