"""How iptables-save writes the arguments of options."""

from __future__ import annotations

import pytest

from kptrace.rules.iptables.options import Unknown
from kptrace.rules.iptables.save_format import (
    bit_names,
    limit_args,
    numbered_bits,
    option,
    port_args,
    quote,
    range_text,
    rate_text,
    tcp_flag_args,
    value_and_mask,
)


def test_quotes() -> None:
    assert quote("web-1_a") == "web-1_a"
    assert quote("") == '""'
    assert quote('say "x"') == '"say \\"x\\""'


def test_ranges_and_masks() -> None:
    assert (range_text(80, 80), range_text(80, 90)) == ("80", "80:90")
    assert range_text(1, 2, "-") == "1-2"
    assert (value_and_mask(1, 0xFFFFFFFF), value_and_mask(1, 3)) == ("0x1", "0x1/0x3")


def test_options() -> None:
    assert option(1, "--dport", "80") == ["!", "--dport", "80"]
    assert port_args("--dport", 0, 65535, 0) == []
    assert port_args("--dport", 80, 80, 1) == ["!", "--dport", "80"]
    assert tcp_flag_args(0, 0, 0) == []
    assert tcp_flag_args(0x17, 2, 0) == ["--tcp-flags", "FIN,SYN,RST,ACK", "SYN"]


def test_names_of_bits() -> None:
    table = numbered_bits("A B C")
    assert bit_names(0b101, table) == "A,C"
    with pytest.raises(Unknown):
        bit_names(0b1001, table)


@pytest.mark.parametrize(
    ("period", "text"),
    [(10_000, "1/sec"), (1_000, "10/sec"), (120_000, "5/min"), (864_000_000, "1/day")],
)
def test_rates(period: int, text: str) -> None:
    """In 1/10000 seconds between packets (XT_LIMIT_SCALE)."""
    assert rate_text(period, 10_000)[0] == text


def test_the_default_burst_is_not_written() -> None:
    assert limit_args(120_000, 5) == ["--limit", "5/min"]
    assert limit_args(120_000, 7) == ["--limit", "5/min", "--limit-burst", "7"]
