"""The step `quantize_weights`: matrix weights in blocks of 4 or 8 bits, activations in float."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from lepton_compress.artifacts import Model, StepContext, StepOutcome
from lepton_compress.registry import Params, plugin


class QuantizeWeights(Params):
    """How to quantise the weights of matrix products."""

    bits: Literal[4, 8] = Field(4, description="Of each weight.")
    mean_bits: Annotated[float, Field(gt=4, le=8)] | None = Field(
        None,
        description="With `bits: 4`: gives 8 bits to the layers whose rounding, measured one by "
        "one, changes the outputs most for their size, as long as the mean over all weights does "
        "not exceed this.",
    )
    block_size: Literal[16, 32, 64, 128, 256] = Field(
        32,
        description="Consecutive weights of one output that share a scale. Smaller ones are more "
        "exact; larger ones are faster where many rows are multiplied at once.",
    )
    algorithm: Literal["auto", "gptq", "awq", "hqq", "rtn"] = Field(
        "auto",
        description="`gptq` rounds so that later weights make up for the error of earlier ones; "
        "`awq` scales the inputs that matter most, in the layer before or by a Mul; `hqq` fits "
        "zero points to a sparse error; `rtn` rounds each weight to the nearest. `auto` takes for "
        "each layer what errs least on calibration data, `awq` only where it costs no Mul. A model "
        "too large for memory takes `hqq` and `rtn`, which need no data.",
    )
    symmetric: bool = Field(False, description="A fixed zero point instead of one a block.")
    compute: Literal["auto", "int8", "float32"] = Field(
        "auto",
        description="What the runtime multiplies in; `auto` is int8 where this processor has a "
        "kernel for it, which is faster than float. With 8 bits, "
        "float32 is many times slower than no blocks.",
    )
    samples: Annotated[int, Field(ge=1)] = Field(
        128, description="At most this many calibration samples."
    )
    keep: list[str] = Field([], description="Names of nodes to leave in float, as `inspect` shows.")

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.symmetric and self.algorithm == "hqq":
            raise ValueError("hqq fits zero points, which `symmetric` fixes; drop one of the two")
        if self.mean_bits is not None and self.bits != 4:
            raise ValueError("mean_bits raises some layers from 4 bits; give bits: 4")
        return self


@plugin("step", "quantize_weights", QuantizeWeights, form="graph", quantizes=True, streams=True)
def quantize_weights(model: Model, params: QuantizeWeights, context: StepContext) -> StepOutcome:
    """Weights of dense layers in blocks of 4 or 8 bits (GPTQ, AWQ, HQQ, nearest), layer by layer.

    The integers are neural-compressor's. For GPTQ, AWQ and, where data are at hand, HQQ the scales
    of their blocks are then fitted to the layer's outputs by least squares.
    """
    from lepton_compress.compress import weight_only, weight_stream
    from lepton_compress.compress.training import deterministic

    with deterministic(context.seed, context.threads):
        if model.folder is not None:
            return weight_stream.quantize(model, params, context)
        return weight_only.quantize(model, context.data.calibration, params, context.observer)
