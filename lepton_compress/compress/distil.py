"""The step `distil`: knowledge distillation from the original model."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from lepton_compress.artifacts import Model, StepContext, StepOutcome
from lepton_compress.compress.params import Training
from lepton_compress.errors import InputError
from lepton_compress.load.forms import duplicate
from lepton_compress.registry import plugin
from lepton_compress.units import Percent

if TYPE_CHECKING:
    import torch


class Distil(Training):
    """How to learn from the original model."""

    temperature: Annotated[float, Field(gt=0, le=100)] = Field(
        2.0, description="Softens both models' class scores."
    )
    labels: Percent = Field(
        0.3, description="Share of the loss that comes from the labels; 0 % needs none."
    )


@plugin("step", "distil", Distil, form="module")
def distil(model: Model, params: Distil, context: StepContext) -> StepOutcome:
    """Trains towards the original model's outputs (Hinton, Vinyals and Dean, 2015).

    Class scores are compared softened by the temperature, with the gradient's scale kept; other
    outputs by their mean squared difference.
    """
    import torch

    from lepton_compress.compress.training import Schedule, deterministic, task_loss, train
    from lepton_compress.load.forms import flatten

    split = context.data.train
    share = params.labels
    notes: tuple[str, ...] = ()
    if split.targets is None and share:
        share, notes = 0.0, ("the train split has no targets: distilled from the teacher alone",)
    student, teacher = duplicate(model), context.original()
    if teacher.form != "module":
        raise InputError("the teacher is not a torch module", where="distil")
    classes = split.targets is not None and split.targets.dtype.kind in "biu"

    def loss(
        outputs: list[torch.Tensor], batch: dict[str, torch.Tensor], targets: torch.Tensor | None
    ) -> torch.Tensor:
        with torch.no_grad():
            taught = flatten(teacher.value(**batch))
        learnt = torch.stack(
            [
                _distance(mine, theirs, params.temperature, classes=classes)
                for mine, theirs in zip(outputs, taught, strict=True)
            ]
        ).mean()
        if targets is None or not share:
            return learnt
        return (1 - share) * learnt + share * task_loss(outputs, targets)

    names = [spec.name for spec in model.inputs]
    fields = set(Training.model_fields)
    with deterministic(context.seed, context.threads):
        statistics = train(
            student.value,
            split.named(names),
            loss,
            Schedule(**params.model_dump(include=fields)),
            observer=context.observer,
            label="training",
        )
    return StepOutcome(student, changed=True, statistics=statistics, notes=notes)


def _distance(
    mine: torch.Tensor, theirs: torch.Tensor, temperature: float, *, classes: bool
) -> torch.Tensor:
    from torch.nn import functional

    if mine.ndim < 2 or mine.shape[1] == 1 or not classes:
        return functional.mse_loss(mine, theirs)
    soft = functional.kl_div(
        functional.log_softmax(mine / temperature, dim=1),
        functional.log_softmax(theirs / temperature, dim=1),
        reduction="batchmean",
        log_target=True,
    )
    return soft * temperature**2
