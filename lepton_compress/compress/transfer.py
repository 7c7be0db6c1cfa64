"""The step `transfer`: a trained backbone learns another label set."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from lepton_compress.artifacts import Model, StepContext, StepOutcome
from lepton_compress.compress.params import Supervised
from lepton_compress.registry import plugin


class Transfer(Supervised):
    """How to learn other labels: the new head first, then everything."""

    head: str = Field(
        "auto",
        min_length=1,
        description="Name of the layer to replace, as `inspect` shows it; `auto` is the last dense "
        "layer or convolution that a forward pass calls.",
    )
    classes: Literal["auto"] | Annotated[int, Field(strict=True, ge=1, le=1_000_000)] = Field(
        "auto", description="Outputs of the new head; `auto`: as many as the labels need."
    )
    head_epochs: Annotated[int, Field(ge=0, le=10_000)] = Field(
        3,
        description="How long the head is trained alone, while the backbone stays as it is, its "
        "batch normalisation in inference.",
    )
    head_learning_rate: Annotated[float, Field(gt=0, le=10)] = Field(
        3e-3, description="At its highest, for the head alone."
    )
    epochs: Annotated[int, Field(ge=0, le=10_000)] = Field(
        10, description="How long everything is trained then; 0 leaves the backbone as it is."
    )
    learning_rate: Annotated[float, Field(gt=0, le=10)] = Field(
        5e-4, description="At its highest, for everything; less than training from scratch takes."
    )

    @model_validator(mode="after")
    def _some(self) -> Self:
        if not self.head_epochs and not self.epochs:
            raise ValueError("an untrained head says nothing; give head_epochs or epochs")
        return self


@plugin("step", "transfer", Transfer, form="module", trains=True)
def transfer(model: Model, params: Transfer, context: StepContext) -> StepOutcome:
    """Replaces the head for the labels of the data and trains it, then everything.

    A recipe writes it under `model`, since what comes out is the original that variants are
    compared with. The head is trained first so that its random weights do not undo the backbone's
    (Kumar et al., "Fine-Tuning can Distort Pretrained Features", 2022).
    """
    from lepton_compress.compress.fitting import fit, loss_of
    from lepton_compress.compress.head import with_head
    from lepton_compress.compress.schedule import deterministic

    loss = loss_of(params, model, context)
    with deterministic(context.seed, context.threads):
        made, name, outputs = with_head(model, params.head, params.classes, context.data)
        told = {"head": name, "outputs": outputs}
        if params.head_epochs:
            given = {"epochs": params.head_epochs, "learning_rate": params.head_learning_rate}
            first = params.model_copy(update=given)
            told["head_training"] = fit(
                made.value, made, loss, first, context, stage="head", part=name, keep=True
            )
        if params.epochs:
            told["training"] = fit(made.value, made, loss, params, context)
    return StepOutcome(made, changed=True, statistics=told)
