"""The step `distil`: knowledge distillation from the original model."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from lepton_compress.artifacts import Model, StepContext, StepOutcome
from lepton_compress.compress.params import Training
from lepton_compress.load.forms import duplicate
from lepton_compress.registry import plugin
from lepton_compress.units import Percent


class Distil(Training):
    """How to learn from the original model."""

    temperature: Annotated[float, Field(gt=0, le=100)] = Field(
        2.0, description="Softens both models' class scores."
    )
    labels: Percent = Field(
        0.3, description="Share of the loss that comes from the labels; 0 % needs none."
    )


@plugin("step", "distil", Distil, form="module", trains=True)
def distil(model: Model, params: Distil, context: StepContext) -> StepOutcome:
    """Trains towards the original model's outputs (Hinton, Vinyals and Dean, 2015).

    Class scores are compared softened by the temperature, with the gradient's scale kept; other
    outputs by their mean squared difference.
    """
    from lepton_compress.compress.fitting import fit
    from lepton_compress.compress.training import deterministic, distillation

    targets = context.data.train.targets
    student = duplicate(model)
    loss, notes = distillation(
        context.original(), params.temperature, params.labels, targets, where="distil"
    )
    with deterministic(context.seed, context.threads):
        statistics = fit(student.value, model, loss, params, context)
    return StepOutcome(student, changed=True, statistics=statistics, notes=notes)
