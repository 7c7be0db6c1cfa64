"""The loop: held-out samples choose the epoch, and a training that was cut off goes on."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from lepton_compress.artifacts import MetricOutcome, Split
from lepton_compress.compress.loop import Setting
from lepton_compress.compress.schedule import Schedule, deterministic
from lepton_compress.compress.training import task_loss, train
from lepton_compress.errors import InputError, LeptonError
from lepton_compress.load import forms
from lepton_compress.metrics import OnOutput
from lepton_compress.metrics import accuracy as accuracy_of
from lepton_compress.report.silent import Silent
from tests.compress.modules import Plain, dataset, model_of

SPLIT = dataset(count=97).train.named(["x"])
PLAN: dict[str, Any] = {"epochs": 4, "batch_size": 16, "learning_rate": 5e-3, "validation": 0.2}


class Drops(Plain):
    """With dropout, so that the generator's state counts."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(nn.functional.dropout(x, 0.2, self.training))


class CutError(Exception):
    """The end of a process, as far as the loop can see."""


def metric(outputs: Any, targets: Any) -> MetricOutcome:
    return accuracy_of(outputs, targets, OnOutput(), Path())


def fit(
    folder: Path | None = None,
    *,
    kind: type[nn.Module] = Drops,
    stop: int = 0,
    split: Split = SPLIT,
    keep: bool = False,
    part: str = "",
    measure: Any = metric,
    observer: Any = None,
    **changes: Any,
) -> tuple[str, dict[str, Any]]:
    """Train a small network; `stop` cuts it off at that update. Gives fingerprint, statistics."""
    model = model_of(kind)
    seen = 0

    def told(_: float) -> None:
        nonlocal seen
        seen += 1
        if seen == stop:
            raise CutError

    setting = Setting(told, measure, ("scores",), folder, part, keep)
    with deterministic(0, 1):
        statistics = train(
            model.value,
            split,
            lambda outputs, _, targets: task_loss(outputs, targets),
            Schedule(**{**PLAN, **changes}),
            observer=observer or Silent(),
            label="training",
            setting=setting,
        )
    return forms.fingerprint(model), statistics


class TestValidation:
    def test_the_best_epoch_comes_out(self) -> None:
        mark, told = fit(epochs=8, learning_rate=0.03)
        curve = told["curve"]
        ranks = list(
            zip(curve["metric"], [-each for each in curve["validation_loss"]], strict=True)
        )
        best = max(range(8), key=lambda epoch: ranks[epoch])
        assert told["best_epoch"] == best + 1
        assert told["judged_by"] == "metric"
        assert told["held_out"] == 19
        # A training that is cut short of it ends in other weights.
        assert mark != fit(epochs=8, learning_rate=0.03, validation=0.0)[0]

    def test_it_stops_when_nothing_gets_better(self) -> None:
        def worse() -> Iterator[float]:
            yield from (0.9, 0.8, 0.7, 0.6, 0.5)

        values = worse()

        def measure(outputs: Any, targets: Any) -> MetricOutcome:
            return MetricOutcome(next(values), True)

        _, told = fit(measure=measure, epochs=9, patience=2, batch_norm="keep")
        assert (told["epochs"], told["best_epoch"]) == (3, 1)
        assert told["stopped_early"] == "no better epoch in 2"

    def test_an_error_is_better_the_smaller_it_is(self) -> None:
        values = iter([0.5, 0.2, 0.3, 0.4])
        _, told = fit(measure=lambda *_: MetricOutcome(next(values), False), batch_norm="keep")
        assert told["best_epoch"] == 2

    @pytest.mark.parametrize("fault", ["raises", "nan"])
    def test_the_loss_judges_where_the_metric_cannot(self, fault: str) -> None:
        def measure(outputs: Any, targets: Any) -> MetricOutcome:
            if fault == "raises":
                raise InputError("takes two classes")
            return MetricOutcome(float("nan"), True)

        _, told = fit(measure=measure)
        assert told["judged_by"]["value"] == "loss"
        assert told["judged_by"]["why"]
        losses = told["curve"]["validation_loss"]
        assert told["best_epoch"] == int(np.argmin(losses)) + 1

    def test_the_curve_has_a_point_an_epoch(self) -> None:
        _, told = fit()
        assert {name: len(held) for name, held in told["curve"].items()} == dict.fromkeys(
            ("loss", "learning_rate", "validation_loss", "metric"), 4
        )
        assert told["loss"] == [told["curve"]["loss"][0], told["curve"]["loss"][-1]]
        assert (told["device"], told["processes"]) == ("cpu", 1)
        assert told["precision"] == {"value": "float32", "why": "auto on a cpu"}


class TestPart:
    def test_one_layer_is_trained_alone(self) -> None:
        before, model = model_of(Plain).value.state_dict(), model_of(Plain)
        with deterministic(0, 1):
            train(
                model.value,
                SPLIT,
                lambda outputs, _, targets: task_loss(outputs, targets),
                Schedule(**PLAN),
                observer=Silent(),
                label="training",
                setting=Setting(part="scores"),
            )
        after = model.value.state_dict()
        changed = {name for name in after if not torch.equal(before[name], after[name])}
        # The statistics of batch normalisation stay as well.
        assert changed == {"scores.weight", "scores.bias"}
        assert all(each.requires_grad for each in model.value.parameters())


