"""What the ground needs of Debian; installed when it is missing, as root."""

from __future__ import annotations

import os
import shutil
import sys

from cluster.ground.plan import NotPossible
from cluster.ground.shell import run

# program -> package
NEEDED = {
    "etcd": "etcd-server",
    "containerd": "containerd",
    "runc": "runc",
    "/usr/lib/cni/bridge": "containernetworking-plugins",
    "/bin/busybox": "busybox-static",
    "/bin/nc.openbsd": "netcat-openbsd",
    "/usr/bin/curl": "curl",
    "conntrack": "conntrack",
    "ip": "iproute2",
    "iptables-nft": "iptables",
    "nft": "nftables",
    "openssl": "openssl",
    "sysctl": "procps",
    "ldd": "libc-bin",
    "mount": "mount",
    "nsenter": "util-linux",
    "start-stop-daemon": "dpkg",
}
PATH = os.pathsep.join((os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin"))


def missing() -> list[str]:
    return [package for program, package in NEEDED.items() if not shutil.which(program, path=PATH)]


def install() -> None:
    """Only root can have a cluster. Where systemd runs, Debian's packages start an etcd and a
    containerd of their own, which the cluster does not meet."""
    if os.geteuid() != 0:
        raise NotPossible("a cluster needs root: namespaces, mounts, cgroups")
    os.environ["PATH"] = PATH  # su without a login has no sbin
    wanted = missing()
    if not wanted:
        return
    if not shutil.which("apt-get"):
        raise NotPossible(f"missing: {' '.join(wanted)}")
    print(f"installing: {' '.join(wanted)}", file=sys.stderr)
    quiet = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    run("apt-get", "update", "-qq", env=quiet, seconds=600)
    run(
        *("apt-get", "install", "-y", "-qq", "--no-install-recommends", *wanted),
        env=quiet,
        seconds=900,
    )
