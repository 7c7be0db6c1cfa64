"""Where a model can be cut between an edge and a cloud: frozen values, apart from whoever makes,
measures or shows them."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from lepton_compress.artifacts import Idle


@dataclass(frozen=True)
class Crossing:
    """A tensor that crosses a cut.

    Attributes:
        tensor: its name in the graph; integers of a quantised one.
        layer: the layer that gives it, as the graph's nodes are named after the user's.
        dtype: numpy's name.
        shape: of one sample, the batch (1) included.
        bytes: of one sample.
    """

    tensor: str
    layer: str
    dtype: str
    shape: tuple[int, ...]
    bytes: int


@dataclass(frozen=True)
class Cut:
    """A graph in two: what is before it runs on the edge, what is behind it in the cloud.

    Attributes:
        name: of the layers whose outputs cross.
        crossing: the tensors that cross.
        bytes: of one sample that cross.
        features: no raw input crosses, in whatever form: each tensor has a layer with weights
            before it.
        stacks: whether the first axis of all that crosses is the batch, so that a cloud can serve
            several samples in one call.
        edge_macs, cloud_macs: multiply-accumulates of one sample; None where a shape is not known.
        edge_seconds, cloud_seconds: of one call of each half.
        edge_interval, cloud_interval: their 95 % bootstrap intervals; None of an estimate.
        edge_quantiles, cloud_quantiles: of the calls, at the shares in `artifacts.QUANTILES`; empty
            of an estimate.
        edge_idle, cloud_idle: of calls after rests; empty of an estimate.
        edge_memory: peak memory of the edge's half; None where it is not known.
        edge_bytes: of the edge's file; 0 where it was not made.
        provenance: "estimated" from the runtime's profile of the whole, or "measured" on the
            halves.
        promising: whether there is a bandwidth at which no other cut is sooner done, by the
            estimates, for any cloud that is faster than the edge.
        difference: between the halves' outputs and the whole's on real samples, relative to the
            output's largest magnitude; 0 is bit for bit. None where they were not made.
    """

    name: str
    crossing: tuple[Crossing, ...]
    bytes: int
    features: bool
    stacks: bool
    edge_macs: int | None = None
    cloud_macs: int | None = None
    edge_seconds: float = math.nan
    cloud_seconds: float = math.nan
    edge_interval: tuple[float, float] | None = None
    cloud_interval: tuple[float, float] | None = None
    edge_quantiles: tuple[float, ...] = ()
    cloud_quantiles: tuple[float, ...] = ()
    edge_memory: int | None = None
    edge_bytes: int = 0
    provenance: Literal["measured", "estimated"] = "estimated"
    promising: bool = False
    difference: float | None = None
    edge_idle: tuple[Idle, ...] = ()
    cloud_idle: tuple[Idle, ...] = ()


@dataclass(frozen=True)
class Halves:
    """The two files of a cut, and what is needed to put them together.

    Attributes:
        edge, cloud: paths of the files.
        inputs, outputs: of the whole, in its order.
        crossing: names of the tensors that the edge gives and the cloud takes.
        passed: inputs of the whole that the cloud takes, too.
        early: outputs of the whole that the edge gives.
        edge_bytes, cloud_bytes: of the files, external data included.
        exact: whether the halves gave the whole's outputs bit for bit in the runtime.
        difference: the largest one seen, as `Cut.difference`.
        samples: on how many real samples that was seen.
    """

    cut: Cut
    edge: str
    cloud: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    crossing: tuple[str, ...]
    passed: tuple[str, ...]
    early: tuple[str, ...]
    edge_bytes: int
    cloud_bytes: int
    exact: bool
    difference: float
    samples: int


@dataclass(frozen=True)
class Cuts:
    """What was found of an artifact.

    Attributes:
        input_bytes, output_bytes: of one sample of the whole.
        edge, cloud: names of the targets that seconds belong to.
        edge_whole, cloud_whole: seconds of a call of the whole on each.
        cuts: from the input to the output.
        notes: what a reader should know.
    """

    artifact: str
    input_bytes: int
    output_bytes: int
    edge: str
    cloud: str
    edge_whole: float
    cloud_whole: float
    cuts: tuple[Cut, ...]
    halves: Halves | None = None
    notes: tuple[str, ...] = field(default=())


def winners(points: Sequence[tuple[float, float]]) -> list[int]:
    """Which (edge seconds, bytes) are best at some bandwidth, the widest range of them first.

    A request takes e + b/B + (w - e)/s, with the cloud s times as fast as the edge and a bandwidth
    B. For any s > 1 that is linear in e and b with positive weights, so that exactly the vertices
    of the lower left convex hull win somewhere.

    Args:
        points: the raw input's own (0, bytes) included, if it competes.

    Returns:
        Indices of vertices. A vertex wins between the slopes of its two sides, and the range is
        their ratio.
    """
    order = sorted(range(len(points)), key=lambda index: points[index])
    hull: list[int] = []
    for index in order:
        if hull and points[index][1] >= points[hull[-1]][1]:
            continue  # later and no smaller
        while len(hull) > 1 and _slope(points, hull[-2], hull[-1]) <= _slope(
            points, hull[-1], index
        ):
            hull.pop()
        hull.append(index)
    slopes = [_slope(points, left, right) for left, right in itertools.pairwise(hull)]
    ranges = {}
    for place, index in enumerate(hull):
        before = slopes[place - 1] if place else math.inf
        after = slopes[place] if place < len(slopes) else 0.0
        ranges[index] = before / after if after else math.inf
    return sorted(ranges, key=lambda index: (-ranges[index], index))


def _slope(points: Sequence[tuple[float, float]], left: int, right: int) -> float:
    """Bytes saved for each second more on the edge."""
    (early, many), (late, few) = points[left], points[right]
    return (many - few) / (late - early) if late > early else math.inf
