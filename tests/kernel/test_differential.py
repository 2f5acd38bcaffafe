"""Random rulesets and packets, judged by the kernel: does the walk say the same, rule by rule?

For KPTRACE_FUZZ_SECONDS (default 15) from a fixed seed, or KPTRACE_FUZZ_SEED; ``make fuzz`` goes on
from any. The numbers are printed and kept as properties of the test.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from itertools import count

import pytest
from differential import chance, verdicts
from differential.bench import Bench, bench
from differential.campaign import Campaign
from differential.ground import Refused
from differential.packets import Sent

pytestmark = pytest.mark.kernel

SECONDS = float(os.environ.get("KPTRACE_FUZZ_SECONDS", "15"))
SEED = int(os.environ.get("KPTRACE_FUZZ_SEED", "1"))
# of pairs, that the walk itself calls uncertain: matches for which no dump has the answer
NOT_JUDGED_AT_MOST = 0.2


@pytest.mark.timeout(SECONDS + 240)
def test_random_rulesets_and_packets(record_property: Callable[[str, object], None]) -> None:
    told: list[str] = []
    until = time.monotonic() + SECONDS
    with Campaign(packets=20, tell=told.append) as campaign:
        for seed in count(SEED):
            if time.monotonic() > until:
                break
            try:
                campaign.round(seed)
            except Refused as refused:  # nothing was compared
                told.append(f"seed {seed}: {refused}")
    score = campaign.score
    record_property("told", str(score))
    assert not score.disagreed, "\n".join(told)
    assert score.pairs > 0
    assert score.judged["not judged"] <= NOT_JUDGED_AT_MOST * score.pairs


# --- choices by chance --------------------------------------------------------------------------

NAT4 = "*nat\n:PREROUTING ACCEPT [0:0]\n:A - [0:0]\n:B - [0:0]\n:C - [0:0]\n"
SERVICE = f"""{NAT4}-A PREROUTING -m statistic --mode random --probability 0.33333 -j A
-A PREROUTING -m statistic --mode random --probability 0.5 -j B
-A PREROUTING -j C
-A A -p tcp -j DNAT --to-destination 10.2.0.2:80
-A B -p tcp -j DNAT --to-destination 10.2.0.3:80
-A C -p tcp -j DNAT --to-destination 10.2.0.4:80
COMMIT
"""
CHOICES = {
    "statistic, legacy": {"iptables-legacy": SERVICE},
    "statistic, nft": {"iptables-nft": SERVICE},
    "numgen random": {
        "nft": "add table ip t\n"
        "add chain ip t p { type nat hook prerouting priority -100; }\n"
        "add rule ip t p meta l4proto tcp dnat ip addr . port to numgen random mod 4 map "
        "{ 0 : 10.2.0.2 . 80, 1 : 10.2.0.3 . 80, 2 : 10.2.0.4 . 80, 3 : 10.2.0.5 . 80 }\n"
    },
    "numgen inc": {
        "nft": "add table ip t\n"
        "add chain ip t a\n"
        "add chain ip t b\n"
        "add chain ip t p { type filter hook prerouting priority 0; }\n"
        "add rule ip t p numgen inc mod 3 vmap { 0 : goto a, 1 : goto b, 2 : accept }\n"
        "add rule ip t a counter\n"
        "add rule ip t b counter\n"
    },
    "nth": {
        "iptables-legacy": "*mangle\n"
        "-A FORWARD -m statistic --mode nth --every 3 --packet 0 -j MARK --set-mark 0x1\nCOMMIT\n"
    },
    "one in four of the rest": {
        "nft": "add table inet t\n"
        "add chain inet t p { type filter hook forward priority 0; }\n"
        "add rule inet t p numgen random mod 4 0 accept\n"
        "add rule inet t p numgen random mod 2 0 drop\n"
    },
}
SYN = Sent(start="client", protocol="tcp", src="10.1.0.2", dst="10.96.0.1", sport=20000, dport=80)
REPEATS = 300


@pytest.fixture(scope="module")
def both() -> Iterator[Bench]:
    with bench() as made:
        yield made


@pytest.mark.parametrize("name", CHOICES)
def test_frequencies_fit_the_weights(both: Bench, name: str) -> None:
    both.load(CHOICES[name], whole=True)
    ways = verdicts.ways(SYN, both.world)
    assert len(ways) > 1
    counts = [0] * len(ways)
    for _ in range(REPEATS):
        seen = both.observe(SYN)
        fitting = [n for n, way in enumerate(ways) if not verdicts.differences(way, seen)]
        assert len(fitting) == 1, seen
        counts[fitting[0]] += 1
    assert chance.misfits([way.weight for way in ways], counts) == []
