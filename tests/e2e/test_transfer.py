"""A recipe that teaches its model other labels first, as a user runs it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest

from lepton_compress import compress
from lepton_compress.errors import EXIT_OK
from tests.bench import GRAPH, MODULE, Bench, copy_of, refused, splits, trained

MODEL = {**MODULE["model"], "transfer": {"epochs": 4, "learning_rate": 0.003}}
VARIANTS = {
    "int8": ["quantize"],
    "small": [{"prune": {"ratio": "50 %"}}, {"distil": {"epochs": 4}}],
}


def more_labels(bench: Bench) -> None:
    """Six classes, where the network was trained on four."""
    text = (bench.folder / "data.py").read_text()
    text = text.replace("size=(4, 1, 6, 6)", "size=(6, 1, 6, 6)")
    (bench.folder / "data.py").write_text(text.replace("integers(4,", "integers(6,"))


@pytest.fixture(scope="module")
def ran(furnished: Path, tmp_path_factory: pytest.TempPathFactory) -> Bench:
    bench = copy_of(furnished, tmp_path_factory.mktemp("transfer") / "bench")
    more_labels(bench)
    bench.recipe(MODULE, model=MODEL, variants=VARIANTS)
    done = bench.lepton("run", "recipe.yaml")
    assert done.code == EXIT_OK, done
    return bench


@pytest.mark.slow
class TestRun:
    def test_the_original_answers_the_new_labels(self, ran: Bench) -> None:
        scores = {each["candidate"]: each["value"] for each in ran.result()["scores"]}
        assert set(scores) == {"baseline", *VARIANTS}
        assert scores["baseline"] > 0.9
        file = ran.folder / "runs/tiny/artifacts/baseline.onnx"
        session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
        (made,) = session.run(None, {"image": np.zeros((2, 1, 6, 6), np.float32)})
        assert made.shape == (2, 6)

    def test_every_candidate_begins_with_it(self, ran: Bench) -> None:
        for each in ran.result()["candidates"]:
            assert each["history"][0]["step"] == "transfer"
        assert len(ran.entries()["transfer"]) == 1

    def test_a_second_run_trains_nothing(self, ran: Bench, tmp_path: Path) -> None:
        bench = copy_of(ran.folder, tmp_path / "again")
        before = bench.digests()
        done = bench.lepton("run", "recipe.yaml")
        assert done.code == EXIT_OK, done
        assert bench.digests() == before
        held = bench.result()["candidates"]
        assert all(record["cached"] for each in held for record in each["history"])

    def test_other_parameters_are_another_original(self, ran: Bench, tmp_path: Path) -> None:
        bench = copy_of(ran.folder, tmp_path / "other")
        bench.recipe(MODULE, model={**MODEL, "transfer": {"epochs": 5}}, variants=VARIANTS)
        done = bench.lepton("plan", "recipe.yaml")
        assert done.code == EXIT_OK, done
        assert "transfer" in done.out


class TestRefused:
    @pytest.mark.parametrize(
        ("transfer", "says"),
        [
            ({"clases": 5}, r"model\.transfer\.clases: unknown key 'clases'; did you mean"),
            ({"epochs": 0, "head_epochs": 0}, r"model\.transfer: an untrained head"),
            ("auto", r"model\.transfer: must be the parameters of `transfer`"),
        ],
    )
    def test_parameters(self, bench: Bench, transfer: Any, says: str) -> None:
        bench.recipe(MODULE, model={**MODULE["model"], "transfer": transfer})
        refused(bench.lepton("validate", "recipe.yaml"), (says,))

    def test_an_onnx_file_has_nothing_to_train(self, bench: Bench) -> None:
        bench.recipe(GRAPH, model={"onnx": "model.onnx", "transfer": {}})
        says = r"model: .*transfer trains a torch module: give the model as a factory"
        refused(bench.lepton("validate", "recipe.yaml"), (says,))

    def test_a_variant_of_other_labels(self, bench: Bench) -> None:
        bench.recipe(MODULE, variants={"a": ["transfer"]})
        says = r"variants\.a\[0\]: a variant cannot be compared .*; write `transfer` under `model`"
        refused(bench.lepton("plan", "recipe.yaml"), (says,))

    def test_a_head_that_is_not_there(self, bench: Bench) -> None:
        more_labels(bench)
        bench.recipe(MODULE, model={**MODULE["model"], "transfer": {"head": "last"}})
        says = r"model\.transfer: head last: no such layer: a head is"
        refused(bench.lepton("run", "recipe.yaml"), (says,))


def test_a_training_script_does_the_same(tmp_path: Path) -> None:
    held = splits()
    two = {name: (images, labels % 2) for name, (images, labels) in held.items()}
    result = compress(
        trained(),
        data=two,
        steps=["quantize"],
        transfer={"epochs": 2, "head_epochs": 2},
        measure={"rounds": 5, "cap": "100 ms"},
        workspace=tmp_path / "work",
        threads=1,
    )
    assert result.candidates[0].history[0].step == "transfer"
    assert result.scores[0].value > 0.9
