"""What watched and what did not, with the reason."""

from __future__ import annotations

from kptrace.judge.layers import layers
from kptrace.model import Layer, Place, Question, Resolution, Source
from kptrace.protocol import CGROUP, DOOR, Fact
from kptrace.run import Run
from kptrace.target import parse_target

POD = Place(node="node-a", pod="shop/client")
HOST = Place(node="node-a")


def run(*facts: Fact, absent: tuple[Layer, ...] = ()) -> Run:
    return Run(
        question=Question(target=parse_target("web", "shop")),
        source=Source(kind="pod", place=POD),
        resolution=Resolution(address="10.96.0.1", port=80, protocol="tcp"),
        api={},
        replies=facts,
        absent=absent,
    )


def conntrack(made: Run) -> Layer:
    (found,) = (layer for layer in layers(made) if layer.name == "conntrack")
    return found


def test_conntrack_is_asked_in_the_nodes_own_namespace() -> None:
    inside, outside = Fact(id=1, place=POD, file="links"), Fact(id=1, place=HOST, file="links")
    assert conntrack(run(inside, outside)).missing == ""
    assert conntrack(run(inside)).missing == "the node's own namespace was not looked at"


def test_it_lacks_for_the_reason_that_shut_the_node() -> None:
    door = Fact(id=1, place=HOST, file=DOOR, missing="only this pod")
    shut = Layer(name="host", node="node-a", missing="only this pod")
    made = run(Fact(id=1, place=POD, file="links"), door, absent=(shut,))
    assert conntrack(made).missing == "only this pod"


def test_the_senders_own_cgroup_could_not_be_entered() -> None:
    told = Fact(id=1, place=POD, file=CGROUP, missing="not permitted", remedy="more rights")
    other = Fact(id=1, place=Place(node="node-a", pod="shop/web"), file=CGROUP, missing="no")
    made = run(Fact(id=1, place=POD, file="links"), told, other)
    (found,) = (layer for layer in layers(made) if layer.name == "cgroup")
    assert found == Layer(
        name="cgroup", node="node-a", missing="not permitted", remedy="more rights"
    )
