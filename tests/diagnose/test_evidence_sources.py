"""What watched and what did not, with the reason."""

from __future__ import annotations

from kptrace.diagnose.evidence_sources import layers
from kptrace.model import EvidenceSource, Netns, Resolution, Source, TraceRequest
from kptrace.model.targets import parse_target
from kptrace.protocol import CGROUP_UNAVAILABLE, NETNS_UNAVAILABLE, FileContent
from kptrace.protocol.recording import Recording

POD = Netns(node="node-a", pod="shop/client")
HOST = Netns(node="node-a")


def run(*facts: FileContent, absent: tuple[EvidenceSource, ...] = ()) -> Recording:
    return Recording(
        request=TraceRequest(target=parse_target("web", "shop")),
        source=Source(kind="pod", netns=POD),
        resolution=Resolution(address="10.96.0.1", port=80, protocol="tcp"),
        api={},
        replies=facts,
        unavailable=absent,
    )


def conntrack(made: Recording) -> EvidenceSource:
    (found,) = (layer for layer in layers(made) if layer.name == "conntrack")
    return found


def test_conntrack_is_asked_in_the_nodes_own_namespace() -> None:
    inside, outside = (
        FileContent(id=1, netns=POD, file="links"),
        FileContent(id=1, netns=HOST, file="links"),
    )
    assert conntrack(run(inside, outside)).unavailable == ""
    assert conntrack(run(inside)).unavailable == "the node's own namespace was not looked at"


def test_it_lacks_for_the_reason_that_shut_the_node() -> None:
    door = FileContent(id=1, netns=HOST, file=NETNS_UNAVAILABLE, unavailable="only this pod")
    shut = EvidenceSource(name="host", node="node-a", unavailable="only this pod")
    made = run(FileContent(id=1, netns=POD, file="links"), door, absent=(shut,))
    assert conntrack(made).unavailable == "only this pod"


def test_the_senders_own_cgroup_could_not_be_entered() -> None:
    told = FileContent(
        id=1, netns=POD, file=CGROUP_UNAVAILABLE, unavailable="not permitted", hint="more rights"
    )
    other = FileContent(
        id=1, netns=Netns(node="node-a", pod="shop/web"), file=CGROUP_UNAVAILABLE, unavailable="no"
    )
    made = run(FileContent(id=1, netns=POD, file="links"), told, other)
    (found,) = (layer for layer in layers(made) if layer.name == "cgroup")
    assert found == EvidenceSource(
        name="cgroup", node="node-a", unavailable="not permitted", hint="more rights"
    )
