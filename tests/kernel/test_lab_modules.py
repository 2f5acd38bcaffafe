"""A lab that this kernel cannot make says which module is missing and leaves nothing."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from kptrace.lab import cluster, host_commands, state
from kptrace.lab.address_plan import plan
from kptrace.model.errors import UnsupportedError

pytestmark = pytest.mark.kernel


@pytest.mark.parametrize(
    ("proxy", "network", "module", "words"),
    [
        ("ipvs", "vxlan", "ip_vs", "IPVS"),
        ("iptables", "flannel-ipip", "ipip", "IP in IP"),
        ("iptables", "calico-ipip", "ipip", "IP in IP"),
    ],
)
def test_a_missing_module_is_named(proxy: str, network: str, module: str, words: str) -> None:
    if (Path("/sys/module") / module).exists():
        pytest.skip(f"this kernel has {module}")
    if proxy == "ipvs" and not host_commands.find("ipvsadm"):
        pytest.skip("ipvsadm is not installed")
    name = f"mod-{os.getpid()}"
    with pytest.raises(UnsupportedError) as refused:
        cluster.up(plan(name, 2, proxy, network))
    assert words in refused.value.message
    assert module in refused.value.hint
    assert name not in state.names()
