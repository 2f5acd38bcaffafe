"""krew's rules for a manifest and for an installation, as krew itself applies them.

Rules: krew's internal/index/validation/validate.go, cmd/validate-krew-manifest and
pkg/index/types.go (the fields). Installation: internal/download/downloader.go (what is unpacked),
internal/installation/move.go (``files``), install.go (the link). Style: the guides "Writing krew
plugin manifests" and "Plugin naming".
"""

from __future__ import annotations

import hashlib
import re
import tarfile
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

API_VERSION = "krew.googlecontainertools.github.com/v1alpha2"
PLATFORMS = [(os, arch) for os in ("linux", "darwin") for arch in ("386", "amd64", "arm", "arm64")]
PLATFORMS += [("windows", "386"), ("windows", "amd64")]

SCHEMA = {
    "type": "object",
    "additionalProperties": False,
    "required": ["apiVersion", "kind", "metadata", "spec"],
    "properties": {
        "apiVersion": {"const": API_VERSION},
        "kind": {"const": "Plugin"},
        "metadata": {
            "type": "object",
            "additionalProperties": False,
            "required": ["name"],
            "properties": {"name": {"type": "string", "pattern": r"^[\w-]+$"}},
        },
        "spec": {
            "type": "object",
            "additionalProperties": False,
            "required": ["version", "shortDescription", "description", "homepage", "platforms"],
            "properties": {
                # semver with the v that krew wants before it
                "version": {
                    "type": "string",
                    "pattern": r"^v(0|[1-9]\d*)(\.(0|[1-9]\d*)){2}(-[0-9A-Za-z.-]+)?$",
                },
                "shortDescription": {"type": "string", "pattern": r"^[^\r\n]+$", "maxLength": 70},
                "description": {"type": "string", "minLength": 1},
                "caveats": {"type": "string"},
                "homepage": {"type": "string", "pattern": "^https://"},
                "platforms": {
                    "type": "array",
                    "minItems": 1,
                    "items": {"$ref": "#/$defs/platform"},
                },
            },
        },
    },
    "$defs": {
        "platform": {
            "type": "object",
            "additionalProperties": False,
            "required": ["uri", "sha256", "selector", "bin"],
            "properties": {
                "uri": {"type": "string", "pattern": r"^https://.+\.(zip|tar\.gz)$"},
                "sha256": {"type": "string", "pattern": "^[a-f0-9]{64}$"},
                "bin": {"type": "string", "minLength": 1},
                "files": {
                    "type": "array",
                    "minItems": 1,
                    "items": {
                        "type": "object",
                        "additionalProperties": False,
                        "required": ["from", "to"],
                        "properties": {
                            "from": {"type": "string", "minLength": 1},
                            "to": {"type": "string", "minLength": 1},
                        },
                    },
                },
                "selector": {
                    "type": "object",
                    "additionalProperties": False,
                    "required": ["matchLabels"],
                    "properties": {
                        "matchLabels": {
                            "type": "object",
                            "minProperties": 1,
                            "propertyNames": {"enum": ["os", "arch"]},
                        }
                    },
                },
            },
        }
    },
}


def mistakes(name: str, manifest: Mapping[str, Any]) -> Iterator[str]:
    """What krew and its reviewers object to, beside what the schema says."""
    import jsonschema

    for error in jsonschema.Draft202012Validator(SCHEMA).iter_errors(manifest):
        yield f"{error.json_path}: {error.message}"
    spec = manifest["spec"]
    if manifest["metadata"]["name"] != name:
        yield "the plugin is not called as its file"
    if name.startswith("kube") or not re.fullmatch("[a-z][a-z-]*", name):
        yield "the name is not as the naming guide wants it"
    if re.search("kubectl|plugin", spec["shortDescription"], re.IGNORECASE):
        yield "the short description has redundant words"
    for field in ("description", "caveats"):
        for line in spec.get(field, "").splitlines():
            if len(line) > 80 and " " in line.strip():
                yield f"a line of {field} is longer than 80"
    for pair in PLATFORMS:
        if len([each for each in spec["platforms"] if _selects(each, *pair)]) > 1:
            yield f"two platforms select {pair}"
    for number, each in enumerate(spec["platforms"]):
        if not any(_selects(each, *pair) for pair in PLATFORMS):
            yield f"platform {number} selects nothing that krew runs on"
        if "LICENSE" not in [part["from"] for part in each.get("files", [{"from": "LICENSE"}])]:
            yield f"platform {number} does not install the licence"
        if (
            each["selector"].get("matchLabels", {}).get("os") == "windows"
            and each["bin"][-4:] != ".exe"
        ):
            yield f"platform {number} has no .exe"


def chosen(manifest: Mapping[str, Any], os: str, arch: str) -> dict[str, Any]:
    (found,) = [each for each in manifest["spec"]["platforms"] if _selects(each, os, arch)]
    return dict(found)


def _selects(platform: Mapping[str, Any], os: str, arch: str) -> bool:
    here, labels = {"os": os, "arch": arch}, platform["selector"].get("matchLabels", {})
    return all(here[key] == value for key, value in labels.items())


def install(
    manifest: Mapping[str, Any], platform: Mapping[str, Any], file: Path, root: Path
) -> Path:
    """Below ``root``, krew's folder; returns the folder of links that is to be on PATH."""
    assert hashlib.sha256(file.read_bytes()).hexdigest() == platform["sha256"]
    name, version = manifest["metadata"]["name"], manifest["spec"]["version"]
    unpacked, store = root / "tmp", root / "store" / name / version
    _unpack(file, unpacked)
    store.mkdir(parents=True)
    for part in platform["files"]:
        assert part["to"] == str(PurePosixPath(part["to"]))
        found = sorted(unpacked.glob(part["from"]))
        assert found, f"nothing matches {part['from']}"
        for each in found:
            each.rename(store / part["to"] / each.name)
    links = root / "bin"
    links.mkdir()
    program = store / platform["bin"]
    assert program.is_file()
    (links / f"kubectl-{name.replace('-', '_')}").symlink_to(program)
    return links


def _unpack(file: Path, folder: Path) -> None:
    with tarfile.open(file, "r:gz") as tar:
        for entry in tar:
            assert ".." not in entry.name
            assert entry.name[0] not in "/\\"
            assert entry.isreg() or entry.isdir(), "krew unpacks nothing else"
        tar.extractall(folder)
