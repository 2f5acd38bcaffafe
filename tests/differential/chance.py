"""Whether what happened fits how likely it was said to be, loosely enough never to fail by chance.

In: weights of ways and how often each was seen. Out: words for what does not fit. The bound is six
standard deviations and a little: of a thousand million honest counts about two would fall outside.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import sqrt

_DEVIATIONS = 6


def misfits(weights: Sequence[float], counts: Sequence[int]) -> list[str]:
    total = sum(counts)
    return [
        f"seen {count} of {total} times, but its weight is {weight:.4f}"
        for weight, count in zip(weights, counts, strict=True)
        if abs(count - total * weight)
        > _DEVIATIONS * (sqrt(total * max(weight * (1 - weight), 0.0)) + 1)
    ]
