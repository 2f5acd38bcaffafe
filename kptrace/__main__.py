"""The program: ``kptrace``, ``kubectl kptrace``, ``python -m kptrace``."""

import os
import sys


def main() -> None:
    from kptrace.cli import fast_explain

    explain = fast_explain.explain(sys.argv[1:])
    if explain is not None:
        from kptrace.cli.exit_status import run_with_exit_code

        # All is said and closed; to take what was read apart again costs a tenth of the time.
        os._exit(run_with_exit_code(explain))
    from kptrace.cli.app import main as run

    run()


if __name__ == "__main__":
    main()
