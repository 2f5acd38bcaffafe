from __future__ import annotations

import re

import msgspec
import pytest

from kptrace.lab import state, workloads
from kptrace.lab.address_plan import plan
from kptrace.lab.faults import inject
from kptrace.model.errors import NotFoundError

NAMES = """proxy-rules-missing stale-dnat no-endpoints forward-policy-drop bridge-nf-off
tunnel-port-blocked ip-forward-off fdb-stale fdb-missing pod-route-missing no-listener
ipvs-weight-zero ipvs-no-server ipvs-address-missing ipip-blocked tunnel-down
policy-deny-ingress policy-deny-egress rp-filter"""


def test_all_that_can_be_broken() -> None:
    assert [fault.name for fault in inject.FAULTS] == NAMES.split()


def test_each_shows_on_a_service_of_the_lab() -> None:
    services = {service.key for service in workloads.SERVICES}
    nodes = {node.name for node in plan().nodes}
    for fault in inject.FAULTS:
        assert fault.service in services
        assert fault.node in nodes


def test_the_dead_pod_lives_nowhere() -> None:
    made = plan(nodes=9)
    taken = {address for pod in made.pods for address in pod.addresses}
    taken |= {address for node in made.nodes for address in (*node.addresses, *node.gateways)}
    assert inject.DEAD_POD not in taken
    assert inject.DEAD_NODE not in taken


def test_the_list_fits_and_names_all() -> None:
    text = inject.listing("no-such-lab")
    assert all(len(line) <= 80 for line in text.splitlines())
    assert all(f"  {name} " in text for name in NAMES.split())
    assert "--lab-name no-such-lab" in text
    assert "kptrace svc/remote -n shop --from pod/client --lab\n" in inject.listing("default")


def test_of_a_lab_that_stands_what_it_cannot_have_stands_apart(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made = plan(network="calico-direct", proxy="nftables")
    held = state.LabStateFile(nodes=2, proxy="nftables", network="calico-direct", ready=True)
    held = msgspec.structs.replace(held, faults=(state.ActiveFault(fault="rp-filter"),))
    lab = state.Lab(plan=made, state=held)
    monkeypatch.setattr(state, "load", lambda name: lab)
    text = inject.listing("default")
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
    with pytest.raises(NotFoundError, match="no fault named 'gremlins'"):
        inject.find("gremlins")
