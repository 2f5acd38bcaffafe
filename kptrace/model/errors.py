"""What can go wrong, by who is to blame; each says what, where and what to do.

    KptraceError
    ├── Usage            2  the command line cannot mean anything
    ├── CannotLook       3  it could not be looked at
    │   ├── NoCluster       no API server, no kubeconfig, no lab
    │   ├── NotFound        no such Service, pod, port, node, namespace
    │   ├── Forbidden       not allowed: names the permission or capability
    │   ├── Unsupported     this kernel or machine cannot do it
    │   ├── AgentFailed     an agent died, answered nonsense or not in time
    │   └── BadDump         a file that cannot be read as what it says it is
    └── Inconclusive     4  looked, and it stays open

Only ``cli/app.py`` turns them into text and an exit code. Texts may hold hostile names: the
renderer strips control characters, so messages may quote freely.
"""

from __future__ import annotations


class KptraceError(Exception):
    """message: what happened, one sentence. hint: what the user can do about it."""

    exit_code = 3

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    @property
    def brief(self) -> str:
        """The first line of the message, without what it lists below."""
        return self.message.partition("\n")[0].rstrip(":.")

    @property
    def advice(self) -> tuple[str, str]:
        """The hint, and the manifest that it wants to be applied (the lines below its first)."""
        first, _, manifest = self.hint.partition("\n")
        return first, manifest

    @property
    def in_one_line(self) -> str:
        first, *listed = self.message.splitlines() or [""]
        return " ".join((first, ", ".join(line.strip() for line in listed))).strip()


class UsageError(KptraceError):
    exit_code = 2


class ObservationError(KptraceError):
    exit_code = 3


class ClusterUnreachableError(ObservationError):
    pass


class NotFoundError(ObservationError):
    pass


class PermissionDeniedError(ObservationError):
    pass


class UnsupportedError(ObservationError):
    pass


class AgentError(ObservationError):
    pass


class ParseError(ObservationError):
    """source: file name as given; line: 1-based, 0 for the file as a whole; text: what is wrong."""

    def __init__(self, source: str, line: int, text: str, hint: str = "") -> None:
        where = f"{source}:{line}" if line else source
        super().__init__(f"{where}: {text}", hint)
        self.source = source
        self.line = line


class Inconclusive(KptraceError):
    exit_code = 4
