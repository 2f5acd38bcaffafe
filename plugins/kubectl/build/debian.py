"""Debian packages, with all that they need and nothing else, as a tree of files.

In: names of packages. Out: their archives in a cache folder; then a folder that holds what is in
them. apt resolves them against an empty system (its status file is ``/dev/null``), so the host's
own packages neither matter nor change, and no maintainer script runs: what of their work an image
needs is done here (the merged /usr, the default of the iptables commands, who root is).
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tarfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

PACKAGES = (
    "python3",
    "iptables",  # both variants
    "nftables",
    "ipset",
    "ipvsadm",
    "iproute2",
    "conntrack",
    "busybox",  # a shell for whoever looks inside, and `sleep`
)

# Needed by Debian's tools and scripts for installing, which no image runs.
LEFT_OUT = frozenset(
    ("debconf", "dpkg", "gcc-12-base", "gcc-14-base", "readline-common", "sysvinit-utils", "tar")
)

# Not needed to run; the licences stay.
_SHED = ("usr/share/", "etc/init.d/", "usr/lib/systemd/", "usr/lib/python3/dist-packages/")
_GCONV = "/gconv/"  # character sets for iconv
_KEPT = ("/copyright", "usr/share/iproute2/", "usr/share/python3/")

_MERGED = ("bin", "sbin", "lib", "lib64")
_APPLETS = ("cat", "env", "grep", "id", "kill", "ls", "mkdir", "ps", "rm", "sh", "sleep", "tar")


def archives(cache: Path, packages: Sequence[str] = PACKAGES) -> list[Path]:
    """The packages and what they depend on, downloaded where the cache lacks them."""
    (cache / "archives" / "partial").mkdir(parents=True, exist_ok=True)
    options = [
        *("-o", "Dir::State::status=/dev/null", "-o", f"Dir::Cache={cache}"),
        *("-o", "Debug::NoLocking=1", "-o", "APT::Sandbox::User="),
    ]
    try:
        listed = _fetched(options, packages)
    except subprocess.CalledProcessError:  # the host's lists are old, or it has none
        (cache / "lists" / "partial").mkdir(parents=True, exist_ok=True)
        options += ["-o", f"Dir::State::lists={cache}/lists"]
        try:
            _apt("update", *options)
            listed = _fetched(options, packages)
        except subprocess.CalledProcessError as error:
            raise SystemExit(f"apt-get could not: {error.stderr.strip()}") from None
    files = [line.split()[1] for line in listed.splitlines() if line.startswith("'")]
    return sorted(
        cache / "archives" / file for file in files if file.partition("_")[0] not in LEFT_OUT
    )


def _fetched(options: Sequence[str], packages: Sequence[str]) -> str:
    """Downloads, and tells all files' names: those that a cache without any would lack."""
    install = ("install", "--yes", "--no-install-recommends", *options, *packages)
    _apt(*install, "--download-only")
    return _apt(*install, "--print-uris", "-o", "Dir::Cache::archives=none")


def unpack(debs: Iterable[Path], tree: Path) -> None:
    for name in _MERGED:
        (tree / "usr" / name).mkdir(parents=True)
        (tree / name).symlink_to(f"usr/{name}")
    for deb in debs:
        with (
            subprocess.Popen(["dpkg-deb", "--fsys-tarfile", deb], stdout=subprocess.PIPE) as popen,
            tarfile.open(fileobj=popen.stdout, mode="r|") as members,
        ):
            for member in members:
                _put(members, member, tree)
        if popen.returncode:
            raise SystemExit(f"{deb} is damaged: remove it and try again")
        about = tree / "var/lib/dpkg/status.d" / deb.name.partition("_")[0]
        about.parent.mkdir(parents=True, exist_ok=True)  # what scanners of images read
        about.write_bytes(subprocess.check_output(["dpkg-deb", "--field", deb]))
    _finish(tree)


def _put(members: tarfile.TarFile, member: tarfile.TarInfo, tree: Path) -> None:
    name = _place(member.name)
    kept = any(part in name for part in _KEPT)
    if _GCONV in name or (name.startswith(_SHED) and not kept):
        return
    path = tree / name
    path.parent.mkdir(parents=True, exist_ok=True)
    if member.issym():
        path.unlink(missing_ok=True)
        path.symlink_to(member.linkname)
    elif member.islnk():
        path.unlink(missing_ok=True)
        os.link(tree / _place(member.linkname), path)
    elif member.isfile():
        content = members.extractfile(member)
        assert content is not None
        with path.open("wb") as file:
            shutil.copyfileobj(content, file)
        path.chmod(member.mode & 0o755)
    elif member.isdir():
        path.mkdir(exist_ok=True)


def _place(name: str) -> str:
    """``./lib/x/y`` lies in ``usr/lib/x/y``: an image of today has a merged /usr."""
    name = name.removeprefix("./").rstrip("/")
    return f"usr/{name}" if name.partition("/")[0] in _MERGED else name


def _finish(tree: Path) -> None:
    """What maintainer scripts would have done."""
    for name, target in _links():
        (tree / name).unlink(missing_ok=True)
        (tree / name).symlink_to(target)
    for folder in ("dev", "etc", "proc", "root", "run", "sys", "tmp"):
        (tree / folder).mkdir(exist_ok=True)
    (tree / "etc/passwd").write_text("root:x:0:0:root:/root:/bin/sh\n")
    (tree / "etc/group").write_text("root:x:0:\n")


def _links() -> Iterator[tuple[str, str]]:
    for command in ("iptables", "ip6tables"):
        for what in ("", "-save", "-restore"):
            yield f"usr/sbin/{command}{what}", f"{command}-nft{what}"
    for applet in _APPLETS:
        yield f"usr/bin/{applet}", "busybox"


def _apt(*texts: str) -> str:
    done = subprocess.run(["apt-get", "-qq", *texts], capture_output=True, text=True, check=True)
    return done.stdout
