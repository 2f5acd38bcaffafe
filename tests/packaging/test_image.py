"""The agent's image: built without a container tool, whole, and its agent works in a chroot."""

from __future__ import annotations

import gzip
import hashlib
import importlib.util
import io
import json
import os
import re
import shlex
import subprocess
import sys
import tarfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import msgspec
import pytest

from kptrace.model import Netns
from kptrace.protocol import NetnsHandle, OpenNamespaces, ReadFiles, Request

ROOT = Path(__file__).parents[2]
INDEX = "application/vnd.oci.image.index.v1+json"


def module(folder: Path, name: str) -> ModuleType:
    found = importlib.util.spec_from_file_location(name, folder / f"{name}.py")
    assert found
    assert found.loader
    made = importlib.util.module_from_spec(found)
    found.loader.exec_module(made)
    return made


# --- the archive ----------------------------------------------------------------------------------


@pytest.fixture
def small(build: Path, tmp_path: Path) -> tuple[ModuleType, Path, Path]:
    """A folder with one of each kind of file, as it is in trees of packages."""
    tree = tmp_path / "tree"
    (tree / "usr/bin").mkdir(parents=True)
    (tree / "tmp").mkdir()
    (tree / "usr/bin/tool").write_text("#!/bin/sh\n")
    (tree / "usr/bin/tool").chmod(0o755)
    (tree / "bin").symlink_to("usr/bin")
    return module(build, "oci"), tree, tmp_path


def blob(tar: tarfile.TarFile, described: Mapping[str, Any]) -> bytes:
    file = tar.extractfile(f"blobs/sha256/{described['digest'].removeprefix('sha256:')}")
    assert file is not None
    content = file.read()
    assert f"sha256:{hashlib.sha256(content).hexdigest()}" == described["digest"]
    assert len(content) == described["size"]
    return content


def check_layout(archive: Path, name: str) -> list[bytes]:
    """The rules of OCI's image layout, and of Docker's manifest; returns the layers."""
    with tarfile.open(archive) as tar:
        read = {each: json.load(tar.extractfile(each)) for each in ("oci-layout", "index.json")}  # type: ignore[arg-type]
        assert read["oci-layout"] == {"imageLayoutVersion": "1.0.0"}
        index = read["index.json"]
        assert (index["schemaVersion"], index["mediaType"]) == (2, INDEX)
        (listed,) = index["manifests"]
        assert listed["annotations"]["io.containerd.image.name"] == name
        manifest = json.loads(blob(tar, listed))
        config = json.loads(blob(tar, manifest["config"]))
        layers = [blob(tar, each) for each in manifest["layers"]]
        held = [f"sha256:{hashlib.sha256(gzip.decompress(each)).hexdigest()}" for each in layers]
        assert config["rootfs"] == {"type": "layers", "diff_ids": held}
        (docker,) = json.load(tar.extractfile("manifest.json"))  # type: ignore[arg-type]
        assert docker["RepoTags"] == [name]
        assert json.load(tar.extractfile(docker["Config"])) == config  # type: ignore[arg-type]
        assert [tar.extractfile(each).read() for each in docker["Layers"]] == layers  # type: ignore[union-attr]
    return layers


def test_a_small_archive(small: tuple[ModuleType, Path, Path]) -> None:
    oci, tree, folder = small
    made = oci.layer(tree, folder / "one.tar.gz")
    config = {"architecture": "amd64", "os": "linux", "config": {}}
    oci.archive([made], config, "localhost/small:1", folder / "image.tar")
    (layer,) = check_layout(folder / "image.tar", "localhost/small:1")
    with tarfile.open(fileobj=io.BytesIO(layer)) as tar:
        entries = {each.name: each for each in tar}
    assert set(entries) == {"bin", "tmp", "usr", "usr/bin", "usr/bin/tool"}
    assert entries["bin"].linkname == "usr/bin"
    assert {(each.uid, each.gid, each.mtime) for each in entries.values()} == {(0, 0, 0)}
    assert entries["usr/bin/tool"].mode == 0o755
    assert entries["tmp"].mode == 0o1777


def test_the_same_files_are_the_same_image(small: tuple[ModuleType, Path, Path]) -> None:
    oci, tree, folder = small
    first = oci.layer(tree, folder / "one.tar.gz")
    os.utime(tree / "usr/bin/tool", (1, 1))
    second = oci.layer(tree, folder / "two.tar.gz")
    assert first.content == second.content
    assert first.file.read_bytes() == second.file.read_bytes()
    assert oci.kept(folder / "one.tar.gz") == first
    assert oci.kept(folder / "none.tar.gz") is None


def test_packages_lie_in_a_merged_usr(build: Path) -> None:
    place = module(build, "debian")._place
    assert place("./lib/x86_64-linux-gnu/libc.so.6") == "usr/lib/x86_64-linux-gnu/libc.so.6"
    assert place("./sbin/ip") == "usr/sbin/ip"
    assert place("./usr/sbin/nft") == "usr/sbin/nft"
    assert place("./etc/protocols") == "etc/protocols"
    assert place("./library/x") == "library/x"


APT = """#!/bin/sh
echo "$@" >> "$ASKED"
case $* in
*Dir::State::lists=*) ;;
*) echo 'E: no lists' >&2; exit 100 ;;
esac
case $* in
*--print-uris*) echo "'https://mirror/python3.deb' python3_3.11.2-1_amd64.deb 26300 SHA256:0"
	echo "'https://mirror/debconf.deb' debconf_1.5.82_all.deb 121212 SHA256:0" ;;
esac
"""


