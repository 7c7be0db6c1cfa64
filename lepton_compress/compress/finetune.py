"""The step `finetune`."""

from __future__ import annotations

from lepton_compress.artifacts import Model, StepContext, StepOutcome
from lepton_compress.compress.params import Supervised
from lepton_compress.load.forms import duplicate
from lepton_compress.registry import plugin


@plugin("step", "finetune", Supervised, form="module", trains=True)
def finetune(model: Model, params: Supervised, context: StepContext) -> StepOutcome:
    """Trains on the labels of the train split; alone in a variant, the control for the others."""
    from lepton_compress.compress import masks
    from lepton_compress.compress.fitting import fit, loss_of
    from lepton_compress.compress.schedule import deterministic

    trained = duplicate(model)
    loss = loss_of(params, model, context)
    with deterministic(context.seed, context.threads), masks.held(trained.value):
        statistics = fit(trained.value, model, loss, params, context)
    return StepOutcome(trained, changed=True, statistics=statistics)
