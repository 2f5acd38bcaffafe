"""Reports to be rendered: written by hand after what real nodes and the lab's kernel told.

``SAMPLES`` maps a name to a Trace; the golden files are called after it.
"""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from kptrace.model import Trace

sys.path.insert(0, str(Path(__file__).parent))

import reports_delivered as delivered
import reports_failed as failed
import reports_hostile

SAMPLES = {
    made.__name__.replace("_", "-"): made
    for made in (
        delivered.delivered_vxlan,
        delivered.delivered_same_node,
        delivered.delivered_hairpin,
        delivered.delivered_udp,
        delivered.delivered_ipv6,
        delivered.delivered_count,
        failed.dropped_tunnel_port,
        failed.rejected_no_endpoints,
        failed.not_programmed,
        failed.refused,
        failed.inconclusive,
        failed.unresolved,
        reports_hostile.hostile,
    )
}


@pytest.fixture(params=SAMPLES)
def sample(request: pytest.FixtureRequest) -> tuple[str, Trace]:
    """A report with its name."""
    return request.param, SAMPLES[request.param]()


@pytest.fixture
def samples() -> dict[str, Trace]:
    return {name: made() for name, made in SAMPLES.items()}
