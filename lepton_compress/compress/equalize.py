"""The step `equalize`: channels of neighbouring layers brought to alike ranges."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from lepton_compress.artifacts import Model, StepContext, StepOutcome
from lepton_compress.registry import Params, plugin


class Equalize(Params):
    """How to equalise."""

    clips: Literal["keep", "unreached"] = Field(
        "keep",
        description="No factor passes a Clip with an upper bound, such as ReLU6. `unreached` "
        "replaces those by Relu whose bound no calibration value comes near; beyond the "
        "calibration data the function may then differ.",
    )
    absorb_biases: bool = Field(
        False,
        description="Move what a channel always exceeds on calibration data behind its Relu, into "
        "the next bias; beyond the calibration data the function may then differ.",
    )
    iterations: Annotated[int, Field(ge=1, le=1000)] = Field(
        50, description="At most this many rounds over all pairs."
    )
    samples: Annotated[int, Field(ge=1)] = Field(
        32, description="Calibration samples that noise is measured on."
    )
    keep: list[str] = Field(
        [], description="Names of nodes whose weights stay as they are, as `inspect` shows."
    )


@plugin("step", "equalize", Equalize, form="graph")
def equalize(model: Model, params: Equalize, context: StepContext) -> StepOutcome:
    """Evens out the ranges of channels across layers; the float function stays the same.

    Cross-layer equalisation of Nagel et al., 2019, with high-bias absorption as an option. It helps
    where one scale serves a whole tensor. In the statistics stand the layers between which factors
    moved, what held the others, and the signal to noise of rounding weights and activations with
    one scale each, before and after, by which to tell whether it was worth it.
    """
    from lepton_compress.compress import equalization

    return equalization.equalize(
        model,
        context.data.calibration,
        params,
        threads=context.threads,
        observer=context.observer,
    )
