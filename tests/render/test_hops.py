"""When crossings share a line, and when the answer's way is told in one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from kptrace.model import Hop, Outcome, Trace
from kptrace.render.hops import path
from kptrace.render.layout import TextLayout


def shown(trace: Trace, wide: bool = False) -> list[str]:
    page = TextLayout(80, colour=False)
    path(page, trace, wide)
    return page.text().splitlines()


def with_hops(trace: Trace, change: Callable[[Hop], Hop | None]) -> Trace:
    hops = tuple(made for hop in trace.hops if (made := change(hop)) is not None)
    return msgspec.structs.replace(trace, hops=hops)


def test_an_answer_by_the_same_way_is_one_line(samples: dict[str, Trace]) -> None:
    lines = shown(samples["delivered-vxlan"])
    assert lines[-2] == "back"
    assert lines[-1].startswith("14-23 SYN-ACK the same way, 10.244.2.21:8080 => 10.96.41.7:80")
    assert lines[-1].endswith("+201 us")


def test_an_answer_that_misses_a_crossing_is_told_whole(samples: dict[str, Trace]) -> None:
    def less(hop: Hop) -> Hop | None:
        lost = hop.action == "reply" and hop.interface == "flannel.1" and hop.node == "node-a"
        return None if lost else hop

    lines = shown(with_hops(samples["delivered-vxlan"], less))
    assert not any("same way" in line for line in lines)
    assert "back, node-b" in lines
    assert "back, node-a" in lines


def test_an_answer_by_another_interface_is_told_whole(samples: dict[str, Trace]) -> None:
    def other(hop: Hop) -> Hop:
        if hop.action == "reply" and hop.interface == "flannel.1":
            return msgspec.structs.replace(hop, interface="eth1")
        return hop

    assert not any("same way" in line for line in shown(with_hops(samples["refused"], other)))


def test_the_answer_translated_back_shows_what_changed(samples: dict[str, Trace]) -> None:
    lines = shown(samples["delivered-vxlan"], wide=True)
    (line,) = [line for line in lines if "=>" in line and "SYN-ACK" in line]
    assert line.startswith("22 vethc1a2b3c4 out")
    assert "10.244.2.21:8080 => 10.96.41.7:80" in line


def test_crossings_that_changed_nothing_share_a_line(samples: dict[str, Trace]) -> None:
    lines = shown(samples["delivered-same-node"])
    (line,) = [line for line in lines if "vethc1a2b3c4 > cni0" in line]
    assert line.startswith("  2-3 ")
    assert line.endswith("+9 us")


def test_the_wide_form_has_one_line_for_each_hop(sample: tuple[str, Trace]) -> None:
    _, trace = sample
    numbers = [line.split()[0] for line in shown(trace, wide=True) if line[:2].strip().isdigit()]
    assert numbers == [str(i + 1) for i in range(len(trace.hops))]


def test_what_was_not_reported_is_called_inferred(samples: dict[str, Trace]) -> None:
    (line,) = [line for line in shown(samples["not-programmed"]) if "route" in line]
    assert line.endswith("inferred")

    def unseen(hop: Hop) -> Hop:
        return msgspec.structs.replace(hop, observed=False) if hop.action == "dnat" else hop

    lines = shown(with_hops(samples["delivered-vxlan"], unseen))
    assert any("DNAT" in line and line.endswith("inferred") for line in lines)


def test_a_seen_hop_without_a_time_is_not_inferred(samples: dict[str, Trace]) -> None:
    (line,) = [line for line in shown(samples["delivered-vxlan"]) if " DNAT  " in line]
    assert line.endswith("10.244.2.21:8080")


def test_harmless_rules_are_left_out_where_it_failed(samples: dict[str, Trace]) -> None:
    failed = samples["dropped-tunnel-port"]
    lines = "\n".join(shown(failed))
    assert "KUBE-SEP" not in lines
    assert "INPUT 3  -p udp -m udp --dport 8472 -j DROP" in lines
    fine = msgspec.structs.replace(failed, outcome=Outcome.DELIVERED)
    assert "KUBE-SEP-M7Q2ZL3WAUDYV6GF 2  DNAT --to-destination" in "\n".join(shown(fine))


def test_no_hops_no_lines(samples: dict[str, Trace]) -> None:
    assert shown(with_hops(samples["unresolved"], lambda hop: hop)) == []


def test_a_drop_of_the_kernel_names_the_kernel(samples: dict[str, Trace]) -> None:
    def kernel(hop: Hop) -> Hop:
        if hop.action != "dropped":
            return hop
        words = "NO_SOCKET in __udp4_lib_rcv+0x1"
        return msgspec.structs.replace(
            hop, rule=None, preceding_rules=(), interface="", description=words
        )

    lines: Any = shown(with_hops(samples["dropped-tunnel-port"], kernel))
    assert any("kernel" in line and "DROPPED NO_SOCKET in __udp4_lib_rcv" in line for line in lines)
