"""Several callers of one loaded artifact at the same time, each calling again as soon as it can.

The callers are threads: a runtime computes without Python's lock, so that they compute side by
side; what Python itself does between two calls, some microseconds, they do in turns. Standard
library alone, as the worker that runs it.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

TASKS = Path("/proc/self/task")


def share(
    call: Callable[[], object], callers: int, count: int, cpus: Sequence[int]
) -> tuple[list[int], float]:
    """Let callers share a number of calls.

    Args:
        call: what each does.
        callers: how many at the same time.
        count: calls of all together; the next is taken by whoever is free.
        cpus: that this process may use meanwhile; empty for those that it has.

    Returns:
        (count,) nanoseconds of each call, and seconds from the start of the first to the end of
        the last.
    """
    clock = time.perf_counter_ns
    taken: list[tuple[int, int]] = []
    failures: list[BaseException] = []
    numbers, begin = iter(range(count)), threading.Barrier(callers)

    def work() -> None:
        begin.wait()
        try:
            for _ in numbers:
                start = clock()
                call()
                taken.append((start, clock()))
        except BaseException as error:  # told by the thread that waits
            failures.append(error)

    before = _allow(cpus)
    threads = [threading.Thread(target=work) for _ in range(callers)]
    try:
        call()  # another process has used the caches since
        for each in threads:
            each.start()
        for each in threads:
            each.join()
    finally:
        _allow(before)
    if failures:
        raise failures[0]
    seconds = (max(end for _, end in taken) - min(start for start, _ in taken)) * 1e-9
    return [end - start for start, end in taken], seconds


def _allow(cpus: Sequence[int]) -> Sequence[int]:
    """Give all threads of this process other CPUs; returns those that it had."""
    if not cpus:
        return ()
    had = sorted(os.sched_getaffinity(0))
    for task in TASKS.iterdir():
        with contextlib.suppress(ProcessLookupError):  # a thread that has just ended
            os.sched_setaffinity(int(task.name), cpus)
    return had
