"""Files with inputs of their own, timed in turns: parts of one model, on one or several machines.

The protocol is that of `measure`: a process for each file, in each round everyone once, in an order
drawn anew. Nothing is compared with a limit here, so that one set of processes does.
"""

from __future__ import annotations

import contextlib
import random
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from lepton_compress.artifacts import Idle
from lepton_compress.errors import LeptonError
from lepton_compress.profile import rates
from lepton_compress.profile.extras import rest_between
from lepton_compress.profile.lanes import Lane, Subject, choose_cpus, job_of
from lepton_compress.profile.places import site
from lepton_compress.profile.session import percentiles
from lepton_compress.recipe import TargetSpec

REST_CAP = 20.0
"""Seconds, of which a tenth goes into calls after rests of each part."""


@dataclass(frozen=True)
class Part:
    """What takes turns.

    Attributes:
        inputs: name to array, each (batch, ...).
    """

    name: str
    path: Path
    target: TargetSpec
    inputs: Mapping[str, NDArray[Any]]


@dataclass(frozen=True)
class Taken:
    """What a part took.

    Attributes:
        seconds: median of a call.
        interval: its 95 % bootstrap interval.
        quantiles: of the calls, in seconds, at the shares in `QUANTILES`.
        idle: what calls took after rests.
        memory: bytes at most, above what the runtime itself takes; None where that is not known.
    """

    seconds: float
    interval: tuple[float, float]
    quantiles: tuple[float, ...]
    memory: int | None
    idle: tuple[Idle, ...] = ()


def turns(
    parts: Sequence[Part], *, rounds: int, cap: float, seed: int, folder: Path = Path()
) -> dict[str, Taken]:
    """Time every part, by name.

    Args:
        rounds: the least number of rounds.
        cap: seconds after which no round is added to them; without a limit to decide, rounds are
            taken until then.
        seed: of the order of turns and of the intervals.
        folder: that paths in targets are relative to.

    Raises:
        LeptonError: a part cannot be measured.
        DeviceError: a target's device is not reached.
    """
    with contextlib.ExitStack() as stack:
        sites = {
            each.name: stack.enter_context(site(each, folder, []))
            for each in {part.target.name: part.target for part in parts}.values()
        }
        held = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="lepton-")))
        lanes: dict[str, Lane] = {}
        for number, part in enumerate(parts):
            place, within = sites[part.target.name], held / str(number)
            within.mkdir()
            job = job_of(part.target, choose_cpus(place, part.target.threads), part.inputs, within)
            lanes[part.name] = Lane(Subject(part.name, "onnx", part.path))
            try:
                lanes[part.name].start(place, job, stack)
                lanes[part.name].warm_up()
            except LeptonError as error:
                raise type(error)(
                    error.problem, where=f"{part.name} on {part.target.name}"
                ) from error
        _take(list(lanes.values()), rounds, cap, random.Random(seed))  # noqa: S311 - an order
        rest_between(list(lanes.values()), None, REST_CAP)
        for part in parts:
            if lanes[part.name].reason:
                where = f"{part.name} on {part.target.name}"
                raise LeptonError(lanes[part.name].reason, where=where)
    found = {}
    for name, lane in lanes.items():
        point, interval = percentiles(lane.sets, seed, ("p50",))["p50"]
        idle = tuple(rates.idle(gap, held) for gap, held in sorted(lane.rested.items()))
        memory = lane.peak_memory
        found[name] = Taken(point, interval, rates.quantiles(lane.turns), memory, idle)
    return found


def _take(lanes: list[Lane], rounds: int, cap: float, order: random.Random) -> None:
    end, number = time.monotonic() + cap, 0
    while number < rounds or time.monotonic() < end:
        order.shuffle(lanes)
        for lane in lanes:
            lane.sets[-1].append(lane.time(lane.burst))
        number += 1
