"""Saved ranges: what a run leaves, what `inspect` shows, and what `quantize` takes."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from lepton_compress.artifacts import Dataset, Model, Split, StepContext, StepOutcome
from lepton_compress.compress.quantize import Quantize
from lepton_compress.errors import InputError
from lepton_compress.load.forms import duplicate
from lepton_compress.ranges import Ranges, from_statistics, is_ranges, read_ranges, to_json
from lepton_compress.registry import get
from tests.compress.nets import Silent, cnn

if TYPE_CHECKING:
    from tests.conftest import Cli


def quantize(model: Model, split: Split, folder: Path, **parameters: Any) -> StepOutcome:
    plugin = get("step", "quantize")
    data = Dataset(split, split, split, "none")
    context = StepContext(data, lambda: duplicate(model), 0, 1, Silent(), (), folder=folder)
    outcome: StepOutcome = plugin.function(model, plugin.params(**parameters), context)
    return outcome


def saved(outcome: StepOutcome, folder: Path) -> Path:
    made = from_statistics(outcome.statistics, tool="1", data="d")
    assert made is not None
    path = folder / "ranges.json"
    path.write_text(to_json(made))
    return path


def changed(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    held = json.loads(path.read_text())
    change(held)
    path.write_text(json.dumps(held))


class TestDocument:
    def test_it_comes_back_as_it_was(self, tmp_path: Path) -> None:
        outcome = quantize(*cnn(), tmp_path)
        read = read_ranges(saved(outcome, tmp_path))
        assert read == from_statistics(outcome.statistics, tool="1", data="d")
        assert read.ranges["x"] == tuple(outcome.statistics["ranges"]["x"])
        assert (read.calibrator, read.samples) == ("mse", 64)

    def test_a_step_without_ranges_has_none(self) -> None:
        assert from_statistics({"rounds": 3}, tool="1", data="d") is None

    @pytest.mark.parametrize(
        ("change", "says"),
        [
            (lambda held: held.pop("kind"), "is no document of ranges"),
            (lambda held: held.update(version=9), "its version is not 1"),
            (lambda held: held.pop("model"), "model: Field required"),
            (lambda held: held.update(more=1), "more: Extra inputs are not permitted"),
            (lambda held: held["ranges"].update(x=[1, 2]), "range of x, 1.0 to 2.0, does not hold"),
            (lambda held: held["ranges"].update(x=[0, 0]), "the range of x is empty"),
            (lambda held: held["ranges"].update(x=["a", 2]), r"ranges.x.0: Input should be"),
            (lambda held: held["ranges"].update(x=[1]), r"ranges.x.1: Field required"),
        ],
    )
    def test_what_is_none_is_refused(self, change: Any, says: str, tmp_path: Path) -> None:
        path = saved(quantize(*cnn(), tmp_path, rounding="nearest"), tmp_path)
        changed(path, change)
        with pytest.raises(InputError, match=says) as caught:
            read_ranges(path)
        assert str(path) in str(caught.value)

    @pytest.mark.parametrize("text", ["", "[1]", "{", "[" * 100_000, '{"ranges": {}}'])
    def test_other_files_are_none(self, text: str, tmp_path: Path) -> None:
        path = tmp_path / "other.json"
        path.write_text(text)
        assert not is_ranges(path)
        with pytest.raises(InputError, match="is no document of ranges"):
            read_ranges(path)

    def test_nothing_there(self, tmp_path: Path) -> None:
        with pytest.raises(InputError, match="no such file"):
            read_ranges(tmp_path / "none.json")

    def test_a_nan_is_no_range(self) -> None:
        held: dict[str, Any] = {"tool": "1", "model": "m", "data": "d", "calibrator": "mse"}
        with pytest.raises(ValueError, match="finite number"):
            Ranges(**held, samples=1, ranges={"x": (0.0, float("nan"))}, seen={})


class TestQuantize:
    def test_they_give_the_same_artifact_as_the_calibration(self, tmp_path: Path) -> None:
        model, split = cnn()
        first = quantize(model, split, tmp_path)
        path = saved(first, tmp_path)
        again = quantize(model, split, tmp_path, ranges=path.name)
        one, other = (
            each.model.value.SerializeToString(deterministic=True) for each in (first, again)
        )
        assert one == other
        assert "ranges from ranges.json, not calibrated" in again.notes
        assert again.statistics["ranges_from"] == "ranges.json"
        assert again.statistics["calibration"] == "mse"

    def test_they_are_what_counts(self, tmp_path: Path) -> None:
        model, split = cnn()
        path = saved(quantize(model, split, tmp_path), tmp_path)
        changed(path, lambda held: held["ranges"].update(x=[-1.0, 1.0]))
        made = quantize(model, split, tmp_path, ranges=path.name, activations="uint8")
        held = {t.name: t for t in made.model.value.graph.initializer}
        node = next(n for n in made.model.value.graph.node if n.input[0] == "x")
        assert np.frombuffer(held[node.input[1]].raw_data, "f4") == pytest.approx(2 / 255)

    def test_a_missing_tensor_is_named(self, tmp_path: Path) -> None:
        model, split = cnn()
        path = saved(quantize(model, split, tmp_path), tmp_path)
        changed(path, lambda held: held["ranges"].pop("r1"))
        with pytest.raises(InputError, match=r"ranges.json: has no range for r1; add it"):
            quantize(model, split, tmp_path, ranges=path.name)

    def test_another_model_is_refused(self, tmp_path: Path) -> None:
        path = saved(quantize(*cnn(), tmp_path), tmp_path)
        with pytest.raises(InputError, match="its ranges were made for another model"):
            quantize(*cnn(seed=1), tmp_path, ranges=path.name)

    def test_they_cannot_be_resampled(self) -> None:
        with pytest.raises(ValueError, match="drop `resamples` or `ranges`"):
            Quantize(ranges="a.json", resamples=3)


RECIPE = """\
include: recipe.yaml
name: later
variants:
  saved: [quantize: {ranges: runs/tiny/ranges/int8.json}]
