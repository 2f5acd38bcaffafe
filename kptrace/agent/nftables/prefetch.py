"""Long listings of nf_tables that are read before anybody asks for them: ``Prefetcher``.

In: questions (list_cache.py). Out: their answers, for who asks them later.

To import what explains a Service takes as long as the kernel takes for what will be asked first,
and threads that wait for the kernel let both go on at once. There are as many as there are
processors beside the one that imports: for each part of a listing the kernel walks a long list, and
where it is disturbed at that it takes twice as long (measured: three threads on two processors).
"""

from __future__ import annotations

import os
import threading
from collections import deque
from contextlib import suppress

from kptrace.agent.netlink.socket import NetlinkSocket
from kptrace.agent.nftables.list_cache import ListQuery, ListResult, generation


class Prefetcher:
    """What is read is of the namespace that this process stands in."""

    def __init__(self, *questions: ListQuery) -> None:
        self._coming = {request: _PendingAnswer(request) for request in questions}
        left, beside = deque(self._coming.values()), len(os.sched_getaffinity(0)) - 1
        with suppress(RuntimeError):  # no more threads are to be had
            for _ in range(min(max(1, beside), len(questions))):
                threading.Thread(target=_read, args=[left], name="ahead", daemon=True).start()

    def take(self, request: ListQuery) -> ListResult | None:
        """Once: it is soon too old. None: it was not asked ahead, or could not be answered."""
        coming = self._coming.pop(request, None)
        return coming.answer() if coming else None


class _PendingAnswer:
    """An answer that a thread reads, or, where none has begun, who asks, by himself."""

    def __init__(self, request: ListQuery) -> None:
        self._request = request
        self._begun, self._over = threading.Lock(), threading.Event()
        self._answer: ListResult | None = None

    def read(self) -> None:
        if not self._begun.acquire(blocking=False):
            return
        try:
            with NetlinkSocket() as conversation:
                before = generation(conversation)
                self._answer = ListResult(before, list(self._request.read(conversation)))
        except OSError:
            pass  # who asks for it will hear the same
        finally:
            self._over.set()

    def answer(self) -> ListResult | None:
        if self._begun.acquire(blocking=False):
            return None  # nobody has begun: who asks does it himself
        self._over.wait()
        return self._answer


def _read(left: deque[_PendingAnswer]) -> None:
    while left:
        with suppress(IndexError):  # another thread was faster
            left.popleft().read()
