"""The errors that end a command, with the exit code of each.

    KptraceError
    ├── UsageError                2  the command line is wrong
    └── ObservationError          3  the state could not be observed
        ├── ClusterUnreachableError   no API server, no kubeconfig, no lab
        ├── NotFoundError             no such Service, pod, port, node, namespace
        ├── PermissionDeniedError     a permission or capability is missing; the hint names it
        ├── UnsupportedError          this kernel or machine lacks a feature
        ├── AgentError                an agent died, sent nonsense or did not answer in time
        └── ParseError                a file is not what its name says

Only ``cli`` turns them into text and an exit code. Messages may quote hostile names: the renderer
strips control characters.
"""

from __future__ import annotations

EXIT_INCONCLUSIVE = 4  # the run came to its end, but the answer stays open


class KptraceError(Exception):
    """An error with what to do about it.

    message: what happened, one sentence; what it lists stands on lines of its own below
    hint: what the user can do about it, one line
    manifest: the objects that the hint says to apply, as YAML
    """

    exit_code = 3

    def __init__(self, message: str, hint: str = "", manifest: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.manifest = manifest

    @property
    def brief(self) -> str:
        """The first line of the message, without what it lists below."""
        return self.message.partition("\n")[0].rstrip(":.")

    @property
    def in_one_line(self) -> str:
        """The message with the lines that it lists behind it, separated by commas."""
        first, *listed = self.message.splitlines() or [""]
        return " ".join((first, ", ".join(line.strip() for line in listed))).strip()


class UsageError(KptraceError):
    """The command line, or a value in it, cannot be understood."""

    exit_code = 2


class ObservationError(KptraceError):
    """The cluster, node or file could not be observed."""


class ClusterUnreachableError(ObservationError):
    """No API server answers, or there is no kubeconfig or lab."""


class NotFoundError(ObservationError):
    """The Service, pod, port, node or namespace does not exist."""


class PermissionDeniedError(ObservationError):
    """A permission or a capability is missing."""


class UnsupportedError(ObservationError):
    """This kernel or machine lacks a feature."""


class AgentError(ObservationError):
    """An agent died, sent nonsense or did not answer in time."""


class ParseError(ObservationError):
    """A file does not hold what its name says.

    source: the file's name as given; line: 1-based, 0 for the file as a whole
    """

    def __init__(self, source: str, line: int, text: str, hint: str = "") -> None:
        location = f"{source}:{line}" if line else source
        super().__init__(f"{location}: {text}", hint)
        self.source = source
        self.line = line
