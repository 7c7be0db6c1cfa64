"""The step `quantize_weights` as the pipeline runs it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from lepton_compress.artifacts import Split
from lepton_compress.compress.quantize_weights import QuantizeWeights
from lepton_compress.errors import InputError
from tests.compress.nets import apply, decibels, mlp, outputs, transformer


@pytest.mark.parametrize(
    "given",
    [
        {"bits": 5},
        {"block_size": 20},
        {"algorithm": "best"},
        {"samples": 0},
        {"mean_bits": 4},
        {"mean_bits": 5, "bits": 8},
        {"symmetric": True, "algorithm": "hqq"},
    ],
)
def test_what_makes_no_sense_is_refused(given: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        QuantizeWeights(**given)


@pytest.mark.parametrize("algorithm", ["auto", "gptq", "awq", "hqq", "rtn"])
@pytest.mark.parametrize(("bits", "least"), [(4, 12), (8, 30)])
def test_outputs_stay_close(algorithm: str, bits: int, least: float) -> None:
    model, split = transformer(fused=False)
    made = apply("quantize_weights", model, split, bits=bits, algorithm=algorithm, block_size=16)
    assert decibels(outputs(model, split), outputs(made.model, split)) > least


@pytest.mark.parametrize("compute", ["int8", "float32"])
def test_the_level_of_accuracy_follows(compute: str) -> None:
    made = apply("quantize_weights", *mlp(64), compute=compute).model
    levels = {
        attribute.i
        for node in made.value.graph.node
        for attribute in node.attribute
        if attribute.name == "accuracy_level"
    }
    assert levels == {4 if compute == "int8" else 0}


@pytest.mark.parametrize("batch", [1, 5])
def test_the_batch_stays_dynamic(batch: int) -> None:
    model, split = mlp(64)
    made = apply("quantize_weights", model, split).model
    assert len(outputs(made, split, batch)) == batch


def test_the_same_bytes_again() -> None:
    first, second = (
        apply("quantize_weights", *mlp(64)).model.value.SerializeToString() for _ in range(2)
    )
    assert first == second


def test_four_bits_are_an_eighth() -> None:
    model, split = mlp(1024)
    made = apply("quantize_weights", model, split, block_size=128).model
    assert len(made.value.SerializeToString()) < 0.2 * len(model.value.SerializeToString())


def test_kept_nodes_stay_float() -> None:
    model, split = mlp(64)
    made = apply("quantize_weights", model, split, keep=["hidden"])
    assert made.statistics["weighted"]["float"] == {"hidden": "named in `keep`"}
    with pytest.raises(InputError, match="no node 'hiden'.*did you mean 'hidden'"):  # noqa: RUF043
        apply("quantize_weights", model, split, keep=["hiden"])


def test_nothing_wide_enough() -> None:
    made = apply("quantize_weights", *mlp(24), block_size=256)
    assert not made.changed
    assert "constant weight of 256 inputs or more" in made.notes[0]


def test_data_that_do_not_fit() -> None:
    model, _ = mlp(64)
    wrong = Split({"x": np.zeros((3, 65), np.float32)})
    with pytest.raises(InputError, match=r"x is float32\[65\] a sample"):
        apply("quantize_weights", model, wrong)


def test_a_quantised_graph_is_refused() -> None:
    model, split = mlp(64)
    made = apply("quantize", model, split).model
    with pytest.raises(InputError, match="the model is quantised already"):
        apply("quantize_weights", made, split)
