"""The guest is what these tests need: a kernel with IPVS and IPIP, the host's files, no way out."""

from __future__ import annotations

import platform
from pathlib import Path

import pytest


def test_it_is_another_kernel() -> None:
    assert "um" in platform.machine() or Path("/proc/cpuinfo").read_text().count("User Mode Linux")


@pytest.mark.parametrize("module", ["ip_vs", "ip_vs_rr", "ipip", "dummy", "xt_TRACE"])
def test_a_module_is_loaded(module: str) -> None:
    assert f"{module} " in Path("/proc/modules").read_text()
