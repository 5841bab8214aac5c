"""A few threads for decoding and resizing, during which Pillow lets go of Python's global lock."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from concurrent.futures import ThreadPoolExecutor

__all__ = ["cores", "parallel_map"]

T = TypeVar("T")
R = TypeVar("R")

_POOL_THREADS = 32  # at most, however many callers there are at once


def cores() -> int:
    """The processor cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def parallel_map(function: Callable[[T], R], items: Sequence[T], threads: int) -> list[R]:
    """``[function(item) for item in items]`` on ``threads`` threads at most, the caller's own among them.

    Raises what that list would raise: of several items that fail, the first one's exception. What comes after a
    failure may not be tried. ``function`` may call ``parallel_map`` itself.
    """
    helpers = min(threads, len(items)) - 1
    if helpers < 1:
        return [function(item) for item in items]
    todo = deque(enumerate(items))
    results: dict[int, R] = {}
    failures: dict[int, Exception] = {}

    def work() -> None:
        while not failures:
            try:
                index, item = todo.popleft()
            except IndexError:
                return
            try:
                results[index] = function(item)
            except Exception as error:
                failures[index] = error

    pool = _pool(os.getpid())
    futures = [pool.submit(work) for _ in range(helpers)]
    try:
        work()
    finally:
        todo.clear()  # something is left after a failure or an interrupt
        # A helper that has not begun has nothing to do any more; waiting for it could wait for this very thread.
        for future in [future for future in futures if not future.cancel()]:
            future.result()
    if failures:
        # Items are taken in order, so every item before the first failure was tried and is done.
        raise failures.pop(min(failures))
    return [results[index] for index in range(len(items))]


@lru_cache(maxsize=1)
def _pool(process: int) -> ThreadPoolExecutor:
    """Made at its first use, and again in a forked ``process``, where the parent's threads do not run."""
    from concurrent.futures import ThreadPoolExecutor  # 14 ms that many processes never need

    return ThreadPoolExecutor(_POOL_THREADS, thread_name_prefix="clipedge")
