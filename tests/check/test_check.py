"""``check`` of a bundle: which questions are asked, what is told together, what is left open."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import jsonschema
import pytest

import kptrace.render.schema
from kptrace.bundle.folder import Bundle
from kptrace.check.check import check
from kptrace.cli.app import _run
from kptrace.model import CheckReport
from kptrace.model.errors import AgentError
from kptrace.render.check import checkup
from kptrace.render.json import json as rendered

EMPTY = {"nft-ruleset.json": '{"nftables": []}', "iptables-save.txt": "", "ip6tables-save.txt": ""}


@pytest.fixture
def bundle(cases: Path, tmp_path: Path) -> Path:
    """Two nodes of real kube-proxies in nftables mode, without routes and pods."""
    folder = tmp_path / "bundle"
    for node in ("node-a", "node-b"):
        (folder / node).mkdir(parents=True)
        text = (cases / "kube-proxy" / node / "nft-ruleset.json").read_text()
        (folder / node / "nft-ruleset.json").write_text(text)
    (folder / "api").symlink_to(cases / "kube-proxy" / "api")
    return folder


def checked(path: Path) -> CheckReport:
    state = Bundle(path)
    return check(state, state.nodes, lambda _: None)


def without_rules(path: Path) -> None:
    for name, text in EMPTY.items():
        (path / "node-b" / name).write_text(text)


def test_rules_of_a_real_kube_proxy(bundle: Path) -> None:
    made = checked(bundle)
    assert [(one.name, one.proxy) for one in made.nodes] == [
        ("node-a", "nftables"),
        ("node-b", "nftables"),
    ]
    assert [one for one in made.findings if one.severity == "error"] == []
    assert made.services > 10


def test_a_node_where_no_proxy_wrote(bundle: Path) -> None:
    """Said once, not for each Service."""
    without_rules(bundle)
    made = checked(bundle)
    wrong = [one for one in made.findings if one.severity == "error"]
    assert [(one.cause, one.node) for one in wrong] == [("proxy-rules-missing", "node-b")]
    (differ,) = (one for one in made.findings if one.cause == "proxy-mode-mismatch")
    assert "nftables on node-a; none on node-b" in differ.summary


def test_a_stale_rule_of_one_service(bundle: Path) -> None:
    path = bundle / "node-a" / "nft-ruleset.json"
    ruleset = path.read_text()
    slices = json.loads((bundle / "api" / "endpointslices.json").read_text())["items"]
    service, address = next(
        (
            each["metadata"]["labels"]["kubernetes.io/service-name"],
            each["endpoints"][0]["addresses"][0],
        )
        for each in slices
        if each["metadata"]["labels"]["kubernetes.io/service-name"] == "web"
    )
    path.write_text(ruleset.replace(f'"{address}"', '"10.244.9.9"'))
    made = checked(bundle)
    told = {one.cause for one in made.findings if one.severity == "error"}
    assert {"stale-dnat", "endpoint-missing"} <= told
    assert service == "web"


class Half:
    """A state of which one node cannot be had."""

    nodes = ("node-a", "node-b")

    def __init__(self, whole: Bundle) -> None:
        self._whole = whole

    def api(self) -> Mapping[str, bytes]:
        return self._whole.api()

    def node(self, name: str) -> Mapping[str, str]:
        if name == "node-b":
            raise AgentError("the agent on node-b is gone", "try again")
        return self._whole.node(name)

    def rules_changed_while_reading(self, name: str) -> bool:
        return False

    def refresh_after(self, seconds: float) -> bool:
        return False


def test_a_node_that_cannot_be_had_is_said(bundle: Path) -> None:
    made = check(Half(Bundle(bundle)), ("node-a", "node-b"), lambda _: None)
    assert [one.name for one in made.nodes] == ["node-a"]
    assert [(one.node, one.unavailable) for one in made.unavailable] == [
        ("node-b", "the agent on node-b is gone")
    ]
    text = checkup(made)
    assert "node-b  not read: the agent on node-b is gone (try again)" in text


def test_without_an_api(bundle: Path) -> None:
    (bundle / "api").unlink()
    made = checked(bundle)
    assert made.missing
    assert made.services > 10  # named by the rules
    assert "Rules were not compared with the API" in checkup(made)


@pytest.mark.parametrize("width", [40, 60, 80])
@pytest.mark.parametrize("broken", [True, False])
def test_it_fits_and_needs_no_colour(bundle: Path, width: int, broken: bool) -> None:
    if broken:
        without_rules(bundle)
    made = checked(bundle)
    text = checkup(made, width, wide=True)
    assert max(map(len, text.splitlines())) <= width
    assert "\x1b" not in text
    assert ("1 FAULT" in text) is broken


def test_the_document_keeps_to_its_schema(bundle: Path) -> None:
    without_rules(bundle)
    folder = Path(kptrace.render.schema.__file__).parent
    schema = json.loads((folder / "check-report.schema.json").read_text())
    jsonschema.Draft202012Validator.check_schema(schema)
    document = json.loads(rendered(checked(bundle)))
    jsonschema.Draft202012Validator(schema).validate(document)
    assert (document["kind"], document["nodes"][1]["proxy"]) == ("CheckReport", "none")


def test_exit_codes(bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert _run(["check", "--bundle", str(bundle)]) == 0
    without_rules(bundle)
    assert _run(["check", "--bundle", str(bundle)]) == 1
    assert _run(["check", "--bundle", str(bundle), "--node", "node-a"]) == 0
    assert _run(["check", "--bundle", str(bundle), "--node", "node-x"]) == 3
    assert _run(["check", "--bundle", str(bundle), "--lab"]) == 2
    (bundle / "empty").mkdir()
    assert _run(["check", "--bundle", str(bundle / "empty")]) == 3
    assert "there is no node's state in it" in capsys.readouterr().err
