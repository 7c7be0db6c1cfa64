"""The step `quantize_weights`: matrix weights in blocks of 4 or 8 bits, activations in float."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from lepton_compress.artifacts import Model, StepContext, StepOutcome
from lepton_compress.registry import Params, plugin


class QuantizeWeights(Params):
    """How to quantise the weights of matrix products."""

    bits: Literal[4, 8] = Field(4, description="Of each weight.")
    block_size: Literal[16, 32, 64, 128, 256] = Field(
        32, description="Consecutive weights of one output that share a scale."
    )
    algorithm: Literal["gptq", "rtn"] = Field(
        "gptq",
        description="`gptq` rounds so that later weights make up for the error of earlier ones, "
        "with calibration data; `rtn` rounds each to the nearest and needs none.",
    )
    symmetric: bool = Field(False, description="A fixed zero point instead of one a block.")
    compute: Literal["int8", "float32"] = Field(
        "int8", description="What the runtime multiplies in; int8 is the fast one on x86."
    )
    samples: Annotated[int, Field(ge=1)] = Field(
        128, description="At most this many calibration samples."
    )
    keep: list[str] = Field([], description="Names of nodes to leave in float, as `inspect` shows.")


@plugin("step", "quantize_weights", QuantizeWeights, form="graph", quantizes=True)
def quantize_weights(model: Model, params: QuantizeWeights, context: StepContext) -> StepOutcome:
    """Weights of dense layers in blocks of 4 or 8 bits (GPTQ or nearest); suits transformers."""
    from lepton_compress.compress import weight_only
    from lepton_compress.compress.training import deterministic

    with deterministic(context.seed, context.threads):
        return weight_only.quantize(model, context.data.calibration, params, context.observer)
