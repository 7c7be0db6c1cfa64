"""The step `quantize_aware`: training under fake quantisation, and the int8 artifact of it."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from lepton_compress.artifacts import Model, StepContext, StepOutcome
from lepton_compress.compress.params import Training
from lepton_compress.registry import plugin
from lepton_compress.units import Percent


class QuantizeAware(Training):
    """How to train for int8."""

    epochs: Annotated[int, Field(ge=1, le=10_000)] = Field(
        5, description="How often every training sample is seen."
    )
    learning_rate: Annotated[float, Field(gt=0, le=10)] = Field(
        3e-4,
        description="At its highest, after the warm-up; less than training from scratch takes.",
    )
    ranges: Literal["learned", "observed"] = Field(
        "learned",
        description="`learned`: the ends of ranges, and so the steps, are trained as the weights "
        "are. `observed`: a moving average of each batch's ends, and the largest weight.",
    )
    freeze: Percent = Field(
        0.3,
        description="Last share of the training in which the statistics of batch normalisation "
        "and observed ranges stay as they are.",
    )
    distil: bool = Field(
        True, description="Learn from the original model's outputs as well, as `distil` does."
    )
    temperature: Annotated[float, Field(gt=0, le=100)] = Field(
        2.0, description="Softens both models' class scores. For `distil`."
    )
    labels: Percent = Field(
        0.3,
        description="Share of the loss that comes from the labels; 0 % needs none. For `distil`.",
    )
    activations: Literal["auto", "uint8", "int8"] = Field(
        "auto", description="`auto`: unsigned on x86, signed elsewhere."
    )
    weight_bits: Literal["auto", 8, 7] = Field(
        "auto", description="`auto`: 7 where sums of 8-bit products saturate, else 8."
    )
    saturating: Literal["auto"] | bool = Field(
        "auto",
        description="Whether the target adds two 8-bit products in a saturating 16-bit integer, as "
        "x86 without VNNI does; `auto` looks at this processor.",
    )
    per_channel: bool = Field(True, description="A scale for each output channel of a weight.")
    samples: Annotated[int, Field(ge=1)] = Field(
        256, description="At most this many calibration samples give the first ranges."
    )
    keep: list[str] = Field([], description="Names of nodes to leave in float, as `inspect` shows.")


@plugin(
    "step",
    "quantize_aware",
    QuantizeAware,
    form="module",
    gives="graph",
    quantizes=True,
    trains=True,
)
def quantize_aware(model: Model, params: QuantizeAware, context: StepContext) -> StepOutcome:
    """Static int8 by training: the network learns under the rounding that the artifact does.

    What comes out is the quantised graph, with the ranges and integers of the training. Batch
    normalisation is folded into the weights before they are rounded (Jacob et al., 2018); learned
    ranges follow Esser et al. (LSQ, 2020). Dropout is off. The statistics are those of `quantize`,
    with what training did and how close the artifact is to the network that was trained.
    """
    from lepton_compress.compress import aware

    return aware.quantize(model, params, context)
