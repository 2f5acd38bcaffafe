"""A real CoreDNS in a pod's namespace, with the lab's zone as a master file."""

from __future__ import annotations

import subprocess
from pathlib import Path
from threading import Thread

from kptrace.agent.netns import run_in_netns
from kptrace.lab import state
from kptrace.lab.address_plan import PodPlan
from kptrace.lab.dns_zone import DOMAIN, Zone
from kptrace.model.errors import ObservationError

STARTED = b"CoreDNS-"


def corefile(zone_file: Path) -> str:
    """The lab's world ends at its domain: no other name exists."""
    return (
        f"{DOMAIN}:53 {{\n    errors\n    file {zone_file} {DOMAIN}\n}}\n"
        ".:53 {\n    errors\n    template ANY ANY {\n        rcode NXDOMAIN\n    }\n}\n"
    )


def start(binary: str, pod: PodPlan, zone: Zone, directory: Path) -> subprocess.Popen[bytes]:
    """Start it and wait for the line that it prints once it listens."""
    zone_file, config = directory / f"{DOMAIN}.zone", directory / "Corefile"
    zone_file.write_text(zone.text())
    config.write_text(corefile(zone_file))
    child = run_in_netns(
        f"{state.NETNS}/{pod.netns}",
        lambda: subprocess.Popen(
            [binary, "-conf", str(config)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        ),
    )
    assert child.stdout is not None
    said = b""
    for line in child.stdout:
        if line.startswith(STARTED):
            # it would stop at a full pipe
            Thread(target=child.stdout.read, daemon=True).start()
            return child
        said = line
    raise ObservationError(f"{binary} ended at once in {pod.key}: {said.decode(errors='replace')}")
