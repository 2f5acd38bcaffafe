"""The images that a cluster is given: what is in each of them.

    pause     the sandbox of every pod
    coredns   the cluster's resolver
    server    the workload: one static program
    client    the workload and a shell, busybox's tools and Python: any image that someone debugs in
    agent     kptrace's own image, from plugins/kubectl/build

The client's Python is the one that runs this, moved to ``/usr``, with its standard library.
"""

from __future__ import annotations

import sys
import sysconfig
from pathlib import Path

from cluster.ground import home
from cluster.ground.images import (
    Content,
    Image,
    Link,
    build_image,
    libraries,
    tree,
    with_libraries,
    written,
)
from cluster.ground.node import PAUSE_IMAGE
from cluster.ground.plan import NotPossible
from cluster.ground.shell import run
from msgspec import _core

ROOT = Path(__file__).parents[3]

PLATFORM = sysconfig.get_config_var("MULTIARCH")
PREFIX = "localhost/kptrace"
COREDNS_IMAGE = f"{PREFIX}/coredns:test"
SERVER_IMAGE = f"{PREFIX}/server:test"
CLIENT_IMAGE = f"{PREFIX}/client:test"

BUSYBOX = Path("/bin/busybox")
SHELL = (
    *("cat", "ls", "ps", "kill", "sleep", "env", "id", "head", "tail", "grep", "sed"),
    *("awk", "tar", "gzip", "gunzip", "base64", "mkdir", "rm", "cp", "mv", "ln", "chmod", "mktemp"),
    *("nslookup", "ping", "hostname", "printf", "test", "true", "false", "xargs"),
    *("which", "wc", "sort", "tr", "cut", "find", "timeout", "stat", "dd", "touch", "uname", "tee"),
)
UNWANTED = (
    *("test", "tests", "idlelib", "tkinter", "turtledemo", "ensurepip", "lib2to3", "config-*"),
    *("site-packages", "dist-packages", "*.opt-?.pyc", "*.a"),
)
ACCOUNTS = b"root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n"
BASE: dict[str, Content] = {
    "etc/passwd": ACCOUNTS,
    "etc/group": b"root:x:0:\nnogroup:x:65534:\n",
    "etc/nsswitch.conf": b"hosts: files dns\n",
    "root/.profile": b"",
    "tmp/.keep": b"",
}


def build(binaries: Path) -> list[Path]:
    """The tars, in the order in which a node needs them."""
    return [*(build_image(image) for image in every(binaries)), agent()]


def every(binaries: Path) -> list[Image]:
    server: dict[str, Content] = {"server": binaries / "server"}
    client = with_libraries({**python(), **shell(), **server, **BASE})
    return [
        Image(PAUSE_IMAGE, {"pause": binaries / "pause"}, ("/pause",)),
        Image(COREDNS_IMAGE, {"coredns": binaries / "coredns"}, ("/coredns",)),
        Image(SERVER_IMAGE, server, ("/server",)),
        Image(CLIENT_IMAGE, client, ("/bin/sh", "-c", "exec sleep infinity")),
    ]


def agent() -> Path:
    """kptrace's own image, made as its users make it; its builder keeps what did not change."""
    made = home.images() / "agent.tar"
    with written(made) as new:
        run(sys.executable, ROOT / "plugins/kubectl/build/image.py", "--output", new, seconds=900)
    return made


def python() -> dict[str, Content]:
    """The interpreter and the standard library, and no package; but what compiled packages load,
    which every image of a distribution has.
    """
    version = f"python{sys.version_info[0]}.{sys.version_info[1]}"
    program = Path(sys.base_prefix) / "bin" / version
    if not program.exists():
        raise NotPossible(f"this Python has no program at {program}")
    library = Path(sysconfig.get_paths()["stdlib"])
    return {
        f"usr/bin/{version}": program,
        "usr/bin/python3": Link(version),
        **tree(library, f"usr/lib/{version}", UNWANTED),
        **{f"usr/lib/{PLATFORM}/{one.name}": one for one in libraries(Path(_core.__file__))},
    }


def shell() -> dict[str, Content]:
    """Debian's busybox has a wget that dies and an nc without UDP, and its shell prefers them."""
    links: dict[str, Content] = {f"usr/bin/{name}": Link("busybox") for name in SHELL}
    return {
        "usr/bin/busybox": BUSYBOX,
        "usr/bin/sh": Path("/bin/dash"),
        "usr/bin/curl": Path("/usr/bin/curl"),
        "usr/bin/nc": Path("/bin/nc.openbsd"),
        "bin": Link("usr/bin"),
        **links,
    }
