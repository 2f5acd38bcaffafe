"""Run by a single-file kptrace after it has unpacked itself and before kptrace starts.

It says what is wrong where its compiled modules do not fit the Python that runs it, and removes
what older versions of the same file unpacked. Older Pythons than ours must be able to read this.
"""

import platform
import shutil
import sys
import sysconfig
from pathlib import Path

# given by shiv
folder: Path = site_packages  # type: ignore[name-defined]  # noqa: F821
file: str = archive  # type: ignore[name-defined]  # noqa: F821


def check() -> None:
    compiled = folder / "msgspec"
    if (compiled / f"_core{sysconfig.get_config_var('EXT_SUFFIX')}").exists():
        return
    tags = sorted(path.name.split(".")[1].split("-", 2) for path in compiled.glob("_core.*.so"))
    versions = ", ".join(f"{version[0]}.{version[1:]}" for _, version, *_ in tags)
    here = f"Python {platform.python_version()} ({sys.executable})"
    on = f"{sysconfig.get_platform()}"
    sys.stderr.write(
        f"kptrace: this file cannot run with {here} on {on}\n"
        f"  it needs Python {versions} on {tags[0][-1]}; if there is one: "
        f"python3.11 {file} ...\n"
    )
    sys.exit(3)


def forget_older() -> None:
    unpacked = folder.parent
    name = unpacked.name.rpartition("_")[0] + "_"
    for other in unpacked.parent.iterdir():
        if other != unpacked and other.name.startswith(name) and not other.name.endswith(".tmp"):
            shutil.rmtree(str(other), ignore_errors=True)


check()
forget_older()
