"""The step `quantize_dynamic`: int8 weights, activations quantised while the model runs."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from lepton_compress.artifacts import Model, StepContext, StepOutcome
from lepton_compress.registry import Params, plugin


class QuantizeDynamic(Params):
    """How to quantise."""

    weight_bits: Literal["auto", 8, 7] = Field(
        "auto", description="`auto`: 7 where sums of 8-bit products saturate, else 8."
    )
    saturating: Literal["auto"] | bool = Field(
        "auto",
        description="Whether the target adds two 8-bit products in a saturating 16-bit integer, as "
        "x86 without VNNI does; `auto` looks at this processor.",
    )
    per_channel: bool = Field(True, description="A scale for each output channel of a weight.")
    embeddings: bool = Field(
        True, description="Store tables that are looked up in 8 bits, too; smaller, not faster."
    )
    keep: list[str] = Field([], description="Names of nodes to leave in float, as `inspect` shows.")


@plugin("step", "quantize_dynamic", QuantizeDynamic, form="graph", quantizes=True, streams=True)
def quantize_dynamic(model: Model, params: QuantizeDynamic, context: StepContext) -> StepOutcome:
    """Dynamic int8 for MatMul, Gemm, LSTM and attention; needs no calibration, leaves convolutions.

    Each activation gets its scale from its own values at run time. Convolutions stay in float, as
    they are slower so, and so do GRUs, for which ONNX Runtime has no int8 kernel. In the statistics
    stand the nodes that run in integers and in float, and the signal to quantisation noise of the
    outputs on calibration data.
    """
    from lepton_compress.compress import dynamic_int8

    if model.folder is not None:
        return dynamic_int8.quantize_large(model, params, context)
    return dynamic_int8.quantize(model, context.data.calibration, params)
