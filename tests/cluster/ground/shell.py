"""Programs run to their end: a command line in, what it printed out, its words when it fails."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from cluster.ground.plan import NotPossible

SECONDS = 120


def run(
    *command: str | Path,
    given: str | bytes = "",
    seconds: float = SECONDS,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
) -> str:
    """Its standard output; ``NotPossible`` with what it said when it does not end well."""
    ended = attempt(*command, given=given, seconds=seconds, cwd=cwd, env=env)
    if ended.returncode:
        said = ended.stderr.strip() or ended.stdout.strip() or "nothing"
        raise NotPossible(f"{_words(command)} ended with {ended.returncode}: {said}")
    return ended.stdout


def attempt(
    *command: str | Path,
    given: str | bytes = "",
    seconds: float = SECONDS,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
) -> subprocess.CompletedProcess[str]:
    """The same where failing is an answer, too."""
    fed = given.encode() if isinstance(given, str) else given
    try:
        ended = subprocess.run(
            [str(word) for word in command],
            input=fed,
            capture_output=True,
            timeout=seconds,
            cwd=cwd,
            env=env,
            check=False,
        )
    except FileNotFoundError as error:
        raise NotPossible(f"{command[0]} is not installed") from error
    except subprocess.TimeoutExpired as error:
        raise NotPossible(f"{_words(command)} took more than {seconds:g} s") from error
    return subprocess.CompletedProcess(
        ended.args,
        ended.returncode,
        ended.stdout.decode(errors="replace"),
        ended.stderr.decode(errors="replace"),
    )


def _words(command: Sequence[str | Path]) -> str:
    whole = " ".join(str(word) for word in command)
    return whole if len(whole) <= 200 else f"{whole[:200]}..."
