"""``make demo``: a packet followed through a Service, then through the same one broken. As root.

Every line after a ``$`` is a command as a user types it. The lab has a name of its own and goes at
the end, also after an error or Ctrl-C. Exit code 0: both traces came to what was to be expected.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import sysconfig
from pathlib import Path
from types import FrameType
from typing import NoReturn

LAB = f"demo-{os.getpid()}"
KPTRACE = os.path.relpath(Path(sysconfig.get_path("scripts"), "kptrace"))
TRACE = f"svc/remote -n shop --from pod/client --lab-name {LAB}"
FAULT = "tunnel-port-blocked"


class Unexpected(Exception):
    pass


def main() -> int:
    signal.signal(signal.SIGTERM, _interrupted)
    try:
        show()
    except Unexpected as error:
        print(f"\nThe demo failed: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nInterrupted.", file=sys.stderr)
        return 130
    finally:
        clean()
    return 0


def show() -> None:
    say("A cluster of two nodes, made of network namespaces on this machine:")
    run(f"lab up --name {LAB}")
    say("The Service `remote` has one backend, and it is on the other node. Does a packet arrive?")
    want("DELIVERED", run(TRACE))
    say("Now a firewall on the other node drops the tunnel's packets:")
    run(f"lab break {FAULT} --name {LAB}")
    say("To the client it is a time-out. Where does the packet end, and why?")
    want(FAULT, run(TRACE, code=1))
    say("What is broken can be healed:")
    run(f"lab heal --name {LAB}")
    want("DELIVERED", run(TRACE, lines=1))
    say(f"Your own lab: {KPTRACE} lab up; what else can break: {KPTRACE} lab faults")


def say(words: str) -> None:
    print(f"\n{words}\n", flush=True)


def run(command: str, code: int = 0, lines: int | None = None) -> str:
    """What the command printed (of which ``lines`` are shown); it must end with this exit code."""
    print(f"$ kptrace {command}", flush=True)
    done = subprocess.run(
        [KPTRACE, *command.split()], stdout=subprocess.PIPE, text=True, check=False
    )
    print(*done.stdout.splitlines()[:lines], sep="\n", flush=True)
    if done.returncode != code:
        raise Unexpected(f"`kptrace {command}` ended with {done.returncode}, not {code}")
    return done.stdout


def want(word: str, printed: str) -> None:
    if word not in printed:
        raise Unexpected(f"the trace does not say {word}")


def clean() -> None:
    """The lab, if there is one; whoever presses Ctrl-C twice gets it removed all the same."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    subprocess.run([KPTRACE, "lab", "down", "--name", LAB], capture_output=True, check=False)


def _interrupted(number: int, frame: FrameType | None) -> NoReturn:
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
