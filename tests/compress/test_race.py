"""Graphs that take turns."""

from __future__ import annotations

import pytest
from onnx import helper

from lepton_compress.artifacts import Place
from lepton_compress.compress.race import MIN_ROUNDS, race
from lepton_compress.errors import InputError
from tests.compress.nets import cnn, mlp

HERE = Place("here", "onnxruntime-cpu", 1, 1)


def test_the_first_is_what_the_others_are_measured_by() -> None:
    model, split = mlp()
    feeds = next(split.batches(1))
    found = race({"a": model.value, "b": model.value}, feeds, HERE, cap=0.01, seed=0)
    assert list(found) == ["a", "b"]
    assert (found["a"].ratio, found["a"].interval) == (1.0, (1.0, 1.0))
    assert not found["a"].faster
    low, high = found["b"].interval
    assert 0 < low <= found["b"].ratio <= high
    assert all(each.seconds > 0 for each in found.values())


def test_more_work_takes_longer() -> None:
    model, split = cnn()
    twice = type(model.value)()
    twice.CopyFrom(model.value)
    # 20 times over the whole image: no machine is so noisy.
    for place in range(20):
        last = "c1" if place == 0 else f"s{place - 1}"
        twice.graph.node.insert(
            1 + place, helper.make_node("Softmax", [last], [f"s{place}"], f"more{place}", axis=1)
        )
    twice.graph.node[21].input[0] = "s19"
    found = race(
        {"more": twice, "less": model.value}, next(split.batches(32)), HERE, cap=0.1, seed=0
    )
    assert found["less"].faster
    assert MIN_ROUNDS >= 10


def test_a_graph_that_cannot_run() -> None:
    model, split = mlp()
    model.value.graph.node[0].op_type = "NoSuchOperator"
    with pytest.raises(InputError, match="ONNX Runtime cannot load it"):
        race({"a": model.value}, next(split.batches(1)), HERE, cap=0.01, seed=0)
