"""``explain`` from a bundle to the report: which node, which senders, what is refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from kptrace.bundle.folder import Bundle
from kptrace.cli.app import _run
from kptrace.explain.explain import explain_from_state
from kptrace.model import Explanation, ServiceEntrypoint
from kptrace.model.errors import NotFoundError, UsageError
from kptrace.model.targets import parse_source, parse_target


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


def told(bundle: Path, target: str, source: str = "", node: str = "") -> Explanation:
    sender = parse_source(source, "default") if source else None
    return explain_from_state(parse_target(target, "default"), sender, node, Bundle(bundle))


def entries(made: Explanation, kind: str) -> list[ServiceEntrypoint]:
    return [entry for port in made.ports for entry in port.entries if entry.kind == kind]


def test_the_first_node_unless_one_is_named(bundle: Path) -> None:
    assert told(bundle, "svc/web").node == "node-a"
    assert told(bundle, "svc/web", node="node-b").node == "node-b"
    assert told(bundle, "svc/web", source="node/node-b").node == "node-b"
    assert told(bundle, "svc/web").nodes == ("node-a", "node-b")
    with pytest.raises(NotFoundError, match="holds no node node-c"):
        told(bundle, "svc/web", node="node-c")


def test_every_kind_of_sender_or_the_one_that_is_named(bundle: Path) -> None:
    senders = [(one.sender, one.source) for one in entries(told(bundle, "svc/web"), "clusterIP")]
    # the last but one address of node-a's pod range; an address for documentation
    assert senders == [
        ("pod", "10.244.1.254"),
        ("node", "172.30.0.11"),
        ("outside", "203.0.113.7"),
    ]
    for source, wanted in (
        ("node/node-a", ("node", "172.30.0.11")),
        ("198.51.100.9", ("outside", "198.51.100.9")),
    ):
        (only,) = entries(told(bundle, "svc/web", source), "clusterIP")
        assert (only.sender, only.source) == wanted


def test_source_ranges_have_senders_within_and_without(bundle: Path) -> None:
    found = {one.source: one.outcome for one in entries(told(bundle, "svc/lb"), "loadBalancer")}
    assert found == {
        "10.244.1.254": "dropped",
        "172.30.0.11": "delivered",
        "203.0.113.7": "dropped",
        "198.51.100.254": "delivered",
    }


def test_one_port_of_several(bundle: Path) -> None:
    made = told(bundle, "svc/sticky-300:alt")
    assert [(port.name, port.port) for port in made.ports] == [("alt", 81)]
    with pytest.raises(NotFoundError, match="has no port metrics") as caught:
        told(bundle, "svc/sticky-300:metrics")
    assert caught.value.hint == "it has: http 80/tcp, alt 81/tcp"


def test_the_nearest_name_is_told(bundle: Path) -> None:
    with pytest.raises(NotFoundError, match="no Service wbe") as caught:
        told(bundle, "svc/wbe")
    assert "web" in caught.value.hint


@pytest.mark.parametrize("api", [True, False], ids=["API", "rules alone"])
def test_an_address_is_its_services(bundle: Path, api: bool) -> None:
    if not api:
        (bundle / "api").unlink()
    made = told(bundle, "10.96.1.5:80")
    assert made.service is not None
    assert made.service.key == "default/np-local"
    assert (made.target.text, made.target.name) == ("10.96.1.5:80", "np-local")
    with pytest.raises(NotFoundError, match="no Service is known"):
        told(bundle, "10.96.99.99")


def test_a_nodes_address_is_the_way_to_many(bundle: Path) -> None:
    with pytest.raises(UsageError, match="which port") as caught:
        told(bundle, "172.30.0.11")
    wanted = caught.value.hint.removeprefix("name it: ").split(", ")
    assert len(wanted) > 1
    assert all(told(bundle, one).service is not None for one in wanted)


def test_without_the_api_the_rules_name_the_service(bundle: Path) -> None:
    (bundle / "api").unlink()
    made = told(bundle, "svc/np-local")
    assert {one.address for one in entries(made, "clusterIP")} == {"10.96.1.5"}
    assert made.findings == ()
    assert "api/services.json" in made.missing


def test_the_command(bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert _run(["explain", "svc/web", "--bundle", str(bundle)]) == 0
    assert "svc/web (default)  on node-a (nftables)" in capsys.readouterr().out
    assert _run(["explain", "svc/web", "--bundle", str(bundle), "-o", "json"]) == 0
    assert json.loads(capsys.readouterr().out)["kind"] == "Explanation"


def test_rules_that_differ_exit_with_1(bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = bundle / "node-a" / "nft-ruleset.json"
    path.write_text(path.read_text().replace("10.244.2.11", "10.244.2.77"))
    assert _run(["explain", "svc/web", "--bundle", str(bundle)]) == 1
    assert "10.244.2.77:8080, which is none of its endpoints" in " ".join(
        capsys.readouterr().out.split()
    )


@pytest.mark.parametrize("name", ["iptables-save.txt", "nft-ruleset.json"])
def test_rules_alone_that_reject_are_explained(
    cases: Path, tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "node-a").mkdir()  # it holds no route, no address and nothing of the API
    shutil.copy(cases / "kube-proxy" / "node-a" / name, tmp_path / "node-a")
    assert _run(["explain", "svc/empty", "--bundle", str(tmp_path)]) in (0, 1)
    printed = " ".join(capsys.readouterr().out.split())
    assert "svc/empty" in printed
    assert "no endpoints" in printed.lower()


def test_what_was_not_read_is_not_concluded(
    cases: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """kube-proxy is in nftables mode there, and only iptables was saved."""
    (tmp_path / "node-a").mkdir()
    save = "*nat\n:PREROUTING ACCEPT [0:0]\nCOMMIT\n"
    (tmp_path / "node-a" / "iptables-save.txt").write_text(save)
    (tmp_path / "api").symlink_to(cases / "kube-proxy" / "api")
    for command in (["explain", "svc/web"], ["check"]):
        assert _run([*command, "--bundle", str(tmp_path)]) == 4
        printed = " ".join(capsys.readouterr().out.split())
        assert "nft-ruleset.json is not there" in printed
        assert "kube-proxy" not in printed
        assert "NOTHING WRONG FOUND" not in printed


def test_devices_that_were_not_listed_are_not_missing(
    cases: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "node-a").mkdir()
    shutil.copy(cases / "kube-proxy" / "node-a" / "iptables-save.txt", tmp_path / "node-a")
    routes = '[{"dst": "default", "gateway": "172.30.0.1", "dev": "eth0"}]'
    (tmp_path / "node-a" / "ip-route.json").write_text(routes)
    assert _run(["explain", "svc/web", "--bundle", str(tmp_path)]) == 0
    assert "does not exist" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("args", "code", "words"),
    [
        (["svc/web"], 3, "no cluster"),
        (["svc/web", "--lab", "--offline"], 2, "exclude each other"),
        (["pod/x", "--offline"], 2, "is no Service"),
        (["svc/web", "--offline", "-o", "junit"], 2, "'junit' is not one of"),
        (["svc/web", "--bundle", "/nonexistent"], 3, "there is no /nonexistent"),
    ],
)
def test_what_cannot_be_meant(
    args: list[str], code: int, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _run(["explain", *args]) == code
    assert words in capsys.readouterr().err
