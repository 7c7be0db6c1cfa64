"""Half precision in ONNX Runtime itself."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from lepton_compress.artifacts import Model, Split
from lepton_compress.compress.account import SAMPLES
from lepton_compress.compress.half_graph import slots
from tests.compress.nets import apply, cnn, decibels, mlp, model_of, outputs, recurrent, transformer

NETS: dict[str, Callable[[], tuple[Model, Split]]] = {
    "cnn": cnn,
    "mlp": mlp,
    "lstm": lambda: recurrent("LSTM"),
    "gru": lambda: recurrent("GRU"),
    "transformer": lambda: transformer(fused=False),
    "fused transformer": lambda: transformer(fused=True),
}


def scaled(model: Model, factors: dict[str, float]) -> Model:
    """The model with some of its weights multiplied."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model.value)
    for tensor in copy.graph.initializer:
        if tensor.name in factors:
            array = onnx.numpy_helper.to_array(tensor) * np.float32(factors[tensor.name])
            tensor.CopyFrom(onnx.numpy_helper.from_array(array, tensor.name))
    return model.replace(value=copy)


class TestNets:
    @pytest.mark.parametrize("net", NETS)
    def test_outputs_stay_close_and_weights_are_half(self, net: str) -> None:
        model, split = NETS[net]()
        made = apply("float16", model, split)
        noise = decibels(outputs(model, split, SAMPLES), outputs(made.model, split, SAMPLES))
        assert noise > 50
        assert made.statistics["output_sqnr_db"] == pytest.approx(noise, abs=0.01)
        assert made.statistics["weighted"]["float"] == {}
        kinds = {tensor.data_type for tensor in made.model.value.graph.initializer}
        assert TensorProto.FLOAT16 in kinds
        assert TensorProto.FLOAT not in kinds

    @pytest.mark.parametrize("net", NETS)
    @pytest.mark.parametrize("batch", [1, 5])
    def test_inputs_outputs_and_batch_stay(self, net: str, batch: int) -> None:
        model, split = NETS[net]()
        made = apply("float16", model, split).model
        assert (made.inputs, made.outputs) == (model.inputs, model.outputs)
        given = outputs(made, split, batch)
        assert given.dtype == np.float32
        assert len(given) == batch

    @pytest.mark.parametrize("net", NETS)
    def test_the_same_bytes_again(self, net: str) -> None:
        first, second = (
            apply("float16", *NETS[net]()).model.value.SerializeToString() for _ in range(2)
        )
        assert first == second

    def test_the_file_is_half(self) -> None:
        model, split = mlp(512)
        made = apply("float16", model, split).model
        assert len(made.value.SerializeToString()) < 0.55 * len(model.value.SerializeToString())

    def test_the_notes_say_what_the_processor_computes_in(self) -> None:
        made = apply("float16", *cnn())
        slow = any("computes it in float32" in note for note in made.notes)
        assert slow == (made.statistics["computed_in_float16"] == [])


class TestWhatDoesNotFit:
    def test_large_weights_stay(self) -> None:
        model, split = cnn()
        big = scaled(model, {"w2": 1e7, "b2": 1e7})  # what follows is clipped to six
        made = apply("float16", big, split)
        why = "a weight exceeds what float16 holds"
        assert made.statistics["weighted"]["float"] == {"depthwise": why}
        assert f"left in float: depthwise ({why})" in made.notes
        assert "left in float: relu6 (a value exceeds what float16 holds)" in made.notes
        assert decibels(outputs(big, split), outputs(made.model, split)) > 40

    def test_where_no_value_fits_nothing_is_converted(self) -> None:
        model, split = mlp()
        made = apply("float16", scaled(model, {"w1": 3e5, "b1": 3e5, "w2": 3e-5}), split)
        assert not made.changed
        assert made.notes[0] == "no weight can be converted"

    def test_a_large_value_between_two_that_fit(self) -> None:
        rng = np.random.default_rng(0)
        weights = {name: rng.normal(size=(8, 8)).astype(np.float32) for name in ("a", "b")}
        weights |= {"up": np.array(1e5, np.float32), "down": np.array(1e-5, np.float32)}
        nodes = [
            helper.make_node("MatMul", ["x", "a"], ["p"], "one"),
            helper.make_node("Mul", ["p", "up"], ["q"], "larger"),
            helper.make_node("Mul", ["q", "down"], ["r"], "smaller"),
            helper.make_node("MatMul", ["r", "b"], ["y"], "two"),
        ]
        size = ["batch", 8]
        model = model_of(nodes, weights, ("x", TensorProto.FLOAT, size), ("y", size))
        split = Split({"x": rng.normal(size=(16, 8)).astype(np.float32)})
        made = apply("float16", model, split)
        assert made.statistics["weighted"] == {"float16": ["one", "two"], "float": {}}
        assert decibels(outputs(model, split), outputs(made.model, split)) > 50

    def test_weights_that_vanish_are_counted(self) -> None:
        model, split = mlp()
        made = apply("float16", scaled(model, {"b2": 1e-9}), split)
        assert "4 weights below 3.0e-08 became zero" in made.notes

    def test_what_is_kept(self) -> None:
        model, split = cnn()
        made = apply("float16", model, split, keep=["conv1"])
        assert made.statistics["weighted"]["float"] == {"conv1": "named in `keep`"}
        kinds = {t.name: t.data_type for t in made.model.value.graph.initializer}
        assert kinds["w1"] == TensorProto.FLOAT

    def test_no_weights(self) -> None:
        node = helper.make_node("Relu", ["x"], ["y"], "relu")
        model = model_of([node], {}, ("x", TensorProto.FLOAT, ["batch", 3]), ("y", ["batch", 3]))
        made = apply("float16", model, Split({"x": np.ones((4, 3), np.float32)}))
        assert not made.changed
        assert made.notes == ("no weight can be converted",)


class TestSlots:
    def slots(self, operator: str, inputs: int, **rest: Any) -> Any:
        node = helper.make_node(operator, [f"i{n}" for n in range(inputs)], ["o"], **rest)
        model, _ = cnn()
        return slots(node, model.value)

    def test_every_float_of_a_plain_operator(self) -> None:
        assert self.slots("Conv", 3) == ({0, 1, 2}, {0})
        assert self.slots("Concat", 4, axis=0) == ({0, 1, 2, 3}, {0})

    def test_places_that_must_be_float32(self) -> None:
        inputs, _ = self.slots("Resize", 3)
        assert 2 not in inputs

    def test_operators_without_a_float16_form(self) -> None:
        assert self.slots("Cast", 1, to=TensorProto.FLOAT) is None
        assert self.slots("Attention", 3, domain="com.microsoft") == ({0, 1, 2}, {0})
        assert self.slots("Unheard", 3, domain="com.microsoft") is None
