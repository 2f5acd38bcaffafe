"""Work is done side by side, and what fails is heard of."""

from __future__ import annotations

import threading

import pytest

from kptrace.agent.thread_map import thread_map


def test_each_is_done_once() -> None:
    works = [lambda n=n: n for n in range(50)]  # type: ignore[misc]
    assert sorted(thread_map(works, 4)) == list(range(50))
    assert list(thread_map([], 4)) == []


def test_as_many_at_a_time_as_are_allowed() -> None:
    """Three wait for each other: with fewer at a time none would ever go on."""
    meeting = threading.Barrier(3, timeout=20)
    assert len(list(thread_map([meeting.wait] * 3, 3))) == 3
    under_way, most = list[int](), list[int]()

    def work() -> None:
        under_way.append(1)
        most.append(len(under_way))
        under_way.pop()

    list(thread_map([work] * 40, 2))
    assert max(most) <= 2


def test_results_come_before_all_is_done() -> None:
    heard = threading.Event()
    results = thread_map([lambda: True, lambda: heard.wait(20)], 2)
    assert next(results)
    heard.set()
    assert list(results) == [True]


def test_what_fails_is_raised_where_it_is_heard() -> None:
    def fails() -> bool:
        raise ValueError("no")

    results = thread_map([lambda: True, fails], 1)
    assert next(results)
    with pytest.raises(ValueError, match="no"):
        next(results)


def test_who_stops_listening_has_no_more_begun() -> None:
    held, begun = threading.Event(), list[int]()

    def second() -> None:
        begun.append(2)
        held.wait(20)

    results = thread_map([lambda: None, second, lambda: begun.append(3)], 1)
    next(results)
    results.close()  # type: ignore[attr-defined]
    held.set()
    for thread in threading.enumerate():
        if thread.name == "abreast":
            thread.join(20)
    assert 3 not in begun
