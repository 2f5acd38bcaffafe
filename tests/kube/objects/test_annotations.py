"""A network is named by what its program wrote on the node."""

from __future__ import annotations

import pytest

from kptrace.kube.objects.annotations import network_of
from kptrace.model import Node


@pytest.mark.parametrize(
    ("key", "value", "name"),
    [
        ("flannel.alpha.coreos.com/backend-type", "vxlan", "Flannel (VXLAN)"),
        ("flannel.alpha.coreos.com/backend-type", "host-gw", "Flannel (host-gw)"),
        ("projectcalico.org/IPv4Address", "10.0.0.1/24", "Calico"),
        ("network.cilium.io/ipv4-pod-cidr", "10.0.0.0/24", "Cilium"),
    ],
)
def test_by_its_annotation(key: str, value: str, name: str) -> None:
    found = network_of(Node(name="a", annotations=(("other", "x"), (key, value))))
    assert found is not None
    assert (found.node, found.name, found.signal) == ("a", name, f"annotation {key}")


def test_none_is_no_guess() -> None:
    assert network_of(Node(name="a", annotations=(("node.alpha.kubernetes.io/ttl", "0"),))) is None
