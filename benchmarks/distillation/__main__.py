"""Does a teacher help? `LEPTON_DATA=... python -m benchmarks.distillation [MODEL...]`.

A pruned network is trained on few samples, for as many epochs at the same rate: on the labels
alone, and with the original network as teacher, by its outputs, its features, its attention and all
of them. Three seeds, which draw the samples too; each network against the one that the same seed
trained on the labels alone, on the same evaluation samples. Writes
benchmarks/results/distillation.json and .md.
"""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.tasks import TASKS
from benchmarks.trained import about, applied, fewer, model_of, right
from lepton_compress import provenance

RESULTS = Path(__file__).resolve().parent.parent / "results"
SEEDS = (0, 1, 2)
MODELS = ("mnist_cnn", "keyword_dscnn")
SAMPLES = 300
TRAINING = {"batch_size": 32, "learning_rate": 3e-3}
EPOCHS = (8, 20)
"""Too few to learn the training samples by heart, and enough."""
WAYS: dict[str, dict[str, Any]] = {
    "labels alone": {},
    "outputs": {},
    "features": {"features": "auto"},
    "attention": {"attention": "auto"},
    "all": {"features": "auto", "attention": "auto"},
}


def main() -> None:
    """Run all models, or those named."""
    logging.disable(logging.WARNING)
    held = {name: figures(name) for name in sys.argv[1:] or list(MODELS)}
    found = {"environment": provenance.environment(), "training": TRAINING, "models": held}
    (RESULTS / "distillation.json").write_text(json.dumps(found, indent=1) + "\n")
    (RESULTS / "distillation.md").write_text(page(found))
    print(page(found))


def figures(name: str) -> dict[str, Any]:
    """Of one model: epochs to way of training to its accuracy, and what the teacher adds."""
    task, count = TASKS[name](name), SAMPLES
    teacher = model_of(task.network, task)
    found: dict[str, Any] = {
        "samples": [count, len(task.data.evaluation)],
        "original": float(right(teacher, task.data.evaluation).mean()),
        "epochs": {},
    }
    for epochs in EPOCHS:
        outcomes: dict[str, list[np.ndarray]] = {way: [] for way in WAYS}
        for seed in SEEDS:
            data = fewer(task.data, count, seed)
            start = applied("prune", teacher, data, teacher, seed, ratio="75 %", scope="local")
            for way, given in WAYS.items():
                step = "finetune" if way == "labels alone" else "distil"
                asked = {**TRAINING, "epochs": epochs, **given}
                made = applied(step, start, data, teacher, seed, **asked)
                outcomes[way].append(right(made, data.evaluation))
        base = np.array(outcomes["labels alone"])
        found["epochs"][str(epochs)] = {
            way: about(np.array(each), base) for way, each in outcomes.items()
        }
    return found


def page(found: Mapping[str, Any]) -> str:
    """The results as a page."""
    environment, training = found["environment"], found["training"]
    libraries = environment["libraries"]
    lines = [
        "# Does a teacher help?",
        "",
        (
            f"`python -m benchmarks.distillation` with torch {libraries['torch']}. Three "
            f"quarters of the channels are pruned, and what is left is trained in batches of "
            f"{training['batch_size']} at {training['learning_rate']:g}, with the "
            "defaults of `finetune` and `distil`, and three seeds. `gain`: accuracy beside the "
            "network that the same seed trained on the labels alone, with its 95 % interval over "
            "seeds and evaluation samples."
        ),
    ]
    for name, held in found["models"].items():
        few, many = held["samples"]
        lines += [
            "",
            f"## {name}",
            "",
            (
                f"{few} training samples, {many} to evaluate on; the original has "
                f"{100 * held['original']:.2f} %."
            ),
            "",
            "| epochs | taught by | accuracy % | gain | from | to |",
            "|---|---|---|---|---|---|",
        ]
        for epochs, ways in held["epochs"].items():
            for way, each in ways.items():
                values = [100 * value for value in each["accuracy"]]
                cells = [
                    epochs,
                    way,
                    f"{np.mean(values):.2f} ({min(values):.2f} to {max(values):.2f})",
                ]
                gains = [each["gain"], *each["interval"]] if way != "labels alone" else []
                cells += [f"{100 * value:+.2f}" for value in gains] or ["", "", ""]
                lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
