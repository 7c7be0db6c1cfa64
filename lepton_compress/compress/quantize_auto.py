"""The step `quantize_auto`: the int8 scheme that is fastest on the target within an accuracy
budget, found by measuring; float where none is faster."""

from __future__ import annotations

from collections.abc import Collection
from typing import Annotated

from pydantic import Field

from lepton_compress.artifacts import Model, StepContext, StepOutcome
from lepton_compress.registry import Params, nearest, plugin
from lepton_compress.units import Duration, Share


class QuantizeAuto(Params):
    """What the search may cost, and what it looks at."""

    drop: Share = Field(
        0.005,
        ge=0,
        description="How much of the first metric may be lost, on samples that no gate looks at. "
        "Without labels, the share of predictions that may change.",
    )
    target: str | None = Field(
        None,
        description="The target to be fast on; by default the recipe's first that runs ONNX "
        "artifacts on this machine. One that does not cannot be timed: accuracy alone decides.",
    )
    samples: Annotated[int, Field(ge=8)] = Field(
        512, description="At most this many training samples are tried."
    )
    calibration_samples: Annotated[int, Field(ge=1)] = Field(
        256, description="At most this many calibration samples."
    )
    evaluations: Annotated[int, Field(ge=4, le=1000)] = Field(
        24, description="Graphs to try in search of the nodes that cost accuracy."
    )
    patience: Duration = Field(
        4.0, gt=0, description="How long graphs may race each other, each time."
    )
    keep: list[str] = Field([], description="Names of nodes to leave in float, as `inspect` shows.")


def _requires(params: QuantizeAuto, targets: Collection[str]) -> list[str]:
    if params.target is None or params.target in targets:
        return []
    mend = nearest(params.target, list(targets))
    return [f"target: the recipe has no target {params.target!r}{f'; {mend}' if mend else ''}"]


@plugin(
    "step",
    "quantize_auto",
    QuantizeAuto,
    form="graph",
    requires=_requires,
    measures=True,
    quantizes=True,
)
def quantize_auto(model: Model, params: QuantizeAuto, context: StepContext) -> StepOutcome:
    """The fastest int8 on the target within an accuracy budget; float where none is faster.

    Tries static int8 with several ways of calibration and dynamic int8, races them on the target,
    and leaves in float what is slower or costs accuracy in int8. In the statistics stand all that
    was tried, with drop and ratio, and the plain step that makes the same graph.

    A target that runs no ONNX artifacts on this machine (LiteRT, an NPU, a microcontroller) cannot
    be timed here: static int8 is then chosen by accuracy alone, with as few nodes in float as the
    budget allows, and the notes say so.
    """
    from lepton_compress.compress import auto_int8

    return auto_int8.quantize(model, params, context)
