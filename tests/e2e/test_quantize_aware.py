"""Quantisation-aware training as a user runs it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import onnx
import pytest

from lepton_compress.errors import EXIT_OK
from tests.bench import MODULE, Bench, Done, copy_of, refused

TRAINING: dict[str, Any] = {"epochs": 2, "learning_rate": 0.003}
VARIANTS = {"small": [{"prune": {"ratio": "50 %"}}, {"quantize_aware": TRAINING}]}


@pytest.fixture(scope="module")
def ran(furnished: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Bench, Done]:
    """The folder after a first run."""
    bench = copy_of(furnished, tmp_path_factory.mktemp("aware") / "bench")
    bench.recipe(MODULE, variants=VARIANTS)
    return bench, bench.lepton("run", "recipe.yaml")


def candidates(bench: Bench) -> dict[str, dict[str, Any]]:
    return {each["id"]: each for each in bench.result()["candidates"]}


@pytest.mark.slow
class TestRun:
    def test_one_step_gives_an_integer_artifact(self, ran: tuple[Bench, Done]) -> None:
        bench, done = ran
        assert done.code == EXIT_OK, done
        assert bench.result()["chosen"][0]["candidate"] == "small"
        graph = onnx.load(bench.folder / "runs/tiny/artifacts/small.onnx").graph
        kinds = {node.op_type for node in graph.node}
        assert {"QuantizeLinear", "DequantizeLinear"} <= kinds
        assert "BatchNormalization" not in kinds
        (*_, record) = candidates(bench)["small"]["history"]
        assert record["step"] == "quantize_aware"
        assert record["statistics"]["weighted"]["float"] == {}
        assert record["statistics"]["artifact"]["agreement"] > 0.95

    def test_the_artifact_can_be_explained(self, ran: tuple[Bench, Done]) -> None:
        done = ran[0].lepton("explain", "runs/tiny:small", "--samples", "16")
        assert done.code == EXIT_OK, done
        # The layers, and on some processors what fills up the channels of the first.
        assert re.search(r"([5-9]) of \1 nodes in int8", done.out), done

    def test_a_second_run_trains_nothing(self, ran: tuple[Bench, Done], tmp_path: Path) -> None:
        bench = copy_of(ran[0].folder, tmp_path / "again")
        before = bench.digests()
        done = bench.lepton("run", "recipe.yaml")
        assert done.code == EXIT_OK, done
        assert bench.digests() == before
        for each in candidates(bench).values():
            assert all(record["cached"] for record in each["history"])


@pytest.mark.parametrize(
    ("steps", "says"),
    [
        (["quantize_aware", "quantize"], r"quantize works on a float model, but quantize_aware"),
        (
            [{"quantize_aware": {"ranges": "guessed"}}],
            r"quantize_aware\.ranges: must be 'learned' or 'observed'",
        ),
        ([{"quantize_aware": {"freeze": "120 %"}}], r"quantize_aware\.freeze: "),
    ],
)
def test_a_recipe_that_cannot_work_is_refused_in_the_plan(
    bench: Bench, steps: list[Any], says: str
) -> None:
    bench.recipe(MODULE, variants={"a": steps})
    refused(bench.lepton("plan", "recipe.yaml"), (says,))
    assert not (bench.folder / ".lepton").exists()
