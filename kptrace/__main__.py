"""The program: ``kptrace``, ``kubectl kptrace``, ``python -m kptrace``."""

import os
import sys


def main() -> None:
    from kptrace.commands import quick

    explain = quick.explain(sys.argv[1:])
    if explain is not None:
        from kptrace.commands.ending import ended

        # All is said and closed; to take what was read apart again costs a tenth of the time.
        os._exit(ended(explain))
    from kptrace.cli import main as run

    run()


if __name__ == "__main__":
    main()
