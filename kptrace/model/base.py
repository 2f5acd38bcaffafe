"""The base of every value, and the version of the JSON contracts."""

from __future__ import annotations

from collections.abc import Callable
from typing import dataclass_transform

from kptrace.model.fast_msgspec import msgspec

_ACRONYMS = {"ip": "IP", "ips": "IPs"}


def json_key(field: str) -> str:
    """The JSON key of a field, as Kubernetes' API conventions have it: lowerCamelCase.

    ``offset_us`` -> ``offsetUs``, ``cluster_ips`` -> ``clusterIPs``; a trailing underscore goes.
    """
    first, *rest = field.rstrip("_").split("_")
    return first + "".join(_ACRONYMS.get(part, part.capitalize()) for part in rest)


# called with each step of a run, in a few words, for stderr
ProgressCallback = Callable[[str], None]

API_VERSION = "kptrace.io/v1alpha1"


# msgspec passes frozen and kw_only on to subclasses; type checkers learn it from the decorator.
@dataclass_transform(frozen_default=True, kw_only_default=True, field_specifiers=(msgspec.field,))
class Value(msgspec.Struct, frozen=True, kw_only=True, rename=json_key):
    """A value: compared by content, never changed; ``msgspec.structs.replace`` makes a new one."""
