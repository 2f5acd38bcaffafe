"""The Containerfile, built by a container tool as a user would, but without a registry.

buildah works without a daemon, and with chroot isolation also where no container can be started.
What the file names as its base is made by debootstrap: Debian 12 as on Docker Hub, with more
documentation. Debian's mirror and PyPI are needed; how pip reaches the latter here it is told.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from cluster.ground.home import cache

from kptrace import __version__

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

ROOT = Path(__file__).parents[2]
FILE = ROOT / "plugins" / "kubectl" / "Containerfile"
BASE = re.compile(r"^FROM (docker\.io/library/debian:12-slim) AS base$", re.MULTILINE)
SUITE, MIRROR = "bookworm", "http://deb.debian.org/debian"
NEEDED = ("buildah", "debootstrap")
PIP = ("PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL", "PIP_TRUSTED_HOST")
CA = "/run/host-ca.crt"


class Buildah(NamedTuple):
    folder: Path

    def __call__(self, *words: str | Path) -> str:
        store = ("--root", self.folder / "store", "--runroot", self.folder / "run")
        done = subprocess.run(
            ["buildah", *store, "--storage-driver", "vfs", *words],
            capture_output=True,
            text=True,
            stdin=subprocess.DEVNULL,
            check=False,
        )
        assert done.returncode == 0, f"{words}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
        return done.stdout


@pytest.fixture
def buildah(tmp_path: Path) -> Iterator[Buildah]:
    lacking = [name for name in NEEDED if shutil.which(name) is None]
    lacking += ["root"] if os.geteuid() else []
    if lacking:
        said = f"the Containerfile cannot be built here: no {', no '.join(lacking)}"
        if os.environ.get("CI") == "true":
            pytest.fail(said, pytrace=False)
        pytest.skip(said)
    yield Buildah(tmp_path)
    for name in ("store", "run"):  # a gigabyte
        shutil.rmtree(tmp_path / name, ignore_errors=True)


def base(folder: Path) -> Path:
    """A tar of the base's root file system; it is kept for the next time."""
    made = cache() / "containerfile" / f"{SUITE}.tar"
    if not made.exists():
        made.parent.mkdir(parents=True, exist_ok=True)
        tree, new = folder / "tree", made.with_suffix(f".{os.getpid()}")
        subprocess.run(["debootstrap", "--variant=minbase", SUITE, tree, MIRROR], check=True)
        subprocess.run(["tar", "-C", tree, "-cf", new, "."], check=True)
        shutil.rmtree(tree)
        new.rename(made)
    return made


def reaching_pip() -> Iterator[str]:
    for name in PIP:
        if name in os.environ:
            yield f"--env={name}={os.environ[name]}"
    certificates = os.environ.get("PIP_CERT") or os.environ.get("SSL_CERT_FILE")
    if certificates:
        yield f"--volume={certificates}:{CA}:ro"
        yield f"--env=PIP_CERT={CA}"


def test_it_builds_and_what_is_in_it_runs(buildah: Buildah, tmp_path: Path) -> None:
    named = BASE.search(FILE.read_text(encoding="utf-8"))
    assert named
    scratch = buildah("from", "scratch").strip()
    buildah("add", scratch, base(tmp_path), "/")
    buildah("commit", "--rm", scratch, named[1])

    words = ("--isolation=chroot", "--pull-never", "--layers=false", *reaching_pip())
    buildah("bud", *words, "-f", FILE, "-t", "localhost/kptrace-test", ROOT)

    made = buildah("from", "--pull-never", "localhost/kptrace-test").strip()
    shown = buildah("inspect", "--format", "{{.OCIv1.Config.Entrypoint}}", made)
    assert shown.strip() == "[kptrace]"

    def run(*command: str) -> str:
        return buildah("run", "--isolation=chroot", made, "--", *command)

    assert run("kptrace", "--version") == f"kptrace {__version__}\n"
    assert "no-route" in run("kptrace", "causes", "no-route")
    assert "nf_tables" in run("iptables-save", "-V")
    assert "legacy" in run("iptables-legacy-save", "-V")
    assert "nftables v" in run("nft", "--version")
    assert "iproute2" in run("ip", "-V")
    for program in ("ipset", "ipvsadm", "conntrack", "busybox", "sleep"):
        assert run("sh", "-c", f"command -v {program}").strip().endswith(f"/{program}")
    # on a read-only root file system each start would compile them anew
    compiled = (
        "import kptrace.agent.server, kptrace.agent.capture.event_sources, kubernetes, os, sys; "
        + (
            "print([m for m in sys.modules.values() if getattr(m, '__spec__', None)"
            " and m.__spec__.cached and not os.path.exists(m.__spec__.cached)])"
        )
    )
    assert run("python3", "-c", compiled) == "[]\n"