def test_a_host_without_package_lists(
    build: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The builder has its own then; and what only installing needs is left out."""
    program, asked = tmp_path / "apt-get", tmp_path / "asked"
    program.write_text(APT)
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setenv("ASKED", str(asked))
    cache = tmp_path / "cache"
    found = module(build, "debian").archives(cache)
    assert found == [cache / "archives" / "python3_3.11.2-1_amd64.deb"]
    said = asked.read_text().splitlines()
    assert [line.split()[1] for line in said] == ["install", "update", "install", "install"]
    assert all("Dir::State::status=/dev/null" in line for line in said)


def test_both_ways_to_build_it_take_the_same_packages(build: Path) -> None:
    text = (ROOT / "plugins/kubectl/Containerfile").read_text(encoding="utf-8")
    installed = re.search(r"--no-install-recommends \\\n(.+) \\\n", text)
    assert installed
    assert installed[1].split() == list(module(build, "debian").PACKAGES)
    assert 'ENTRYPOINT ["kptrace"]' in text


# --- the real one ---------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_image_is_well_formed(image: tuple[Path, Path]) -> None:
    archive, _ = image
    assert len(check_layout(archive, "localhost/kptrace-test:1")) == 3
    assert archive.stat().st_size < 70 << 20


@pytest.mark.slow
def test_nothing_in_it_dangles(image: tuple[Path, Path]) -> None:
    _, root = image

    def lost() -> Iterator[str]:
        for path in root.rglob("*"):
            if path.is_symlink():
                target = os.readlink(path)
                where = root / target[1:] if target.startswith("/") else path.parent / target
                if not where.exists() and not target.startswith("/proc/"):
                    yield f"{path.relative_to(root)} -> {target}"

    assert list(lost()) == []


def chroot(root: Path, command: str, given: str = "") -> subprocess.CompletedProcess[str]:
    """As a runtime starts it: own network, mounts and processes, the image's variables only."""
    inside = f"mount -t proc proc {shlex.quote(str(root))}/proc && exec chroot {root} {command}"
    return subprocess.run(
        ["unshare", "--mount", "--net", "--pid", "--fork", "--kill-child", "sh", "-c", inside],
        input=given,
        env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "XDG_CACHE_HOME": "/tmp"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="chroot needs root")


@needs_root
@pytest.mark.kernel
@pytest.mark.slow
def test_its_agent_tells_of_a_namespace(image: tuple[Path, Path]) -> None:
    here = Netns(node="inside")
    files = ("ip-link.json", "ip-route.json", "iptables-nft-save.txt", "iptables-legacy-save.txt")
    requests: list[Request] = [
        OpenNamespaces(id=1, namespaces=(NetnsHandle(netns=here, ns_path="/proc/self/ns/net"),)),
        ReadFiles(id=2, netns=here, files=files),
    ]
    lines = "".join(msgspec.json.encode(each).decode() + "\n" for each in requests)
    # the end of its input ends an agent at once: keep it open until the last word is said
    agent = "sh -c '{ cat; sleep 5; } | python3 -m kptrace.agent.server | { "
    agent += 'while read -r line; do echo "$line"; case $line in *done*:2*) exit;; esac; done; }\''
    done = chroot(image[1], agent, lines)
    replies = [json.loads(line) for line in done.stdout.splitlines()]
    assert done.returncode == 0, done.stderr
    assert [each["id"] for each in replies if each["type"] == "done"] == [1, 2], replies
    facts = {each["file"]: each for each in replies if each["type"] == "file-content"}
    assert set(facts) == set(files)
    assert {
        file: each.get("unavailable") for file, each in facts.items() if each.get("unavailable")
    } == {}
    assert [link["ifname"] for link in json.loads(facts["ip-link.json"]["text"])][:1] == ["lo"]


@needs_root
@pytest.mark.kernel
@pytest.mark.slow
@pytest.mark.parametrize(
    ("command", "said"),
    [
        ("kptrace --version", "kptrace "),
        ("iptables-save -V", "nf_tables"),
        ("iptables-legacy-save -V", "legacy"),
        ("nft --version", "nftables v"),
        ("ipset --version", "ipset v"),
        ("conntrack --version", "conntrack v"),
        ("ip -V", "iproute2"),
        ("sh -c 'command -v ipvsadm sleep tar'", "/usr/sbin/ipvsadm"),
        ("kptrace causes no-route", "no-route"),
    ],
    ids=lambda value: value.split()[0],
)
def test_its_commands_run(image: tuple[Path, Path], command: str, said: str) -> None:
    done = chroot(image[1], command)
    assert done.returncode == 0, done.stderr
    assert said in done.stdout


@needs_root
@pytest.mark.kernel
@pytest.mark.slow
def test_its_modules_are_compiled(image: tuple[Path, Path]) -> None:
    """On a read-only root file system each start would compile them anew."""
    code = (
        "import sys, importlib.util, kubernetes\n"
        "import kptrace.agent.server, kptrace.agent.capture.event_sources\n"
        "print([m for m in sys.modules.values() if getattr(m, '__spec__', None)"
        " and m.__spec__.cached and not __import__('os').path.exists(m.__spec__.cached)])"
    )
    done = chroot(image[1], f"python3 -c {shlex.quote(code)}")
    assert (done.stdout, done.stderr) == ("[]\n", "")


def test_wrong_usage_of_the_builder(build: Path) -> None:
    done = subprocess.run(
        [sys.executable, build / "image.py", "--nonsense"], capture_output=True, text=True
    )
    assert done.returncode == 2
    assert "unrecognized arguments" in done.stderr
