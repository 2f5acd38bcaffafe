"""Run a program in a session of its own, and end all of it when our stdin ends.

    python guard.py PROGRAM [ARGUMENT ...]

User Mode Linux is several processes on the host, of which the kernel ends only the first with its
parent. Whoever holds the other end of our stdin need not be able to tell us: a pipe ends with its
last holder, also after SIGKILL. If we are killed ourselves, PDEATHSIG ends at least the first.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from contextlib import suppress


def end(group: int) -> None:
    with suppress(ProcessLookupError):
        os.killpg(group, signal.SIGKILL)


def wait_for_the_end(group: int) -> None:
    sys.stdin.buffer.read()
    end(group)


def main() -> int:
    process = subprocess.Popen(
        ["setpriv", "--pdeathsig", "KILL", *sys.argv[1:]],
        stdin=subprocess.DEVNULL,
        start_new_session=True,
    )
    threading.Thread(target=wait_for_the_end, args=(process.pid,), daemon=True).start()
    code = process.wait()
    end(process.pid)
    return code if code >= 0 else 128 - code


if __name__ == "__main__":
    sys.exit(main())
