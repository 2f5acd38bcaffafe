"""Rules are always a moment behind the API: a fault is one that is still there a moment later."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from kptrace.bundle.folder import Bundle
from kptrace.check.check import check
from kptrace.explain.explain import explain_from_state
from kptrace.model import Finding
from kptrace.model.errors import AgentError
from kptrace.model.targets import parse_target

Faults = Callable[["Rolling"], list[Finding]]
BACKEND = '"10.244.1.11"'  # of web, which kube-proxy wrote and the API knows


class Rolling:
    """A state that is another each time one waits."""

    def __init__(self, folders: list[Path]) -> None:
        self._bundles = [Bundle(folder) for folder in folders]
        self.waited: list[float] = []

    @property
    def _now(self) -> Bundle:
        return self._bundles[len(self.waited)]

    @property
    def nodes(self) -> tuple[str, ...]:
        return self._now.nodes

    def api(self) -> Mapping[str, bytes]:
        return self._now.api()

    def node(self, name: str) -> Mapping[str, str]:
        return self._now.node(name)

    def rules_changed_while_reading(self, name: str) -> bool:
        return False

    def refresh_after(self, seconds: float) -> bool:
        self.waited.append(seconds)
        return True


@pytest.fixture
def rules(cases: Path) -> str:
    text = (cases / "kube-proxy" / "node-a" / "nft-ruleset.json").read_text()
    assert BACKEND in text
    return text


def rolling(cases: Path, path: Path, rules: str, *addresses: str) -> Rolling:
    """``addresses``: where the rules of each state send what is BACKEND's in truth; an empty one:
    they are right.
    """
    folders = [path / str(number) for number in range(len(addresses))]
    for folder, address in zip(folders, addresses, strict=True):
        (folder / "node-a").mkdir(parents=True)
        text = rules.replace(BACKEND, f'"{address}"') if address else rules
        (folder / "node-a" / "nft-ruleset.json").write_text(text)
        (folder / "api").symlink_to(cases / "kube-proxy" / "api")
    return Rolling(folders)


def explained(state: Rolling) -> list[Finding]:
    made = explain_from_state(parse_target("svc/web", "default"), None, "", state)
    return [one for one in made.findings if one.severity == "error"]


def checked(state: Rolling) -> list[Finding]:
    made = check(state, state.nodes, lambda _: None)
    return [one for one in made.findings if one.severity == "error"]


@pytest.mark.parametrize("faults", [explained, checked])
class TestLasting:
    def test_nobody_waits_where_nothing_is_wrong(
        self, cases: Path, tmp_path: Path, rules: str, faults: Faults
    ) -> None:
        state = rolling(cases, tmp_path, rules, "")
        assert faults(state) == []
        assert state.waited == []

    @pytest.mark.parametrize("then", ["", "10.244.8.8"])
    def test_what_is_gone_or_another_was_no_fault(
        self, cases: Path, tmp_path: Path, rules: str, faults: Faults, then: str
    ) -> None:
        state = rolling(cases, tmp_path, rules, "10.244.9.9", then)
        found = faults(state)
        assert "10.244.9.9" not in str(found)
        assert not [one for one in found if one.cause == "stale-dnat"]
        assert state.waited == [2.0]

    def test_what_stays_is_one(
        self, cases: Path, tmp_path: Path, rules: str, faults: Faults
    ) -> None:
        state = rolling(cases, tmp_path, rules, "10.244.9.9", "10.244.9.9")
        found = faults(state)
        assert {"stale-dnat", "endpoint-missing"} <= {one.cause for one in found}
        assert "10.244.9.9" in str(found)

    @pytest.mark.parametrize("gone", ["node", "api"])
    def test_what_was_seen_counts_where_one_cannot_look_again(
        self,
        cases: Path,
        tmp_path: Path,
        rules: str,
        faults: Faults,
        gone: str,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        state = rolling(cases, tmp_path, rules, "10.244.9.9", "")
        there = getattr(state, gone)

        def asked(*words: str) -> Mapping[str, bytes]:
            if state.waited:
                raise AgentError("the agent on node-a is gone", "try again")
            told: Mapping[str, bytes] = there(*words)
            return told

        monkeypatch.setattr(state, gone, asked)
        assert "10.244.9.9" in str(faults(state))
        assert state.waited
