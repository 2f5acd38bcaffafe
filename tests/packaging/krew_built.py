"""krew itself and its index's judge of manifests, from their Go module: a folder with both.

Built once for each go.mod, with the Go that the test cluster is built with.
"""

from __future__ import annotations

import hashlib
import tempfile
from pathlib import Path

from cluster.ground import build, home

SOURCE = Path(__file__).parent / "go"
MAINS = ("sigs.k8s.io/krew/cmd/krew", "sigs.k8s.io/krew/cmd/validate-krew-manifest")


def programs() -> Path:
    taken = b"".join((SOURCE / name).read_bytes() for name in ("go.mod", "go.sum"))
    made = home.cache() / "krew" / hashlib.sha256(taken).hexdigest()[:16]
    if not made.is_dir():
        made.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=made.parent) as folder:
            new = Path(folder, "bin")
            build.compiled(build.toolchain(), SOURCE, new, "-ldflags", "-s -w", *MAINS)
            if not made.is_dir():  # another has made it meanwhile
                new.rename(made)
    return made
