"""``make fuzz``: compare until stopped; each disagreement becomes a small case and is named.

PYTHONPATH=tests python -m differential [--seed N] [--seconds S] [--packets N]
"""

from __future__ import annotations

import argparse
import signal
import sys
import time
from itertools import count

from differential.campaign import Campaign
from differential.ground import Refused


def main() -> int:
    parser = argparse.ArgumentParser(prog="differential", description=__doc__)
    parser.add_argument("--seed", type=int, default=int(time.time()), help="of the first ruleset")
    parser.add_argument("--seconds", type=float, default=0.0, help="0: until stopped")
    parser.add_argument("--packets", type=int, default=30, help="for each ruleset")
    parser.add_argument("--no-cases", action="store_true", help="only tell, write no cases")
    given = parser.parse_args()
    campaign = Campaign(given.packets, write=not given.no_cases, tell=print)
    until = time.monotonic() + given.seconds if given.seconds else float("inf")
    told = time.monotonic()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a background job ignores it
    try:
        with campaign:
            for seed in count(given.seed):
                if time.monotonic() > until:
                    break
                try:
                    campaign.round(seed)
                except Refused as refused:
                    print(f"seed {seed}: {refused}", file=sys.stderr)
                if time.monotonic() - told > 10:
                    told = time.monotonic()
                    print(f"seed {seed}: {campaign.score}", flush=True)
    except KeyboardInterrupt:
        pass
    print(campaign.score)
    return 1 if campaign.score.disagreed else 0


if __name__ == "__main__":
    sys.exit(main())
