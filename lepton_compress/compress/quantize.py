"""The step `quantize`: static int8 in the QDQ format, calibrated on the calibration split."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from lepton_compress.artifacts import Model, StepContext, StepOutcome
from lepton_compress.registry import Params, plugin


class Quantize(Params):
    """How to quantise."""

    activations: Literal["uint8", "int8"] = Field(
        "uint8", description="x86 runs unsigned activations by signed weights fastest."
    )
    per_channel: bool = Field(True, description="A scale for each output channel of a weight.")
    calibration: Literal["minmax", "moving_average", "percentile", "entropy", "mse"] = Field(
        "minmax",
        description="How a range follows from the values seen: all of them, a moving average of "
        "each batch's ends, all but the outermost 0.001 %, least divergence, least squared error.",
    )
    samples: Annotated[int, Field(ge=1)] = Field(
        256, description="At most this many calibration samples."
    )
    keep: list[str] = Field([], description="Names of nodes to leave in float, as `inspect` shows.")


@plugin("step", "quantize", Quantize, form="graph")
def quantize(model: Model, params: Quantize, context: StepContext) -> StepOutcome:
    """Static int8: weights and activations quantised, ranges from the calibration split.

    See Jacob et al., 2018. The float graph stays as it is; signal to quantisation noise of the
    outputs on calibration data stands in the statistics.
    """
    from lepton_compress.compress import static_int8

    return static_int8.quantize(
        model,
        context.data.calibration,
        activations=params.activations,
        per_channel=params.per_channel,
        method=params.calibration,
        samples=params.samples,
        keep=params.keep,
        threads=context.threads,
        observer=context.observer,
    )
