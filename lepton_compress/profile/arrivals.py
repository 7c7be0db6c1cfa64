"""Requests that arrive by themselves: how long each is under way, waiting included.

Arrivals are a Poisson process: independent users, the queue's hardest common case. A request's
time runs from the moment at which it was meant to arrive, not from the one at which a busy server
took it up, so that a slow call counts against all that wait behind it (no coordinated omission).
Standard library alone: the worker runs it, and imports nothing of the tool that weighs anything.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable

CLOSE = 0.0005
"""Seconds before an arrival from which the clock is watched instead of slept on."""


def sojourns(call: Callable[[], object], rate: float, count: int, seed: int) -> list[int]:
    """Serve `count` requests, one after the other in the order of their arrival.

    Args:
        call: serves one request.
        rate: arrivals a second, on average.
        count: how many arrive.
        seed: of the times between them.

    Returns:
        (count,) nanoseconds of each from its intended arrival to its end.
    """
    draw = random.Random(seed)  # noqa: S311 - times of arrivals, not a secret
    clock, taken = time.perf_counter, [0] * count
    call()  # another process has used the caches since
    arrival = clock()
    for index in range(count):
        arrival += draw.expovariate(rate)
        early = arrival - clock()
        if early > CLOSE:
            time.sleep(early - CLOSE)
        while clock() < arrival:
            pass
        call()
        taken[index] = int((clock() - arrival) * 1e9)
    return taken
