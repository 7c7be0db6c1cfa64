"""Static int8 in ONNX Runtime itself."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from lepton_compress.artifacts import Model, Split
from lepton_compress.compress import static_int8
from lepton_compress.compress.account import SAMPLES, signal_to_noise
from lepton_compress.compress.calibration import METHODS
from lepton_compress.errors import InputError
from lepton_compress.load.forms import call, signature
from tests.compress.nets import apply, cnn, decibels, mlp, model_of, outputs, recurrent, transformer

Net = Callable[[], tuple[Model, Split]]

NETS: dict[str, Net] = {
    "cnn": cnn,
    "mlp": mlp,
    "lstm": lambda: recurrent("LSTM"),
    "gru": lambda: recurrent("GRU"),
    "transformer": lambda: transformer(fused=False),
    "fused transformer": lambda: transformer(fused=True),
}


def value_type(model: Model, name: str) -> str:
    """The integer type behind a QuantizeLinear's output."""
    node = next(node for node in model.value.graph.node if node.input[:1] == [name])
    zero = next(t for t in model.value.graph.initializer if t.name == node.input[2])
    return str(helper.tensor_dtype_to_np_dtype(zero.data_type).name)


class TestNets:
    @pytest.mark.parametrize("net", NETS)
    def test_outputs_stay_close_and_the_account_is_whole(self, net: str) -> None:
        model, split = NETS[net]()
        made = apply("quantize", model, split, activations="uint8", saturating=False)
        noise = decibels(outputs(model, split, SAMPLES), outputs(made.model, split, SAMPLES))
        assert noise > 25
        assert made.statistics["output_sqnr_db"] == pytest.approx(noise, abs=0.01)
        weighted = made.statistics["weighted"]
        names = [n.name for n in model.value.graph.node if n.op_type in ("Conv", "Gemm", "MatMul")]
        assert set(names) == set(weighted["integer"])
        for name, why in weighted["float"].items():
            assert any(name in note and why in note for note in made.notes)

    @pytest.mark.parametrize(("net", "left"), [("lstm", "LSTM"), ("gru", "GRU")])
    def test_recurrent_layers_stay_float_and_say_so(self, net: str, left: str) -> None:
        model, split = NETS[net]()
        made = apply("quantize", model, split)
        why = f"ONNX Runtime has no static int8 kernel for {left}"
        assert made.statistics["weighted"]["float"] == {"layer": why}
        assert f"left in float: layer ({why})" in made.notes
        held = made.statistics["held_in_float"]
        sizes = {each.name: 4 * np.prod(each.dims) for each in model.value.graph.initializer}
        assert held["bytes"] == sum(sizes[name] for name in "wrb")
        assert held["share"] == pytest.approx(
            held["bytes"] / (held["bytes"] + sizes["v"]), abs=1e-4
        )
        assert any("of the layers' weights" in note for note in made.notes)

    @pytest.mark.parametrize("net", NETS)
    @pytest.mark.parametrize("batch", [1, 5])
    def test_the_batch_stays_dynamic(self, net: str, batch: int) -> None:
        model, split = NETS[net]()
        made = apply("quantize", model, split).model
        assert len(outputs(made, split, batch)) == batch
        assert made.inputs == model.inputs
        assert made.outputs == model.outputs

    @pytest.mark.parametrize("net", ["cnn", "transformer"])
    def test_the_same_bytes_again(self, net: str) -> None:
        made = [
            apply("quantize", *NETS[net](), saturating=True, calibration="mse") for _ in range(2)
        ]
        first, second = (each.model.value.SerializeToString(deterministic=True) for each in made)
        assert first == second
        assert made[0].statistics == made[1].statistics

    @pytest.mark.parametrize("method", METHODS)
    def test_every_method_gives_a_good_network(self, method: str) -> None:
        model, split = cnn()
        made = apply("quantize", model, split, calibration=method, saturating=False)
        assert made.statistics["calibration"] == method
        assert made.statistics["output_sqnr_db"] > 25

    def test_ranges_in_the_statistics_are_those_in_the_graph(self) -> None:
        model, split = cnn()
        made = apply("quantize", model, split, activations="uint8")
        low, high = made.statistics["ranges"]["x"]
        held = {
            tensor.name: onnx.numpy_helper.to_array(tensor)
            for tensor in made.model.value.graph.initializer
        }
        node = next(n for n in made.model.value.graph.node if n.input[0] == "x")
        assert held[node.input[1]] == pytest.approx((high - low) / 255, rel=1e-6)
        assert held[node.input[2]] == round(-low / ((high - low) / 255))


