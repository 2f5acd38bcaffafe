"""How to reach the cluster: kubectl's connection flags as one value, and the units of its timeouts.

Nothing is imported for it and nothing is looked up: kubeconfig.py does, when the cluster is needed.
"""

from __future__ import annotations

import re

from kptrace.model import Value
from kptrace.model.errors import UsageError

_UNITS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
_PART = re.compile(r"(\d+(?:\.\d*)?|\.\d+)(ns|us|µs|ms|s|m|h)")


class ClientConfig(Value):
    """Empty: what the kubeconfig says. ``timeout``: seconds for one request; 0: the usual ones."""

    namespace: str = ""
    context: str = ""
    cluster: str = ""
    user: str = ""
    kubeconfig: str = ""
    server: str = ""
    token: str = ""
    as_user: str = ""
    as_groups: tuple[str, ...] = ()
    as_uid: str = ""
    timeout: float = 0.0
    certificate_authority: str = ""
    insecure: bool = False
    tls_server_name: str = ""


def seconds(text: str) -> float:
    """A duration as Go's time.ParseDuration reads it: ``1s``, ``2m``, ``1m30s``; ``0``: none."""
    if text in ("", "0"):
        return 0.0
    parts = _PART.findall(text)
    if not parts or "".join(number + unit for number, unit in parts) != text:
        raise UsageError(
            f'--request-timeout "{text}" is no length of time', "give a unit: 10s, 1m30s, 500ms"
        )
    return sum(float(number) * _UNITS[unit] for number, unit in parts)
