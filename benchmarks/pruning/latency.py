"""Is a net as fast as it was predicted to be?

Three figures of one net: the share of the original's time that the search predicted before it
measured the net, the share that it then measured in turns with the original, and the share that the
run measured by its own protocol, in processes of their own.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.tasks import TASKS
from lepton_compress import provenance
from lepton_compress.errors import InputError
from lepton_compress.library import compress
from lepton_compress.report.silent import Silent

RESULTS = Path(__file__).resolve().parent.parent / "results"
SHARES = {"mnist_cnn": 0.5, "resnet8": 0.7, "keyword_dscnn": 0.8, "sentiment_transformer": 0.95}
"""What is asked of each model."""


def main(names: Sequence[str]) -> None:
    """Run all models, or those named."""
    held: dict[str, Any] = {}
    for name in names or list(SHARES):
        held[name] = figures(name, SHARES[name])
        print(row(name, held[name]), flush=True)
    environment = provenance.environment()
    text = json.dumps({"environment": environment, "models": held}, indent=1)
    (RESULTS / "pruning_latency.json").write_text(text + "\n")
    (RESULTS / "pruning_latency.md").write_text(page(held, environment))


def figures(name: str, share: float) -> dict[str, Any]:
    """What a run says of a model pruned to a share of its time."""
    task = TASKS[name](name)
    with tempfile.TemporaryDirectory() as folder:
        try:
            result = compress(
                task.network,
                data={
                    part: (split.inputs, split.targets)
                    for part, split in (
                        ("train", task.data.train),
                        ("calibration", task.data.calibration),
                        ("evaluation", task.data.evaluation),
                    )
                },
                metrics=[task.metric],
                variants={"pruned": [{"prune": {"to": {"latency": f"{share}x"}}}]},
                targets=[{"name": "cpu", "runtime": "onnxruntime-cpu", "threads": 1}],
                outputs=task.outputs,
                out=Path(folder) / "run",
                workspace=Path(folder) / "kept",
                observer=Silent(),
            )
        except InputError as error:
            return {"asked": share, "refused": str(error)}
    (pruned,) = [each for each in result.candidates if each.id == "pruned"]
    step = next(each for each in pruned.history if each.step == "prune")
    (profile,) = [each for each in result.profiles if each.candidate == "pruned"]
    return {
        **step.statistics["latency"],
        "unmet": step.unmet,
        "seconds_taken": step.seconds,
        "channels": step.statistics["channels"],
        "macs": step.statistics["macs"],
        "run": profile.ratio,
        "run_interval": profile.ratio_interval,
        "noise": profile.noise,
    }


def row(name: str, held: Mapping[str, Any]) -> str:
    """A line of the table."""
    if "refused" in held:
        return f"| {name} | {held['asked']:.2f}x | {held['refused']} | | | | |"
    off = held["predicted"] / held["measured"] - 1
    low, high = held["measured_interval"]
    run_low, run_high = held["run_interval"]
    return (
        f"| {name} | {held['asked']:.2f}x | {held['predicted']:.3f}x | "
        f"{held['measured']:.3f}x ({low:.3f} to {high:.3f}) | {off:+.1%} | "
        f"{held['run']:.3f}x ({run_low:.3f} to {run_high:.3f}) | {held['reachable']:.2f}x |"
    )


def page(held: Mapping[str, Any], environment: Mapping[str, Any]) -> str:
    """The results as Markdown."""
    return "\n".join(_page(held, environment)) + "\n"


def _page(held: Mapping[str, Any], environment: Mapping[str, Any]) -> Iterator[str]:
    yield "# Pruning to a latency"
    yield ""
    yield (
        f"Made by `python -m benchmarks.pruning latency` on {environment['cpu']['name']}, "
        f"ONNX Runtime {environment['libraries']['onnxruntime']}, one thread, batch 1, float. "
        "All are shares of the original's time in the same rounds."
    )
    yield ""
    yield "| model | asked | predicted | measured by the step | off | by the run | narrowest |"
    yield "|---|---|---|---|---|---|---|"
    for name, each in held.items():
        yield row(name, each)
