"""Long listings of nf_tables that are read before anybody asks for them: ``Ahead``.

In: questions (nft_listing.py). Out: their answers, for who asks them later.

To import what explains a Service takes as long as the kernel takes for what will be asked first,
and in threads that wait for the kernel both go on at once. They have less of a claim to a processor
than who imports (a thread has a nice value of its own in Linux, setpriority(2)): what is imported
is needed to ask for the rest.
"""

from __future__ import annotations

import os
import threading
from contextlib import suppress

from kptrace.node.netlink import Conversation
from kptrace.node.nft_listing import Answer, Question, generation

_NICE = 10


class _Reader:
    """One question, answered in a thread of its own."""

    def __init__(self, question: Question) -> None:
        self._question = question
        self._answer: Answer | None = None
        self._thread = threading.Thread(target=self._read, name="ahead", daemon=True)
        with suppress(RuntimeError):  # no thread is to be had; who asks for it will do without
            self._thread.start()

    def _read(self) -> None:
        try:
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _NICE)
            with Conversation() as conversation:
                before = generation(conversation)
                self._answer = Answer(before, list(self._question.read(conversation)))
        except OSError:
            pass  # who asks for it will hear the same

    def answer(self) -> Answer | None:
        if self._thread.ident is not None:
            self._thread.join()
        return self._answer


class Ahead:
    """What is read is of the namespace that this process stands in."""

    def __init__(self, *questions: Question) -> None:
        self._readers = {question: _Reader(question) for question in questions}

    def take(self, question: Question) -> Answer | None:
        """Once: it is soon too old. None: it was not asked ahead, or could not be answered."""
        reader = self._readers.pop(question, None)
        return reader.answer() if reader else None
