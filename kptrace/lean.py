"""msgspec without typing_extensions. To be imported before anything that imports msgspec.

Where that package is installed (typer brings it) msgspec takes two names from it that typing itself
has since Python 3.11. It costs as much to import as all nouns of ours.
"""

from __future__ import annotations

import sys

if "typing_extensions" not in sys.modules and "msgspec" not in sys.modules:
    sys.modules["typing_extensions"] = None  # type: ignore[assignment]
    import msgspec  # noqa: F401

    del sys.modules["typing_extensions"]
