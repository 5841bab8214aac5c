"""parallel_map: the list comprehension that it stands for, on some threads."""

from __future__ import annotations

import os
import threading
import time

import pytest

from clipedge.parallel import cores, parallel_map


def test_the_order_is_kept_whoever_finishes_first() -> None:
    def slow_at_first(item: int) -> int:
        time.sleep(0.02 if item == 0 else 0)
        return item * item

    for threads in (1, 2, 7, 100):
        assert parallel_map(slow_at_first, range(20), threads) == [item * item for item in range(20)]
    assert parallel_map(slow_at_first, [], 4) == []


@pytest.mark.parametrize("threads", [1, 2, 5])
def test_no_more_threads_than_asked_for_and_all_of_those(threads: int) -> None:
    together = threading.Barrier(threads)  # passed only when so many are in it at one time
    seen = set()

    def meet(_: int) -> None:
        seen.add(threading.get_ident())
        together.wait(timeout=10)

    parallel_map(meet, range(threads), threads)
    parallel_map(lambda _: seen.add(threading.get_ident()), range(50), 1)
    assert len(seen) == threads
    assert threading.get_ident() in seen


def test_the_first_failure_is_raised_though_a_later_one_came_sooner() -> None:
    later_failed = threading.Event()

    def fail(item: int) -> None:
        if item == 1:
            later_failed.wait(timeout=10)
            raise ValueError("the first")
        if item == 2:
            later_failed.set()
            raise ValueError("a later one")

    with pytest.raises(ValueError, match="the first"):
        parallel_map(fail, range(4), 3)


def test_nothing_runs_on_after_a_failure() -> None:
    done = []

    def fail_early(item: int) -> None:
        if item == 3:
            raise KeyError(item)
        time.sleep(0.001)
        done.append(item)

    with pytest.raises(KeyError):
        parallel_map(fail_early, range(500), 3)
    count = len(done)
    time.sleep(0.05)
    assert len(done) == count < 100


def test_it_may_be_called_within_itself() -> None:
    """Far more callers than the pool has threads: none waits for a thread that waits for it."""

    def inner(item: int) -> int:
        return sum(parallel_map(lambda x: x, range(item), 4))

    expected = [sum(range(item)) for item in range(60)]
    assert parallel_map(lambda _: parallel_map(inner, range(60), 40), range(40), 40) == [expected] * 40


@pytest.mark.skipif(not hasattr(os, "fork"), reason="a process is forked")
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_forked_process_has_its_own_threads() -> None:
    parallel_map(abs, range(8), 4)
    child = os.fork()
    if child == 0:
        os._exit(0 if parallel_map(abs, range(-8, 0), 4) == [8, 7, 6, 5, 4, 3, 2, 1] else 1)
    deadline = time.monotonic() + 20
    while (status := os.waitpid(child, os.WNOHANG)) == (0, 0):
        if time.monotonic() > deadline:
            os.kill(child, 9)
            os.waitpid(child, 0)
            pytest.fail("the child waits for threads that it does not have")
        time.sleep(0.01)
    assert status[1] == 0


def test_there_is_a_core() -> None:
    assert 1 <= cores() <= (os.cpu_count() or 1)
