"""Dynamic int8 in ONNX Runtime itself, and against its own quantiser."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from onnxruntime.quantization import QuantType, quantize_dynamic

from lepton_compress.artifacts import Model, Split
from lepton_compress.compress.account import BATCH, SAMPLES
from lepton_compress.errors import InputError
from lepton_compress.load.forms import call, signature
from tests.compress.nets import apply, cnn, decibels, mlp, model_of, outputs, recurrent, transformer

NETS: dict[str, Callable[[], tuple[Model, Split]]] = {
    "cnn": cnn,
    "mlp": mlp,
    "lstm": lambda: recurrent("LSTM"),
    "bidirectional lstm": lambda: recurrent("LSTM", directions=2),
    "gru": lambda: recurrent("GRU"),
    "transformer": lambda: transformer(fused=False),
    "fused transformer": lambda: transformer(fused=True),
}
INTEGER = {
    "cnn": {"scores"},
    "mlp": {"hidden", "scores"},
    "lstm": {"layer", "scores"},
    "bidirectional lstm": {"layer", "scores"},
    "gru": {"scores"},
    "transformer": {"project", "up", "down", "head"},
    "fused transformer": {"attention", "up", "down", "head"},
}


def stored_types(model: Model) -> dict[str, int]:
    return {tensor.name: tensor.data_type for tensor in model.value.graph.initializer}


class TestNets:
    @pytest.mark.parametrize("per_channel", [True, False])
    @pytest.mark.parametrize("net", NETS)
    def test_outputs_stay_close_and_integer_kernels_run(self, net: str, per_channel: bool) -> None:
        model, split = NETS[net]()
        made = apply("quantize_dynamic", model, split, per_channel=per_channel)
        assert set(made.statistics["weighted"]["integer"]) == INTEGER[net]
        # The scales follow the values of a batch, so that the batch has its part in the noise.
        pairs = [
            [next(iter(call(each, feeds).values())) for each in (model, made.model)]
            for feeds in split.batches(BATCH, SAMPLES)
        ]
        noise = decibels(*(np.concatenate(each) for each in zip(*pairs, strict=True)))
        assert noise > 25
        assert made.statistics["output_sqnr_db"] == pytest.approx(noise, abs=0.01)

    @pytest.mark.parametrize("net", NETS)
    @pytest.mark.parametrize("batch", [1, 5])
    def test_the_batch_stays_dynamic(self, net: str, batch: int) -> None:
        model, split = NETS[net]()
        made = apply("quantize_dynamic", model, split).model
        assert len(outputs(made, split, batch)) == batch
        assert (made.inputs, made.outputs) == (model.inputs, model.outputs)

    @pytest.mark.parametrize("net", NETS)
    def test_the_same_bytes_again(self, net: str) -> None:
        first, second = (
            apply("quantize_dynamic", *NETS[net]()).model.value.SerializeToString()
            for _ in range(2)
        )
        assert first == second

    @pytest.mark.parametrize("net", ["mlp", "lstm", "transformer"])
    def test_as_good_as_the_runtimes_own_quantiser(self, net: str, tmp_path: Path) -> None:
        model, split = NETS[net]()
        made = apply("quantize_dynamic", model, split, embeddings=False).model
        source, target = tmp_path / "float.onnx", tmp_path / "int8.onnx"
        onnx.save(model.value, source)
        quantize_dynamic(
            source,
            target,
            op_types_to_quantize=["MatMul", "LSTM"],
            per_channel=True,
            weight_type=QuantType.QInt8,
        )
        theirs = onnx.load(target)
        reference = outputs(model, split)
        other = decibels(reference, outputs(Model("graph", theirs, *signature(theirs)), split))
        assert decibels(reference, outputs(made, split)) > other - 2

    def test_weights_are_a_quarter(self) -> None:
        model, split = mlp(256)
        made = apply("quantize_dynamic", model, split).model
        assert len(made.value.SerializeToString()) < 0.4 * len(model.value.SerializeToString())


class TestWhatStaysFloat:
    def test_convolutions(self) -> None:
        made = apply("quantize_dynamic", *cnn())
        whys = made.statistics["weighted"]["float"]
        assert set(whys) == {"conv1", "depthwise", "grouped"}
        assert all("slower" in why for why in whys.values())

    def test_gru_has_no_kernel(self) -> None:
        made = apply("quantize_dynamic", *recurrent("GRU"))
        assert "left in float: layer (ONNX Runtime has no int8 kernel for GRU)" in made.notes

    def test_products_of_activations(self) -> None:
        made = apply("quantize_dynamic", *transformer(fused=False))
        assert set(made.statistics["weighted"]["float"]) == {"match", "mix"}

    def test_what_is_kept(self) -> None:
        model, split = mlp()
        made = apply("quantize_dynamic", model, split, keep=["hidden"])
        assert made.statistics["weighted"]["float"] == {"hidden": "named in `keep`"}
        assert stored_types(made.model)["w1"] == TensorProto.FLOAT
        with pytest.raises(InputError, match="no node 'hiden'"):
            apply("quantize_dynamic", model, split, keep=["hiden"])

    def test_nothing_at_all(self) -> None:
        model, split = cnn()
        made = apply("quantize_dynamic", model, split, keep=["scores"])
        assert not made.changed
        assert made.notes[0] == "nothing to quantise"
        assert any("slower" in note for note in made.notes)
        node = helper.make_node("Relu", ["x"], ["y"], "relu")
        bare = model_of([node], {}, ("x", TensorProto.FLOAT, ["batch", 3]), ("y", ["batch", 3]))
        made = apply("quantize_dynamic", bare, Split({"x": np.ones((4, 3), np.float32)}))
        assert made.notes == ("nothing to quantise", "the graph multiplies no matrices")


class TestRecurrent:
    def test_hidden_constants_are_folded_first(self) -> None:
        model, split = recurrent("LSTM", computed=True)
        made = apply("quantize_dynamic", model, split)
        assert made.statistics["weighted"]["integer"]["layer"] == "DynamicQuantizeLSTM"
        assert any("constants were folded" in note for note in made.notes)

    def test_a_layout_that_the_kernel_does_not_know(self) -> None:
        model, _ = recurrent("LSTM")
        for node in model.value.graph.node:
            if node.op_type == "LSTM":
                node.attribute.append(helper.make_attribute("layout", 1))
        from lepton_compress.compress.dynamic_int8 import _Writer
        from lepton_compress.compress.quantize_dynamic import QuantizeDynamic

        # ONNX Runtime refuses this layout in float too, so that the step cannot run it.
        _, reasons = _Writer(model, QuantizeDynamic()).candidates()
        assert reasons == {"layer": "its int8 kernel knows no layout=1"}


class TestEmbeddings:
    @pytest.mark.parametrize("wanted", [True, False])
    def test_tables_are_stored_in_eight_bits_on_request(self, wanted: bool) -> None:
        model, split = transformer(fused=False)
        made = apply("quantize_dynamic", model, split, embeddings=wanted)
        assert made.statistics["embeddings"] == (["embedding"] if wanted else [])
        assert ("table_int8" in stored_types(made.model)) == wanted

    def test_other_lookups_are_left_alone(self) -> None:
        made = apply("quantize_dynamic", *transformer(fused=False)).model
        gathers = [node.name for node in made.value.graph.node if node.op_type == "Gather"]
        assert gathers == ["embedding", "first_token"]


class TestBits:
    @pytest.mark.parametrize(("saturating", "largest"), [(True, 64), (False, 127)])
    def test_seven_where_sums_saturate(self, saturating: bool, largest: int) -> None:
        made = apply("quantize_dynamic", *recurrent("LSTM"), saturating=saturating)
        assert made.statistics["weight_bits"]["value"] == (7 if saturating else 8)
        found = [
            int(np.abs(onnx.numpy_helper.to_array(tensor).astype(int)).max())
            for tensor in made.model.value.graph.initializer
            if tensor.name.endswith("_int8")
        ]
        assert set(found) == {largest}

    def test_zero_weights_give_zero(self) -> None:
        model, split = mlp()
        for tensor in model.value.graph.initializer:
            if tensor.name == "w1":
                array = onnx.numpy_helper.to_array(tensor).copy()
                array[:, 3] = 0
                tensor.CopyFrom(onnx.numpy_helper.from_array(array, "w1"))
        made = apply("quantize_dynamic", model, split)
        assert np.isfinite(outputs(made.model, split)).all()
        assert made.statistics["output_sqnr_db"] > 30


def test_one_activation_is_rounded_once_for_all_its_users() -> None:
    rng = np.random.default_rng(0)
    weights = {name: rng.normal(size=(8, 8)).astype(np.float32) for name in ("a", "b")}
    nodes = [
        helper.make_node("MatMul", ["x", "a"], ["p"], "one"),
        helper.make_node("MatMul", ["x", "b"], ["q"], "two"),
        helper.make_node("Add", ["p", "q"], ["y"], "sum"),
    ]
    size = ["batch", 8]
    model = model_of(nodes, weights, ("x", TensorProto.FLOAT, size), ("y", size))
    split = Split({"x": rng.normal(size=(16, 8)).astype(np.float32)})
    made = apply("quantize_dynamic", model, split).model
    types = [node.op_type for node in made.value.graph.node]
    assert types.count("DynamicQuantizeLinear") == 1
    assert types.count("MatMulInteger") == 2
