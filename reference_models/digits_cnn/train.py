"""Train the digits network from scratch: `python -m reference_models.digits_cnn.train`.

Takes about a minute on two cores and writes weights.safetensors beside this file.
"""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import save_file

from lepton_compress.artifacts import Split
from lepton_compress.compress.training import Schedule, deterministic, task_loss, train
from lepton_compress.report.silent import Silent
from reference_models.digits_cnn.data import load
from reference_models.digits_cnn.model import DigitsCnn

SCHEDULE = Schedule(epochs=60, batch_size=64, learning_rate=2e-3, weight_decay=1e-2)


def main() -> None:
    """Train, tell the accuracy on the evaluation split, and save."""
    splits = load()
    with deterministic(seed=0, threads=2):
        model = DigitsCnn()
        images, labels = splits["train"]
        train(
            model,
            Split({"image": images}, labels),
            lambda outputs, _, targets: task_loss(outputs, targets),
            SCHEDULE,
            observer=Silent(),
            label="digits",
        )
        images, labels = splits["evaluation"]
        with torch.no_grad():
            predicted = model(torch.from_numpy(images)).argmax(1).numpy()
    print(f"evaluation accuracy {(predicted == labels).mean():.4f}")
    state = {name: tensor.contiguous() for name, tensor in model.state_dict().items()}
    save_file(state, Path(__file__).parent / "weights.safetensors")


if __name__ == "__main__":
    main()
