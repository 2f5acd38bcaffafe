"""``make fuzz-parsers``: coverage-guided fuzzing of the readers, by atheris.

    PYTHONPATH=tests python -m parsers NAME [-max_total_time=60] [libFuzzer's own options]

Without a name: all of them, each in a process of its own for ``-max_total_time`` (default 60).
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path


def main() -> int:
    names = [argument for argument in sys.argv[1:] if not argument.startswith("-")]
    options = [argument for argument in sys.argv[1:] if argument.startswith("-")]
    if len(names) == 1:
        _one(names[0], options)  # never returns
    from parsers.readers import READERS

    options = options or ["-max_total_time=60"]
    ended = {
        name: subprocess.run([sys.executable, "-m", "parsers", name, *options], check=False)
        for name in names or READERS
    }
    bad = [name for name, done in ended.items() if done.returncode]
    print(f"{len(ended) - len(bad)} readers held, {len(bad)} did not: {', '.join(bad) or '-'}")
    return bool(bad)


def _one(name: str, options: list[str]) -> None:
    import atheris

    with atheris.instrument_imports(include=["kptrace"]):
        from parsers.readers import READERS, check

    corpus = Path(tempfile.gettempdir()) / f"kptrace-corpus-{os.getuid()}" / name
    corpus.mkdir(parents=True, exist_ok=True)
    for number, seed in enumerate(READERS[name].seeds):
        (corpus / f"seed-{number}").write_bytes(seed)
    kept = f"-artifact_prefix={corpus.parent}/{name}-"
    defaults = ["-timeout=20", "-rss_limit_mb=2048", "-print_final_stats=1", kept]
    atheris.Setup([sys.argv[0], *defaults, *options, str(corpus)], lambda data: check(name, data))
    atheris.Fuzz()


if __name__ == "__main__":
    sys.exit(main())
