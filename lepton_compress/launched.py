"""Several processes, started by `accelerate launch` or `torchrun`, that carry out one run.

The first runs the recipe. The others wait until it comes to a step that trains, take the model
before that step from the store, and train with it. What they made is the same, and thrown away.
"""

from __future__ import annotations

import contextlib
import datetime
import os
from collections.abc import Callable

from lepton_compress.errors import LeptonError

_LONGEST = datetime.timedelta(days=7)
"""That the others wait for the next step: measuring takes as long as it takes."""
_FAILED = ""


def count() -> int:
    """How many processes were started together."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def rank() -> int:
    """Which of them this is; the first is 0."""
    return int(os.environ.get("RANK", "0")) if count() > 1 else 0


def lead(work: Callable[[], str]) -> None:
    """In the first process: do the work, and tell the others what it returns, which ends theirs."""
    _join()
    try:
        last = work()
    except BaseException:
        with contextlib.suppress(Exception):  # they may have failed as this one has, and be gone
            _tell(f"end {_FAILED}")
        raise
    _tell(f"end {last}")


def call(key: str) -> None:
    """In the first process: have the others join in the step of that key."""
    if count() > 1:
        _tell(f"join {key}")


def follow(join: Callable[[str], None]) -> str:
    """In the others: join in steps by their keys until the first has ended; what it returned.

    Raises:
        LeptonError: the first has failed.
    """
    _join()
    while True:
        kind, _, rest = _tell("").partition(" ")
        if kind == "end":
            break
        join(rest)
    if rest == _FAILED:
        raise LeptonError("the first process has failed", where=f"process {rank()}")
    return rest


def _join() -> None:
    import torch
    from accelerate import PartialState

    PartialState(cpu=not torch.cuda.is_available(), timeout=_LONGEST)


def _tell(word: str) -> str:
    """The first process's word, in every process."""
    from accelerate.utils import broadcast_object_list

    held = [word]
    broadcast_object_list(held, from_process=0)
    return held[0]
