"""The program: ``kptrace``, ``kubectl kptrace``, ``python -m kptrace``."""

import sys


def main() -> None:
    if "explain" in sys.argv[1:2] and "--offline" in sys.argv:
        from kptrace.node import ahead

        ahead.begin()  # it comes up while we do
    from kptrace.cli import main as run

    run()


if __name__ == "__main__":
    main()