"""


class TestCommands:
    @pytest.mark.slow
    def test_a_run_leaves_them_and_a_later_one_takes_them(
        self, tiny_run: Path, cli: Cli, tmp_path: Path
    ) -> None:
        folder = shutil.copytree(tiny_run, tmp_path / "copy")
        assert sorted(each.name for each in (folder / "runs/tiny/ranges").iterdir()) == [
            "coarse.json",
            "int8.json",
        ]
        shown = cli("inspect", "runs/tiny/ranges/int8.json", cwd=folder)
        assert shown.returncode == 0, shown.stderr
        assert "mse on 20 samples" in shown.stdout
        listed = cli("inspect", "runs/tiny/ranges/int8.json", "--json", cwd=folder)
        held = json.loads(listed.stdout)
        assert held["kind"] == "ranges"
        assert set(held["ranges"]) >= {"x", "hidden", "scores"}
        (folder / "later.yaml").write_text(RECIPE)
        later = cli("run", "later.yaml", cwd=folder)
        assert later.returncode == 0, later.stdout + later.stderr
        results = [
            json.loads((folder / f"runs/{name}/result.json").read_text())
            for name in ("tiny", "later")
        ]
        made = [
            next(each["sha256"] for each in result["artifacts"] if each["candidate"] == name)
            for result, name in zip(results, ("int8", "saved"), strict=True)
        ]
        assert made[0] == made[1]
        # The file's contents count, not its name alone.
        path = folder / "runs/tiny/ranges/int8.json"
        changed(path, lambda held: held.update(model="another"))
        refused = cli("run", "later.yaml", cwd=folder)
        assert refused.returncode == 2
        assert "its ranges were made for another model" in refused.stderr
        path.unlink()
        gone = cli("run", "later.yaml", cwd=folder)
        assert gone.returncode == 2
        assert "variants.saved[0]: no such file runs/tiny/ranges/int8.json" in gone.stderr
        assert "Traceback" not in gone.stderr + refused.stderr
