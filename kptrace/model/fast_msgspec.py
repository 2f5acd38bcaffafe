"""msgspec without the imports that kptrace does not need: ``from ...fast_msgspec import msgspec``.

Where typing_extensions is installed (typer brings it) msgspec takes two names from it that typing
itself has since Python 3.11. It costs as much to import as all nouns of ours. uuid, which msgspec
imports too, asks platform for the system's name and for nothing else; all of platform costs a tenth
of msgspec.
"""

from __future__ import annotations

import os
import sys
from types import SimpleNamespace

if "msgspec" not in sys.modules:
    absent: dict[str, object] = {
        "typing_extensions": None,
        "platform": SimpleNamespace(system=lambda: os.uname().sysname),
    }
    absent = {name: instead for name, instead in absent.items() if name not in sys.modules}
    sys.modules.update(absent)  # type: ignore[arg-type]
    import msgspec

    for name in absent:
        del sys.modules[name]
else:
    import msgspec

__all__ = ["msgspec"]
