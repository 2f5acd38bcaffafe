from __future__ import annotations

import pytest

from kptrace.errors import NotFound
from kptrace.lab import faults, shop
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


def test_unknown() -> None:
    with pytest.raises(NotFound, match="no fault named 'gremlins'"):
        faults.find("gremlins")
