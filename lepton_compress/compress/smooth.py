"""The step `smooth`: outlying channels of activations moved into the weights that meet them."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from lepton_compress.artifacts import Model, StepContext, StepOutcome
from lepton_compress.registry import Params, plugin


class Smooth(Params):
    """How to smooth."""

    alpha: Literal["auto"] | Annotated[float, Field(ge=0, le=1)] = Field(
        "auto",
        description="How much of the outliers goes into the weights: 0 evens out the weights, 1 "
        "the activations. `auto` tries several for each value and takes the one with the "
        "least error of the layers behind it in 8 bits, or none.",
    )
    gain: Annotated[float, Field(ge=0)] = Field(
        1.0, description="With `auto`, decibels by which it must lessen that error."
    )
    insert: bool = Field(
        False,
        description="Where nothing before can take the factors up, insert a multiplication; it "
        "costs time.",
    )
    samples: Annotated[int, Field(ge=1)] = Field(
        128, description="At most this many calibration samples for the ranges of channels."
    )
    keep: list[str] = Field(
        [], description="Names of nodes whose input stays as it is, as `inspect` shows."
    )


@plugin("step", "smooth", Smooth, form="graph")
def smooth(model: Model, params: Smooth, context: StepContext) -> StepOutcome:
    """SmoothQuant: outlying channels of activations move into weights; the float function stays.

    See Xiao et al., 2023. What feeds several layers (queries, keys and values) has one factor for
    each channel; the layer normalisation, layer or product before it takes it up, also through
    Relu, pooling and attention. In the statistics stand, for each value, the share moved, how far
    its largest channel exceeds the median one, and the error of the layers behind it in 8 bits,
    before and after.
    """
    from lepton_compress.compress import smoothing

    return smoothing.smooth(
        model,
        context.data.calibration,
        params,
        threads=context.threads,
        observer=context.observer,
    )
