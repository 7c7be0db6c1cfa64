"""The step `quantize`: static int8 in the QDQ format, calibrated on the calibration split."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from lepton_compress.artifacts import Model, StepContext, StepOutcome
from lepton_compress.registry import Params, plugin


class Quantize(Params):
    """How to quantise."""

    activations: Literal["auto", "uint8", "int8", "uint16"] = Field(
        "auto",
        description="`auto`: unsigned on x86, signed elsewhere. CPUs compute 16 bits in float.",
    )
    symmetric: bool = Field(
        False, description="Ranges of activations reach as far below zero as above."
    )
    weight_bits: Literal["auto", 8, 7] = Field(
        "auto", description="`auto`: 7 where sums of 8-bit products saturate, else 8."
    )
    saturating: Literal["auto"] | bool = Field(
        "auto",
        description="Whether the target adds two 8-bit products in a saturating 16-bit integer, as "
        "x86 without VNNI does; `auto` looks at this processor.",
    )
    saturation_samples: Annotated[int, Field(ge=1)] = Field(
        16, description="Calibration samples to compute with saturating arithmetic."
    )
    per_channel: bool = Field(True, description="A scale for each output channel of a weight.")
    calibration: Literal["auto", "minmax", "moving_average", "percentile", "entropy", "mse"] = (
        Field(
            "auto",
            description="How a range follows from the values seen: all of them, a moving average "
            "of each batch's ends, all but the outermost 0.001 %, least divergence, least squared "
            "error. `auto`: the last for 8 bits, all values for 16.",
        )
    )
    layout: Literal["auto", "keep"] = Field(
        "auto",
        description="`auto`: on x86, means over an image become pools, which have an integer "
        "kernel.",
    )
    rounding: Literal["adaptive", "nearest"] = Field(
        "adaptive",
        description="`adaptive` rounds each weight so that the layer's output on calibration data "
        "changes least and corrects the bias; it costs seconds and no speed of the artifact.",
    )
    samples: Annotated[int, Field(ge=1)] = Field(
        256, description="At most this many calibration samples."
    )
    keep: list[str] = Field([], description="Names of nodes to leave in float, as `inspect` shows.")
    resamples: Annotated[int, Field(ge=0, le=20)] = Field(
        0,
        description="Quantise again with this many resampled calibration sets, to tell how much "
        "the outputs depend on the samples; each costs as long as the step itself.",
    )
    ranges: str | None = Field(
        None,
        description="A file of saved ranges, as a run leaves them, to take instead of calibrating.",
    )

    def files(self) -> tuple[str, ...]:
        return (self.ranges,) if self.ranges else ()

    @model_validator(mode="after")
    def _nothing_to_resample(self) -> Self:
        if self.ranges and self.resamples:
            raise ValueError("saved ranges cannot be resampled: drop `resamples` or `ranges`")
        return self

    @model_validator(mode="after")
    def _levels_searched(self) -> Self:
        if self.activations == "uint16" and self.calibration in ("entropy", "mse"):
            raise ValueError(
                f"calibration {self.calibration} searches ranges for 256 levels; 16-bit "
                "activations have enough of them: use minmax or percentile"
            )
        return self


@plugin("step", "quantize", Quantize, form="graph", quantizes=True)
def quantize(model: Model, params: Quantize, context: StepContext) -> StepOutcome:
    """Static int8: weights and activations quantised, ranges from the calibration split.

    See Jacob et al., 2018. The float graph stays as it is. In the statistics stand the types and
    bits chosen and why, the nodes that run in integers and in float, the ranges, the signal to
    quantisation noise of the outputs on calibration data, and, for a target whose arithmetic
    saturates, how often it does and what that costs.
    """
    from lepton_compress.compress import static_int8

    return static_int8.quantize(
        model,
        context.data.calibration,
        params,
        threads=context.threads,
        observer=context.observer,
        evaluation=context.data.evaluation,
        folder=context.folder,
    )
