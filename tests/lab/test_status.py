from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from kptrace.lab import manifests, state, status
from kptrace.lab.address_plan import plan
from kptrace.lab.state import ActiveFault, Lab, LabStateFile


@pytest.fixture
def lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Lab:
    """A lab on paper: its files, without the kernel's part."""
    monkeypatch.setattr(state, "ROOT", tmp_path)
    made = Lab(
        plan=plan("paper", 9),
        state=LabStateFile(
            nodes=9,
            proxy="iptables",
            network="vxlan",
            ready=True,
            faults=(ActiveFault(fault="fdb-stale", before={"dst": "172.30.0.12"}),),
        ),
    )
    state.save(made)
    made.api.mkdir()
    for name, text in manifests.documents(made.plan).items():
        (made.api / name).write_text(text)
    return made


def test_fits_into_80_columns(lab: Lab) -> None:
    text = status.text(status.status(lab))
    assert max(len(line) for line in text.splitlines()) <= 80


def test_names_everything(lab: Lab) -> None:
    text = status.text(status.status(lab))
    for word in ("web", "203.0.113.10", "fd00:10:96::113", "kube-dns", "172.30.0.19"):
        assert word in text
    assert "remote          10.96.1.2        80/TCP           remote-1\n" in text
    assert "empty           10.96.1.6        80/TCP           none\n" in text
    assert "nodeport        10.96.1.8        80:30080/TCP     web-1 web-2 web-3\n" in text
    assert "fdb-stale  node-a tunnels to an address that is gone" in text


def test_json_is_for_machines(lab: Lab) -> None:
    read = msgspec.json.decode(msgspec.json.encode(status.status(lab)))
    assert (read["kind"], read["apiVersion"]) == ("LabStatus", "kptrace.io/v1alpha1")
    dual = next(one for one in read["services"] if one["name"] == "dual")
    assert dual["addresses"] == ["10.96.1.13", "fd00:10:96::113"]
    assert dual["pods"] == ["web-1", "web-2", "web-3"]
    assert read["faults"][0]["node"] == "node-a"
    assert read["servers"] is False
