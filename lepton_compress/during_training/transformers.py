"""The session as a callback of the Hugging Face Trainer."""

from __future__ import annotations

from typing import Any

from lepton_compress.during_training.session import TrainingSession
from lepton_compress.errors import MissingExtraError, RecipeError

try:
    from transformers import TrainerCallback
except ImportError as error:
    raise MissingExtraError(
        "transformers is not installed",
        where=__name__,
        mend="pip install 'lepton-compress[transformers]'",
    ) from error


class CompressionCallback(TrainerCallback):  # type: ignore[misc]
    """Compresses a model that the Hugging Face Trainer trains.

        callback = CompressionCallback(data=splits, quantize_aware={})
        Trainer(model, ..., compute_loss_func=loss, callbacks=[callback]).train()
        result = callback.session.compress(gates={"drop": "1 %"})

    The data's inputs are named as the tokenizer names them. `quantize_aware` needs the Trainer's
    `compute_loss_func`: the artifact's forward pass takes no labels.

    Args:
        settings: what `TrainingSession` takes, but for the model and the number of updates.
    """

    session: TrainingSession

    def __init__(self, **settings: Any) -> None:
        self._settings = settings

    def on_train_begin(self, args: Any, state: Any, control: Any, **given: Any) -> None:
        """Begin."""
        if args.world_size > 1:
            raise RecipeError("works in one process", where="CompressionCallback")
        self.session = TrainingSession(given["model"], updates=state.max_steps, **self._settings)

    def on_step_end(self, args: Any, state: Any, control: Any, **given: Any) -> None:
        """Count an update."""
        self.session.update(given["optimizer"])

    def on_train_end(self, args: Any, state: Any, control: Any, **given: Any) -> None:
        """End, while the trained weights are still the model's."""
        self.session.end()
