"""Long listings of nf_tables that are read before anybody asks for them: ``Ahead``.

In: questions (nft_listing.py). Out: their answers, for who asks them later.

To import what explains a Service takes as long as the kernel takes for what will be asked first,
and a thread that waits for the kernel lets both go on at once. It is one thread: for each part of
a listing the kernel walks a long list, which it then has in a processor's cache. Two side by side,
with another thread that computes, took twice the processor's time (measured on two processors).
"""

from __future__ import annotations

import threading
from collections.abc import Mapping

from kptrace.node.netlink import Conversation
from kptrace.node.nft_listing import Answer, Question, generation


class Ahead:
    """Reads one after the other in the namespace that this process stands in."""

    def __init__(self, *questions: Question) -> None:
        work = {question: threading.Event() for question in questions}
        self._answered, self._answers = dict(work), dict[Question, Answer]()
        try:
            threading.Thread(target=self._read, args=[work], name="ahead", daemon=True).start()
        except RuntimeError:  # no thread is to be had; who asks will do without
            self._answered.clear()

    def take(self, question: Question) -> Answer | None:
        """Once: it is soon too old. None: it was not asked ahead, or could not be answered."""
        answered = self._answered.pop(question, None)
        if answered is not None:
            answered.wait()
        return self._answers.pop(question, None)

    def _read(self, work: Mapping[Question, threading.Event]) -> None:
        try:
            with Conversation() as conversation:
                for question, answered in work.items():
                    before = generation(conversation)
                    found = list(question.read(conversation))
                    self._answers[question] = Answer(before, found)
                    answered.set()
        except OSError:
            pass  # who asks for the rest will hear the same
        finally:
            for answered in work.values():
                answered.set()
