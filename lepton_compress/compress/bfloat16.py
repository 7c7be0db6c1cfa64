"""The step `bfloat16`: weights stored in half the bytes, computed with in float32."""

from __future__ import annotations

from pydantic import Field

from lepton_compress.artifacts import Model, StepContext, StepOutcome
from lepton_compress.registry import Params, plugin


class Bfloat16(Params):
    """What to store."""

    keep: list[str] = Field(
        [], description="Names of nodes whose weights stay in float32, as `inspect` shows."
    )


@plugin("step", "bfloat16", Bfloat16, form="graph", streams=True)
def bfloat16(model: Model, params: Bfloat16, context: StepContext) -> StepOutcome:
    """Weights stored in bfloat16, half the size, and cast to float32 where they are used.

    bfloat16 has float32's range, so that no weight overflows, and 8 bits of precision. ONNX
    Runtime's CPU has no kernels for it: it casts once, when it loads the model, and then computes,
    and holds the weights, in float32. What is halved is the file.
    """
    from lepton_compress.compress import bfloat_graph

    return bfloat_graph.store(model, params, context)