class TestActivations:
    @pytest.mark.parametrize("net", ["cnn", "mlp"])
    def test_unsigned_and_signed_agree(self, net: str) -> None:
        model, split = NETS[net]()
        unsigned, signed = (
            outputs(apply("quantize", model, split, activations=kind).model, split)
            for kind in ("uint8", "int8")
        )
        # The same levels, 128 apart.
        assert np.abs(unsigned - signed).max() <= 1e-6 * np.abs(unsigned).max()

    @pytest.mark.parametrize("kind", ["uint8", "int8", "uint16"])
    def test_the_type_is_what_was_asked_for(self, kind: str) -> None:
        model, split = cnn()
        made = apply("quantize", model, split, activations=kind)
        assert value_type(made.model, "x") == kind
        assert made.statistics["activations"] == {"value": kind, "why": "asked for"}

    def test_auto_says_why(self) -> None:
        model, split = cnn()
        made = apply("quantize", model, split)
        assert value_type(made.model, "x") == made.statistics["activations"]["value"]
        assert "fastest" in made.statistics["activations"]["why"]

    def test_sixteen_bits_are_finer_but_run_in_float_and_say_so(self) -> None:
        model, split = cnn()
        made = apply("quantize", model, split, activations="uint16")
        eight = apply("quantize", model, split, activations="uint8")
        assert made.statistics["output_sqnr_db"] > eight.statistics["output_sqnr_db"] + 1
        assert made.statistics["weighted"]["integer"] == {}
        assert any("CPUs have no integer kernel" in note for note in made.notes)
        domains = {n.domain for n in made.model.value.graph.node if n.op_type == "QuantizeLinear"}
        assert domains == {"com.microsoft"}

    def test_sixteen_bits_are_standard_from_opset_21_on(self) -> None:
        model, split = cnn(opset=21)
        made = apply("quantize", model, split, activations="uint16")
        domains = {n.domain for n in made.model.value.graph.node if n.op_type == "QuantizeLinear"}
        assert domains == {""}

    @pytest.mark.parametrize(("kind", "middle"), [("uint8", 128), ("int8", 0)])
    def test_symmetric_ranges_keep_the_accuracy(self, kind: str, middle: int) -> None:
        model, split = cnn()
        made = apply("quantize", model, split, activations=kind, symmetric=True, saturating=False)
        assert made.statistics["output_sqnr_db"] > 30
        assert all(low == -high for low, high in made.statistics["ranges"].values())
        held = {t.name: t for t in made.model.value.graph.initializer}
        zeros = {
            int(onnx.numpy_helper.to_array(held[node.input[2]]))
            for node in made.model.value.graph.node
            if node.op_type == "QuantizeLinear"
        }
        assert zeros == {middle}
        # What an asymmetric zero point stands for, a symmetric one does not.
        assert [n.op_type for n in made.model.value.graph.node].count("Relu") == 1

    def test_per_channel_is_finer(self) -> None:
        model, split = cnn()
        for tensor in model.value.graph.initializer:
            if tensor.name == "w2":
                array = onnx.numpy_helper.to_array(tensor).copy()
                array[0] *= 50
                tensor.CopyFrom(onnx.numpy_helper.from_array(array, "w2"))
        whole, single = (
            apply("quantize", model, split, per_channel=each, saturating=False)
            for each in (True, False)
        )
        assert whole.statistics["output_sqnr_db"] > single.statistics["output_sqnr_db"]


class TestRefusals:
    def test_a_node_that_is_not_there(self) -> None:
        with pytest.raises(InputError, match=r"no node 'conv2'.*did you mean 'conv1'"):
            apply("quantize", *cnn(), keep=["conv2"])

    @pytest.mark.parametrize("step", ["quantize", "quantize_dynamic", "float16"])
    @pytest.mark.parametrize("before", ["quantize", "quantize_dynamic", "quantize_weights"])
    def test_a_quantised_graph_says_what_was_found(self, step: str, before: str) -> None:
        model, split = mlp(32)
        made = apply(before, model, split).model
        with pytest.raises(InputError, match=r"quantised already \(\d+ [A-Z]\w+") as caught:
            apply(step, made, split)
        assert caught.value.where == step

    @pytest.mark.parametrize("step", ["quantize", "quantize_dynamic", "float16"])
    @pytest.mark.parametrize(
        ("change", "said"),
        [
            (lambda x: x[:0], "there are no samples"),
            (
                lambda x: x.astype(np.float64),
                r"float64\[24\] a sample, but the model takes float32",
            ),
            (lambda x: x[:, :-1], r"float32\[23\] a sample, but the model takes float32\[24\]"),
            (lambda x: x[..., None], r"float32\[24, 1\] a sample"),
        ],
    )
    def test_data_that_do_not_fit(self, step: str, change: Callable[[Any], Any], said: str) -> None:
        model, split = mlp()
        wrong = Split({"x": change(split.inputs["x"])})
        with pytest.raises(InputError, match=said) as caught:
            apply(step, model, wrong)
        assert caught.value.where == f"{step}: calibration data"
        assert "\n" not in str(caught.value)

    def test_inputs_of_other_names(self) -> None:
        model, split = mlp()
        wrong = Split({"a": split.inputs["x"], "b": split.inputs["x"]})
        with pytest.raises(InputError, match="the data has the inputs a, b"):
            apply("quantize", model, wrong)

    @pytest.mark.parametrize("step", ["quantize", "float16"])
    def test_nan_in_the_data(self, step: str) -> None:
        model, split = mlp()
        wrong = split.inputs["x"].copy()
        wrong[3, 3] = np.nan
        with pytest.raises(InputError, match="NaN or infinite"):
            apply(step, model, Split({"x": wrong}))

    def test_nothing_to_quantise(self) -> None:
        node = helper.make_node("Relu", ["x"], ["y"], "relu")
        model = model_of([node], {}, ("x", TensorProto.FLOAT, ["batch", 3]), ("y", ["batch", 3]))
        made = apply("quantize", model, Split({"x": np.ones((4, 3), np.float32)}))
        assert not made.changed
        assert "none of Conv" in made.notes[0]

    def test_everything_kept(self) -> None:
        model, split = mlp()
        made = apply("quantize", model, split, keep=["hidden", "scores"])
        assert not made.changed


