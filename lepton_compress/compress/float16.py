"""The step `float16`: weights and compute in half precision, inputs and outputs as they were."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from lepton_compress.artifacts import Model, StepContext, StepOutcome
from lepton_compress.registry import Params, plugin


class Float16(Params):
    """How to convert."""

    samples: Annotated[int, Field(ge=1)] = Field(
        32, description="Calibration samples to look for values in that float16 cannot hold."
    )
    keep: list[str] = Field(
        [], description="Names of nodes to leave in float32, as `inspect` shows."
    )


@plugin("step", "float16", Float16, form="graph")
def float16(model: Model, params: Float16, context: StepContext) -> StepOutcome:
    """Weights and compute in float16, inputs and outputs in float32; half the size.

    Nodes whose weights, or whose values on calibration data, exceed what float16 holds stay in
    float32. Most CPUs compute float16 in float32 and gain no speed; the notes say so.
    """
    from lepton_compress.compress import half_precision

    return half_precision.convert(
        model,
        context.data.calibration,
        params,
        threads=context.threads,
        observer=context.observer,
    )
