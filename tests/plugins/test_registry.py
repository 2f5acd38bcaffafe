"""The plugin seam: who is surest wins, a plugin that raises harms nobody, a stranger's is found."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from kptrace.model import Netns
from kptrace.plugins import registry
from kptrace.plugins.registry import DetectedCni
from kptrace.simulate.snapshot.snapshot import Snapshot, read_snapshot

EXAMPLE = Path(__file__).parent / "example_cni"
NODE = Netns(node="node-a")


class Plugin:
    def __init__(self, name: str, answer: DetectedCni | Exception | None) -> None:
        self.name, self._answer = name, answer

    def wants(self) -> tuple[str, ...]:
        return (f"{self.name}.txt", "shared.txt")

    def detect(self, node: Snapshot, files: Mapping[str, str]) -> DetectedCni | None:
        if isinstance(self._answer, Exception):
            raise self._answer
        return self._answer


def seen(name: str, sure: float) -> Plugin:
    return Plugin(name, DetectedCni(name=name, sure=sure, signal="so"))


def test_the_surest_plugin_wins() -> None:
    plugins = [seen("bridge", 0.3), seen("calico", 0.9), seen("kindnet", 0.5), Plugin("x", None)]
    found = registry.detect_network(read_snapshot(NODE, {}), {}, plugins)
    assert found.best is not None
    assert found.best.name == "calico"
    assert found.failed == ()


def test_a_plugin_that_raises_is_named_and_the_others_are_asked_on() -> None:
    plugins = [Plugin("bad", ValueError("no such thing")), seen("calico", 0.9)]
    found = registry.detect_network(read_snapshot(NODE, {}), {}, plugins)
    assert found.best is not None
    assert found.failed == ("the plugin bad failed: ValueError: no such thing",)


def test_files_that_several_plugins_want_are_asked_for_once() -> None:
    plugins = [seen("a", 1.0), seen("b", 1.0)]
    assert registry.extra_files(plugins) == ("a.txt", "shared.txt", "b.txt")


def test_a_node_that_nobody_recognises_is_unknown_but_its_proxy_is_told() -> None:
    rules = "*nat\n:KUBE-SERVICES - [0:0]\n-A KUBE-SERVICES -d 10.0.0.1/32 -j RETURN\nCOMMIT\n"
    files = {"iptables-save.txt": rules}
    (told,) = registry.detected_networks({NODE: read_snapshot(NODE, files)}, {NODE: files})
    assert (told.name, told.proxy, told.signal) == ("unknown", "iptables", "")


def test_every_own_plugin_can_be_loaded() -> None:
    broken = [p.name for p in registry.installed_plugins() if isinstance(p, registry._FailedPlugin)]
    assert broken == []
    assert {"flannel", "calico", "cilium", "kindnet", "aws"} <= {
        entry.name for entry in registry.installed_plugins()
    }


ASK = """
import json, sys
from kptrace.plugins import registry
from kptrace.model import Netns
from kptrace.simulate.snapshot.snapshot import read_snapshot

files = {"ip-link.json": sys.argv[1], "example.txt": "hello\\n"}
node = Netns(node="node-a")
(told,) = registry.detected_networks({node: read_snapshot(node, files)}, {node: files})
print(json.dumps([told.name, told.signal, list(told.limits), list(registry.extra_files())]))
"""


@pytest.mark.slow
def test_a_stranger_s_plugin_is_found_by_its_entry_point(tmp_path: Path) -> None:
    """Built and installed with pip alone: no network, no build requirement but what is here."""
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    alone = ["--no-deps", "--no-build-isolation", "--no-index", "--target", str(tmp_path)]
    subprocess.run([*pip, *alone, str(EXAMPLE)], check=True, cwd=tmp_path)
    links = json.dumps([{"ifindex": 5, "ifname": "example0", "flags": ["UP"], "mtu": 1500}])
    said = subprocess.run(
        [sys.executable, "-c", ASK, links],
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    name, signal, limits, wanted = json.loads(said)
    assert (name, signal) == ("Example", "device example0")
    assert limits == ["all that it says of itself: hello"]
    assert "example.txt" in wanted