class TestPreparation:
    def test_an_old_opset_is_upgraded_and_noted(self) -> None:
        model, split = cnn(opset=11)
        made = apply("quantize", model, split)
        assert "upgraded from opset 11 to 13, which quantisation needs" in made.notes
        assert {each.version for each in made.model.value.opset_import if not each.domain} == {13}
        newer = apply("quantize", *cnn())
        wanted = outputs(newer.model, split)
        assert np.array_equal(outputs(made.model, split), wanted)
        assert set(made.statistics["weighted"]["integer"]) == {
            "conv1",
            "depthwise",
            "grouped",
            "scores",
        }

    def test_values_behind_an_unknown_operator_get_their_types_from_a_run(self) -> None:
        model, split = transformer(fused=True)
        made = apply("quantize", model, split)
        assert "shapes of 1 values that inference misses are from sample runs" in made.notes
        assert {"up", "down", "head"} == set(made.statistics["weighted"]["integer"])

    def test_contradictory_shapes_are_replaced(self) -> None:
        model, split = mlp()
        wrong = helper.make_tensor_value_info("m", TensorProto.INT64, ["batch", 7])
        model.value.graph.value_info.append(wrong)
        made = apply("quantize", model, split)
        assert any("they were inferred anew" in note for note in made.notes)
        assert set(made.statistics["weighted"]["integer"]) == {"hidden", "scores"}

    def test_kept_nodes_stay_float(self) -> None:
        model, split = cnn()
        made = apply("quantize", model, split, keep=["conv1"])
        assert made.statistics["weighted"]["float"] == {"conv1": "named in `keep`"}
        assert "left in float: conv1 (named in `keep`)" in made.notes

    def test_integer_inputs(self) -> None:
        model, split = transformer(fused=False)
        assert split.inputs["tokens"].dtype == np.int64
        assert apply("quantize", model, split).changed


def test_signal_to_noise_is_in_decibels() -> None:
    reference = np.full((3, 4), 10.0, np.float32)
    assert signal_to_noise(reference, reference + 0.1) == pytest.approx(40, abs=0.05)
    assert signal_to_noise(reference, reference) is None
    assert signal_to_noise(0 * reference, reference) is None


def test_a_torch_network_goes_the_same_way() -> None:
    import torch

    from lepton_compress.export.lower import lower
    from lepton_compress.load.forms import input_specs

    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = torch.nn.Sequential(
            torch.nn.Conv2d(1, 8, 3),
            torch.nn.BatchNorm2d(8),
            torch.nn.ReLU(),
            torch.nn.Flatten(),
            torch.nn.Linear(128, 4),
        ).eval()
    split = Split({"input": np.random.default_rng(0).normal(size=(32, 1, 6, 6)).astype("f4")})
    model = Model("module", net, input_specs(split.inputs, ["input"]), ("scores",))
    graph = lower(model, split)
    for step in ("quantize", "quantize_dynamic", "float16"):
        made = apply(step, graph, split)
        feeds = next(split.batches(32))
        assert decibels(call(model, feeds)["scores"], call(made.model, feeds)["scores"]) > 30


def test_operators_are_sorted() -> None:
    assert list(static_int8.OPERATORS) == sorted(static_int8.OPERATORS)
    assert signature(cnn()[0].value)[1] == ("scores",)
