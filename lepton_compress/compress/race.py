"""Graphs timed against each other on a target, in turns within one process: what a search decides
by. What gates judge is measured anew, in processes of their own."""

from __future__ import annotations

import random
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx

from lepton_compress import registry
from lepton_compress.alignment import laid_out
from lepton_compress.artifacts import Place
from lepton_compress.statistics import Interval, bootstrap_median_ratio

if TYPE_CHECKING:
    from numpy.typing import NDArray

TURN_SECONDS = 0.004
MIN_CALLS, MAX_CALLS = 2, 1000
MIN_ROUNDS = 12
WARM_UP = 3
LONGER = 5


@dataclass(frozen=True)
class Timing:
    """Of one call: median seconds, and the median of its paired ratios to the first graph's with
    the 95 % bootstrap interval."""

    seconds: float
    ratio: float
    interval: Interval

    @property
    def faster(self) -> bool:
        """Whether it beats the first graph beyond doubt."""
        return self.interval[1] < 1.0


@dataclass
class _Lane:
    runner: Any
    feeds: Mapping[str, NDArray[Any]]
    burst: int
    medians: list[float] = field(default_factory=list)

    def turn(self) -> float:
        """Median seconds of a call over one burst."""
        taken = []
        for _ in range(self.burst):
            start = time.perf_counter()
            self.runner.run(self.feeds)
            taken.append(time.perf_counter() - start)
        return float(np.median(taken))


def race(
    graphs: Mapping[str, onnx.ModelProto],
    feeds: Mapping[str, NDArray[Any]],
    place: Place,
    *,
    cap: float,
    seed: int,
    decide: bool = False,
) -> dict[str, Timing]:
    """Timing of each graph by name; ratios are to the first of them.

    Args:
        feeds: the inputs of one call, (batch, ...).
        place: says the runtime and the threads.
        cap: seconds after which no round is begun, once there are `MIN_ROUNDS`.
        decide: go on, for `LONGER` times as long at most, until each interval excludes 1.

    Raises:
        InputError: the runtime cannot run a graph.
    """
    fed = {name: (graph, feeds) for name, graph in graphs.items()}
    return race_apart(fed, place, cap=cap, seed=seed, decide=decide)


def race_apart(
    graphs: Mapping[str, tuple[onnx.ModelProto, Mapping[str, NDArray[Any]]]],
    place: Place,
    *,
    cap: float,
    seed: int,
    decide: bool = False,
    turn: float = TURN_SECONDS,
) -> dict[str, Timing]:
    """As `race`, of graphs with inputs of their own.

    Args:
        turn: seconds that each graph's turn takes, about.
    """
    load = registry.get("runtime", place.runtime).function
    lanes: dict[str, _Lane] = {}
    with tempfile.TemporaryDirectory() as folder:
        for number, (name, (graph, feeds)) in enumerate(graphs.items()):
            path = Path(folder) / f"{number}.onnx"
            onnx.save(laid_out(graph), path)
            lanes[name] = _Lane(load(path, place.threads), feeds, WARM_UP)
    for lane in lanes.values():
        call = min(lane.turn(), lane.turn())
        lane.burst = int(np.clip(turn / max(call, 1e-9), MIN_CALLS, MAX_CALLS))
    order = random.Random(seed)  # noqa: S311 - an order of turns, not a secret
    start = time.monotonic()
    while True:
        _rounds(list(lanes.values()), order, start + cap)
        found = _timings(lanes, seed)
        others = list(found.values())[1:]
        decided = all(not each.interval[0] <= 1 <= each.interval[1] for each in others)
        if not decide or decided or time.monotonic() > start + LONGER * cap:
            return found


def _rounds(lanes: list[_Lane], order: random.Random, end: float) -> None:
    count = 0
    while count < MIN_ROUNDS or time.monotonic() < end:
        order.shuffle(lanes)
        for lane in lanes:
            lane.medians.append(lane.turn())
        count += 1


def _timings(lanes: Mapping[str, _Lane], seed: int) -> dict[str, Timing]:
    first = next(iter(lanes.values())).medians
    found = {}
    for name, lane in lanes.items():
        ratio, interval = bootstrap_median_ratio(lane.medians, first, seed=seed)
        found[name] = Timing(float(np.median(lane.medians)), ratio, interval)
    return found
