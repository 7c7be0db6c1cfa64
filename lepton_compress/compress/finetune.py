"""The step `finetune`."""

from __future__ import annotations

from lepton_compress.artifacts import Model, StepContext, StepOutcome
from lepton_compress.compress.params import Training
from lepton_compress.load.forms import duplicate
from lepton_compress.registry import plugin


@plugin("step", "finetune", Training, form="module", trains=True)
def finetune(model: Model, params: Training, context: StepContext) -> StepOutcome:
    """Trains on the labels of the train split; alone in a variant, the control for the others."""
    from lepton_compress.compress import masks
    from lepton_compress.compress.training import Schedule, deterministic, task_loss, train

    trained = duplicate(model)
    names = [spec.name for spec in model.inputs]
    with deterministic(context.seed, context.threads), masks.held(trained.value):
        statistics = train(
            trained.value,
            context.data.train.named(names),
            lambda outputs, _, targets: task_loss(outputs, targets),
            Schedule(**params.model_dump()),
            observer=context.observer,
            label="training",
        )
    return StepOutcome(trained, changed=True, statistics=statistics)
