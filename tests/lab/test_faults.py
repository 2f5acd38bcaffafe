from __future__ import annotations

import re

import msgspec
import pytest

from kptrace.errors import NotFound
from kptrace.lab import faults, shop, state
from kptrace.lab.plan import plan

NAMES = """proxy-rules-missing stale-dnat no-endpoints forward-policy-drop bridge-nf-off
tunnel-port-blocked ip-forward-off fdb-stale fdb-missing pod-route-missing nobody-listens
ipvs-weight-zero ipvs-no-server ipvs-address-missing ipip-blocked tunnel-down
policy-deny-ingress policy-deny-egress rp-filter"""


def test_all_that_can_be_broken() -> None:
    assert [fault.name for fault in faults.FAULTS] == NAMES.split()


def test_each_shows_on_a_service_of_the_lab() -> None:
    services = {service.key for service in shop.SERVICES}
    nodes = {node.name for node in plan().nodes}
    for fault in faults.FAULTS:
        assert fault.service in services
        assert fault.node in nodes


def test_the_dead_pod_lives_nowhere() -> None:
    made = plan(nodes=9)
    taken = {address for pod in made.pods for address in pod.addresses}
    taken |= {address for node in made.nodes for address in (*node.addresses, *node.gateways)}
    assert faults.DEAD_POD not in taken
    assert faults.DEAD_NODE not in taken


def test_the_list_fits_and_names_all() -> None:
    text = faults.listing("no-such-lab")
    assert all(len(line) <= 80 for line in text.splitlines())
    assert all(f"  {name} " in text for name in NAMES.split())
    assert "--lab-name no-such-lab" in text
    assert "kptrace svc/remote -n shop --from pod/client --lab\n" in faults.listing("default")


def test_of_a_lab_that_stands_what_it_cannot_have_stands_apart(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made = plan(network="calico-direct", proxy="nftables")
    held = state.State(nodes=2, proxy="nftables", network="calico-direct", ready=True)
    held = msgspec.structs.replace(held, faults=(state.Broken(fault="rp-filter"),))
    lab = state.Lab(plan=made, state=held)
    monkeypatch.setattr(state, "load", lambda name: lab)
    text = faults.listing("default")
    assert all(len(line) <= 80 for line in text.splitlines())
    above, below = text.split("not applicable to proxy nftables on network calico-direct:")
    assert "\n* rp-filter " in above
    assert "policy-deny-ingress" in above
    assert "fdb-stale" not in above
    assert re.search(r"  fdb-stale +needs --network vxlan or another\n", below)
    assert re.search(r"  ipvs-no-server +needs --proxy ipvs\n", below)
    for name in NAMES.split():
        assert f" {name} " in text


def test_unknown() -> None:
    with pytest.raises(NotFound, match="no fault named 'gremlins'"):
        faults.find("gremlins")
