from __future__ import annotations

from pathlib import Path

from kptrace.lab.coredns import corefile


def test_the_world_ends_at_the_domain() -> None:
    text = corefile(Path("/run/x/cluster.local.zone"))
    assert text.startswith(
        "cluster.local:53 {\n    errors\n    file /run/x/cluster.local.zone cluster.local\n}\n"
    )
    assert "rcode NXDOMAIN" in text
