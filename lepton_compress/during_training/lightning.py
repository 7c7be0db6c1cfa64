"""The session as a callback of Lightning's Trainer."""

from __future__ import annotations

from typing import Any

from lepton_compress.during_training.session import TrainingSession
from lepton_compress.errors import MissingExtraError, RecipeError

try:
    import lightning.pytorch as lightning
except ImportError as error:
    raise MissingExtraError(
        "lightning is not installed",
        where=__name__,
        mend="pip install 'lepton-compress[lightning]'",
    ) from error


class CompressionCallback(lightning.Callback):  # type: ignore[misc]
    """Compresses a module that Lightning trains.

        callback = CompressionCallback(module="network", data=splits, prune={"ratio": "50 %"})
        lightning.Trainer(max_epochs=10, callbacks=[callback]).fit(model, loader)
        result = callback.session.compress(gates={"drop": "1 %"})

    Args:
        module: attribute of the LightningModule with the network to compress; the network's
            forward() takes the data's inputs. Empty: the LightningModule itself.
        settings: what `TrainingSession` takes, but for the model and the number of updates.
    """

    session: TrainingSession

    def __init__(self, *, module: str = "", **settings: Any) -> None:
        super().__init__()
        self._name = module
        self._settings = settings
        self._steps = 0

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        """Begin."""
        if trainer.world_size > 1:
            raise RecipeError("works in one process", where="CompressionCallback")
        updates = int(trainer.estimated_stepping_batches)
        network = pl_module.get_submodule(self._name)
        self.session = TrainingSession(network, updates=updates, **self._settings)
        self._steps = trainer.global_step

    def on_train_batch_end(self, trainer: Any, *_: Any) -> None:
        """Count a batch after which the optimiser has stepped."""
        if trainer.global_step > self._steps:
            self._steps = trainer.global_step
            self.session.update(*trainer.optimizers)

    def on_train_end(self, *_: Any) -> None:
        """End, while the trained weights are still the module's."""
        self.session.end()

    def on_exception(self, *_: Any) -> None:
        """Leave the module with its own forward()."""
        if hasattr(self, "session"):
            self.session.release()
