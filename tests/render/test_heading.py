"""The first lines."""

from __future__ import annotations

import msgspec

from kptrace.model import Netns, Source, Target, Trace
from kptrace.render.heading import backend_of, heading
from kptrace.render.layout import TextLayout


def shown(trace: Trace, width: int = 80) -> list[str]:
    page = TextLayout(width, colour=False)
    heading(page, trace)
    return page.text().splitlines()


def test_names_and_answer_on_one_line(samples: dict[str, Trace]) -> None:
    assert shown(samples["delivered-vxlan"]) == [
        "svc/remote (shop)  from pod/client on node-a                 DELIVERED in 410 us",
        "10.244.1.10 -> 10.96.41.7:80/TCP -> 10.244.2.21:8080  pod/remote-1 on node-b",
    ]


def test_names_that_leave_no_room_stand_below(samples: dict[str, Trace]) -> None:
    node = "ip-10-0-12-34.eu-central-1.compute.internal"
    source = Source(kind="pod", netns=Netns(node=node, pod="shop/client"))
    lines = shown(msgspec.structs.replace(samples["delivered-vxlan"], source=source))
    assert lines[0] == "DELIVERED in 410 us"
    assert lines[1] == "svc/remote (shop)"
    assert lines[2] == f"  from pod/client on {node}"


def test_a_long_node_in_the_answer_is_cut_in_the_middle(samples: dict[str, Trace]) -> None:
    first = shown(samples["hostile"])[0]
    assert first.startswith("DROPPED on ip-10-244-100-200.")
    assert first.endswith("compute.internal, 0 of 4 delivered")
    assert len(first) == 80


def test_the_backend_by_dnat_by_conntrack_and_by_address(samples: dict[str, Trace]) -> None:
    whole = samples["delivered-vxlan"]
    found = backend_of(whole)
    assert found is not None
    assert found.pod == "shop/remote-1"
    assert backend_of(msgspec.structs.replace(whole, hops=())) == found  # conntrack tells it
    assert backend_of(samples["rejected-no-endpoints"]) is None
    assert backend_of(msgspec.structs.replace(whole, resolution=None)) is None


def test_a_backend_that_is_no_endpoint_is_named_by_address(samples: dict[str, Trace]) -> None:
    whole = samples["delivered-vxlan"]
    assert whole.resolution is not None
    stale = msgspec.structs.replace(whole.resolution, endpoints=())
    lines = shown(msgspec.structs.replace(whole, resolution=stale))
    assert lines[1] == "10.244.1.10 -> 10.96.41.7:80/TCP -> 10.244.2.21:8080"


def test_an_address_that_is_a_services_names_it(samples: dict[str, Trace]) -> None:
    assert "svc/kube-dns (kube-system)" in shown(samples["delivered-udp"])[1]


def test_a_name_without_an_address(samples: dict[str, Trace]) -> None:
    target = Target(kind="name", text="example.com.", name="example.com.")
    lines = shown(msgspec.structs.replace(samples["unresolved"], target=target, resolution=None))
    assert lines == ["example.com.  from pod/shop/client on node-a" + " " * 26 + "UNRESOLVED"]


def test_of_several_flows_some_arrived(samples: dict[str, Trace]) -> None:
    shares = samples["delivered-count"].evidence.shares
    evidence = msgspec.structs.replace(
        samples["dropped-tunnel-port"].evidence,
        shares=(*shares[:2], msgspec.structs.replace(shares[2], delivered=0)),
    )
    trace = msgspec.structs.replace(samples["dropped-tunnel-port"], evidence=evidence)
    assert shown(trace, 100)[0].endswith("  DROPPED on node-b, 21 of 30 delivered")
