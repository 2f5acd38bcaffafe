"""Commands on this machine: what is run, in which namespace, and what is said when it fails."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterable, Sequence
from pathlib import Path

from kptrace.agent.netns import run_in_netns
from kptrace.lab.address_plan import Plan, Proxy
from kptrace.lab.state import NETNS
from kptrace.model.errors import ObservationError, PermissionDeniedError, UnsupportedError

SBIN = ("/usr/local/sbin", "/usr/sbin", "/sbin")

# The rules that Flannel and kptrace's iptables modes need come by the same backend.
BACKEND: dict[Proxy, str] = {
    "iptables": "nft",
    "iptables-legacy": "legacy",
    "nftables": "nft",
    "ipvs": "legacy",
    "cilium": "nft",
}
PRIVILEGED = "in a container, run it privileged (CAP_SYS_ADMIN, CAP_NET_ADMIN, writable /proc/sys)"
PACKAGES = {"nft": "nftables"} | {name: name for name in ("ipset", "ipvsadm")}


def iptables(proxy: Proxy, family: int, command: str = "") -> str:
    """The program's name, such as ``ip6tables-legacy-restore``; ``family`` 0 is IPv4, 1 IPv6."""
    program = f"{'ip6' if family else 'ip'}tables-{BACKEND[proxy]}"
    return f"{program}-{command}" if command else program


def require_root() -> None:
    if os.geteuid():
        raise PermissionDeniedError(
            "a lab is made of network namespaces, which needs root", "run it with sudo"
        )


def require(plan: Plan) -> None:
    """Root, and every program that this lab will run."""
    require_root()
    programs = [iptables(plan.proxy, family, "restore") for family in (0, 1)]
    programs += ["nft"] * (plan.proxy == "nftables") + ["ipvsadm"] * (plan.proxy == "ipvs")
    programs += ["ipset"] * (plan.proxy == "ipvs" or plan.calico)
    missing = {
        PACKAGES.get(program, "iptables"): program for program in programs if not find(program)
    }
    if missing:
        raise UnsupportedError(
            f"not installed: {', '.join(missing.values())}",
            f"on Debian or Ubuntu: apt-get install {' '.join(missing)}",
        )


def find(program: str) -> str | None:
    """Also where root's shells find it but a login without ``-`` does not."""
    path = os.pathsep.join((os.environ.get("PATH", os.defpath), *SBIN))
    return shutil.which(program, path=path)


def run(argv: Sequence[str], stdin: str = "", netns: str = "") -> str:
    """Its stdout; ``netns`` is a namespace's name, empty for the machine's own."""
    if netns:
        return run_in_netns(str(NETNS / netns), lambda: run(argv, stdin))
    program = find(argv[0]) or argv[0]
    done = subprocess.run(
        [program, *argv[1:]], input=stdin, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise CommandFailed(argv, done.stderr.strip() or f"exit code {done.returncode}", stdin)
    return done.stdout


def write_sysctls(settings: Iterable[tuple[str, str]], netns: str) -> None:
    def write() -> None:
        for name, value in settings:
            try:
                sysctl_path(name).write_text(value)
            except FileNotFoundError:
                raise _absent(name) from None
            except OSError as error:
                raise PermissionDeniedError(
                    f"sysctl {name} cannot be written: {error.strerror}", PRIVILEGED
                ) from error

    run_in_netns(str(NETNS / netns), write)


def _absent(name: str) -> UnsupportedError:
    """The families of settings that are not there on every machine."""
    if name.startswith("net.bridge."):
        return UnsupportedError(
            "br_netfilter is not loaded: rules would not see packets between pods of one node",
            "load it as Kubernetes nodes do: modprobe br_netfilter",
        )
    if name.startswith("net.ipv4.vs."):
        return UnsupportedError(
            "this kernel has no IPVS (ip_vs is not loaded)",
            "load it as kube-proxy does: modprobe -a ip_vs ip_vs_rr; a kernel without it runs the"
            " proxies iptables and nftables",
        )
    if name.startswith("net.ipv6."):
        return UnsupportedError("this kernel has no IPv6", "boot it without ipv6.disable=1")
    return UnsupportedError(f"this kernel has no sysctl {name}")


def read_sysctl(name: str, netns: str) -> str:
    return run_in_netns(str(NETNS / netns), lambda: sysctl_path(name).read_text().strip())


def sysctl_path(name: str) -> Path:
    """A dot in a device's name is written as a slash, as sysctl(8) has it."""
    return Path("/proc/sys", *(part.replace("/", ".") for part in name.split(".")))


class CommandFailed(ObservationError):
    """``said``: its stderr; ``stdin``: what it was fed."""

    def __init__(self, argv: Sequence[str], said: str, stdin: str) -> None:
        super().__init__(f"{' '.join(argv)}: {said}")
        self.said = said
        self.stdin = stdin