class TestPrecision:
    def test_bfloat16_learns_something_else(self) -> None:
        mark, told = fit(precision="bfloat16")
        assert told["precision"] == "bfloat16"
        assert told["loss"][1] < told["loss"][0]
        assert mark == fit(precision="bfloat16")[0] != fit()[0]

    def test_float16_needs_a_gpu(self) -> None:
        if torch.cuda.is_available():
            pytest.skip("there is one")
        with pytest.raises(InputError, match="precision: float16 is trained on a GPU alone; use"):
            fit(precision="float16")


class Notes(Silent):
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.notes: list[str] = []

    def note(self, text: str) -> None:
        self.notes.append(text)


class TestResume:
    @pytest.mark.parametrize("stop", [2, 5, 8, 20])
    def test_it_ends_in_the_same_bits(self, tmp_path: Path, stop: int) -> None:
        whole = fit(tmp_path / "whole", checkpoint=1e-9)
        folder = tmp_path / "cut"
        with pytest.raises(CutError):
            fit(folder, stop=stop, checkpoint=1e-9)
        assert json.loads((folder / "training.json").read_text())["done"] == stop - 1
        notes = Notes()
        assert fit(folder, checkpoint=1e-9, observer=notes) == whole
        assert notes.notes == [
            f"training goes on from step {stop - 1} of 20, where it was interrupted"
        ]
        assert not folder.exists()

    def test_it_matters_not_whether_checkpoints_are_written(self, tmp_path: Path) -> None:
        assert fit(tmp_path / "a", checkpoint=1e-9) == fit(tmp_path / "b") == fit()

    def test_nothing_is_pickled(self, tmp_path: Path) -> None:
        with pytest.raises(CutError):
            fit(tmp_path / "cut", stop=3, checkpoint=1e-9)
        files = sorted(each.suffix for each in (tmp_path / "cut").iterdir())
        assert files == [".json", ".safetensors"]

    @pytest.mark.parametrize("fault", ["tensors", "state", "both"])
    def test_a_damaged_checkpoint_is_not_used(self, tmp_path: Path, fault: str) -> None:
        folder = tmp_path / "cut"
        with pytest.raises(CutError):
            fit(folder, stop=9, checkpoint=1e-9)
        for file in folder.iterdir():
            if fault in ("both", {".json": "state"}.get(file.suffix, "tensors")):
                file.write_bytes(file.read_bytes()[:-7])
        assert fit(folder) == fit()

    def test_another_training_does_not_go_on_with_it(self, tmp_path: Path) -> None:
        with pytest.raises(CutError):
            fit(tmp_path / "cut", stop=9, checkpoint=1e-9)
        assert fit(tmp_path / "cut", learning_rate=1e-3) == fit(learning_rate=1e-3)

    def test_what_is_kept_is_read_again(self, tmp_path: Path) -> None:
        first = fit(tmp_path / "kept", keep=True)
        assert fit(tmp_path / "kept", keep=True, stop=1) == first


class TestAstray:
    def test_the_last_good_state_stays(self, tmp_path: Path) -> None:
        wild = Split(SPLIT.inputs, SPLIT.targets)
        poison = np.array(wild.inputs["x"])
        poison[0] = np.nan
        broken = Split({"x": poison}, wild.targets)
        says = (
            r"the loss became nan in epoch 1, step \d+ of \d+; the last good checkpoint, of step "
            r"\d+, is .*cut; lower learning_rate"
        )
        with pytest.raises(LeptonError, match=says) as raised:
            fit(tmp_path / "cut", split=broken, validation=0.0, checkpoint=1e-9, kind=Clean)
        assert raised.value.exit_code == 3
        held = json.loads((tmp_path / "cut" / "training.json").read_text())
        assert held["done"] >= 0
        from safetensors.torch import load_file

        tensors = load_file(tmp_path / "cut" / f"{held['tensors']}.safetensors")
        assert all(torch.isfinite(each).all() for name, each in tensors.items() if "module" in name)

    def test_without_a_folder_it_is_told_all_the_same(self) -> None:
        with pytest.raises(LeptonError, match=r"the loss became (nan|inf) in epoch 1, step \d"):
            fit(learning_rate=1e9, clip=1e30, epochs=3)


class Clean(nn.Module):
    """Without statistics that a NaN would stay in."""

    def __init__(self) -> None:
        super().__init__()
        self.scores = nn.Linear(36, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        made: torch.Tensor = self.scores(x.flatten(1))
        return made


def test_a_model_without_parameters_is_refused() -> None:
    class Fixed(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x.flatten(1)[:, :3]

    with pytest.raises(InputError, match="training: the model has no parameter to train"):
        fit(kind=Fixed)
