import threading
import time

import pytest
import torch

from training import threads


def test_it_gives_results_in_order_whoever_is_first():
    def slow_for_small(item, tool):
        time.sleep(0.002 * (5 - item % 5))
        return item

    assert list(threads.in_order(slow_for_small, range(30), [None] * 4)) == list(range(30))


def test_it_never_lends_a_tool_twice_at_once():
    held, wrong = set(), []

    def work(item, tool):
        wrong.extend(held & {tool})
        held.add(tool)
        time.sleep(0.001)
        held.discard(tool)

    list(threads.in_order(work, range(60), ["a", "b", "c"]))
    assert not wrong


def test_it_raises_where_the_result_would_have_come():
    def work(item, tool):
        return 12 // (3 - item)

    results = threads.in_order(work, range(6), [None] * 2)
    assert [next(results) for _ in range(3)] == [4, 6, 12]
    with pytest.raises(ZeroDivisionError):
        next(results)


def test_it_works_only_a_little_ahead_and_stops_when_given_up():
    begun, may_end = [], threading.Event()

    def work(item, tool):
        begun.append(item)
        if item:
            may_end.wait(10)

    results = threads.in_order(work, range(1000), [None] * 2)
    next(results)
    results.close()
    may_end.set()
    list(threads.in_order(lambda item, tool: None, range(4), [None] * 2))  # whatever was waiting would come first
    assert len(begun) <= 1 + 2 * threads.AHEAD


def test_it_takes_one_worker_where_pytorch_has_threads_of_its_own(monkeypatch):
    monkeypatch.setattr(threads.host, "processors", lambda: 7)
    assert threads.workers_for(torch.zeros(1)) == 7
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    assert threads.workers_for(torch.zeros(1)) == 1


def test_its_threads_keep_to_one_thread_each():
    """A product on a thread of the pool must not start OpenMP's: each asks for the number of threads first."""
    (count,) = threads.in_order(lambda item, tool: torch.get_num_threads(), [0], [None])
    assert count == 1
