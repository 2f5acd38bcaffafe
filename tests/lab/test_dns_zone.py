from __future__ import annotations

import dns.rdatatype
import dns.zone

from kptrace.lab import load_rules
from kptrace.lab.address_plan import plan
from kptrace.lab.dns_zone import zone
from kptrace.model import Endpoint, Service, ServicePort

HTTP = ServicePort(name="http", protocol="tcp", port=80, target_port="8080")


def test_a_dual_stack_service() -> None:
    web = Service(
        namespace="shop",
        name="web",
        type="ClusterIP",
        cluster_ips=("10.96.1.1", "fd00:10:96::101"),
        ports=(HTTP,),
    )
    records = zone([web], {}).records
    assert records["web.shop.svc.cluster.local"] == {
        "A": ("10.96.1.1",),
        "AAAA": ("fd00:10:96::101",),
    }
    assert records["_http._tcp.web.shop.svc.cluster.local"] == {
        "SRV": ("0 100 80 web.shop.svc.cluster.local.",)
    }
    assert records["svc.cluster.local"] == {}
    assert records["_tcp.web.shop.svc.cluster.local"] == {}


def test_a_headless_service_is_its_ready_endpoints() -> None:
    service = Service(namespace="shop", name="db", type="ClusterIP", headless=True, ports=(HTTP,))
    endpoints = [
        Endpoint(address="10.244.1.11", port=8080, port_name="http"),
        Endpoint(address="10.244.1.12", port=8080, port_name="http", ready=False),
        Endpoint(address="fd00::1", port=8080, port_name="http"),
    ]
    records = zone([service], {"shop/db": endpoints}).records
    assert records["db.shop.svc.cluster.local"] == {"A": ("10.244.1.11",), "AAAA": ("fd00::1",)}
    assert records["10-244-1-11.db.shop.svc.cluster.local"] == {"A": ("10.244.1.11",)}
    assert records["fd00--1.db.shop.svc.cluster.local"] == {"AAAA": ("fd00::1",)}
    assert records["_http._tcp.db.shop.svc.cluster.local"]["SRV"] == (
        "0 100 8080 10-244-1-11.db.shop.svc.cluster.local.",
        "0 100 8080 fd00--1.db.shop.svc.cluster.local.",
    )


def test_a_headless_service_without_endpoints_has_no_name() -> None:
    service = Service(namespace="shop", name="db", type="ClusterIP", headless=True)
    assert "db.shop.svc.cluster.local" not in zone([service], {}).records


def test_external_name_with_and_without_its_last_dot() -> None:
    for given in ("example.com", "example.com."):
        service = Service(namespace="shop", name="out", type="ExternalName", external_name=given)
        records = zone([service], {}).records
        assert records["out.shop.svc.cluster.local"] == {"CNAME": ("example.com.",)}


def test_the_text_is_a_master_file() -> None:
    """Read back by a strict reader, nothing is lost."""
    view = load_rules.healthy(plan())
    made = zone(view.services, view.endpoints)
    parsed = dns.zone.from_text(made.text(), origin="cluster.local.", relativize=False)
    read = {
        (name.to_text(omit_final_dot=True), dns.rdatatype.to_text(rdataset.rdtype)): {
            rdata.to_text() for rdata in rdataset
        }
        for name, node in parsed.nodes.items()
        for rdataset in node
    }
    expected = {
        (name, kind): set(texts)
        for name, kinds in made.records.items()
        for kind, texts in kinds.items()
    }
    expected["cluster.local", "NS"] = {"ns.dns.cluster.local."}
    assert read == expected
