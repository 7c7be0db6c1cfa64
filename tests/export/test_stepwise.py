"""A step graph against the whole-sequence graph that it was made from."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from lepton_compress.artifacts import Model, Split
from lepton_compress.compress.dynamic_int8 import quantize as quantize_dynamic
from lepton_compress.compress.quantize import Quantize
from lepton_compress.compress.quantize_dynamic import QuantizeDynamic
from lepton_compress.compress.static_int8 import quantize as quantize_static
from lepton_compress.errors import InputError
from lepton_compress.export.comparable import caller, steps
from lepton_compress.export.stepwise import stepwise
from lepton_compress.export.unrounded import unrounded
from lepton_compress.load import forms
from lepton_compress.report.silent import Silent
from lepton_compress.verify import LIMIT, difference
from tests.export.recurrent import FRAMES, HIDDEN, NETS, WIDTH, gru, network, sequences, written

node = helper.make_node
LAST = node("Gather", ["states", "end"], ["y"], "last", axis=1)
ONE: dict[str, Any] = {"one": [1], "end": np.array(-1)}


def about(model: Model) -> dict[str, Any]:
    found = steps(model.value)
    assert found is not None
    return found


def whole(model: Model) -> dict[str, np.ndarray]:
    return caller(model)(sequences(7))


@pytest.mark.parametrize("name", NETS)
class TestNetworks:
    @pytest.mark.parametrize("batch", [1, 7])
    def test_frame_by_frame_it_computes_what_the_sequence_gives(
        self, name: str, batch: int
    ) -> None:
        model = network(name)
        made = caller(stepwise(model))(sequences(batch, seed=batch))
        assert difference(forms.call(model, sequences(batch, seed=batch)), made) <= LIMIT

    def test_a_call_takes_one_frame_and_its_states(self, name: str) -> None:
        made = stepwise(network(name))
        taken = {spec.name: spec for spec in made.inputs}
        assert taken.pop("x").shape == ("batch", 1, WIDTH)
        told = about(made)
        assert [each["input"] for each in told["states"]] == list(taken)
        assert [each["output"] for each in told["states"]] == list(made.outputs[1:])
        assert list(taken) == [f"state_{index}" for index in range(len(taken))]
        for each in told["states"]:
            assert taken[each["input"]].shape == tuple(each["shape"])
            assert (each["dtype"], each["zero"]) == ("float32", True)
        assert told["frame"]["shape"] == ["batch", FRAMES, WIDTH]
        assert (told["frame"]["axis"], told["frame"]["step"], told["frame"]["lead"]) == (1, 1, 0)

    def test_the_graph_is_left_alone_and_twice_gives_the_same(self, name: str) -> None:
        model = network(name)
        mark = forms.fingerprint(model)
        one, other = (stepwise(model).value.SerializeToString(deterministic=True) for _ in "12")
        assert one == other
        assert forms.fingerprint(model) == mark


def test_only_what_is_kept_of_every_frame_has_an_axis_of_time() -> None:
    assert about(stepwise(network("GRU, every frame")))["outputs"][0]["axis"] == 1
    assert about(stepwise(network("two GRUs, last frame")))["outputs"][0]["axis"] is None


def test_every_frame_is_given_when_it_is_computed() -> None:
    made = whole(stepwise(network("GRU, every frame")))["y"]
    assert made.shape == (7, FRAMES, 4)


def test_a_mean_over_time_keeps_as_many_frames_as_a_sequence_has() -> None:
    told = about(stepwise(network("LSTM, mean over time")))
    assert ["batch", FRAMES - 1, HIDDEN] in [each["shape"] for each in told["states"]]


def test_a_causal_convolution_keeps_what_it_reaches_back_to() -> None:
    told = about(stepwise(network("causal convolution and GRU")))
    assert ["batch", WIDTH, 4] in [each["shape"] for each in told["states"]]


@pytest.mark.parametrize("name", ["two GRUs, last frame", "two LSTMs, last states"])
@pytest.mark.parametrize("how", ["dynamic", "static"])
def test_quantised_it_computes_the_same_but_for_the_rounding(name: str, how: str) -> None:
    model, data = network(name), Split(sequences(32, seed=5))
    if how == "dynamic":
        small = quantize_dynamic(model, data, QuantizeDynamic()).model
    else:
        small = quantize_static(model, data, Quantize(), threads=1, observer=Silent()).model
    kinds = {each.op_type for each in small.value.graph.node}
    assert kinds & {"DynamicQuantizeLSTM", "DynamicQuantizeLinear", "QuantizeLinear"}
    assert ("DynamicQuantizeLSTM" in kinds) == (how == "dynamic" and "LSTM" in name)
    step = stepwise(small)
    assert difference(whole(unrounded(small)), whole(unrounded(step))) <= LIMIT
    noise = difference(whole(model), whole(small))
    assert difference(whole(model), whole(step)) < 3 * noise + LIMIT


def test_a_planted_fault_shows() -> None:
    step = stepwise(network("two GRUs, last frame"))
    for each in step.value.graph.node:
        if each.op_type == "GRU":
            each.input[5] = ""  # the state is forgotten
    assert difference(whole(network("two GRUs, last frame")), whole(step)) > 100 * LIMIT


def test_sequences_of_any_length() -> None:
    model = written(*gru(), LAST, frames="frames", **ONE)
    made = stepwise(model)
    for length in (1, 5, 30):
        given = {"x": np.random.default_rng(2).normal(size=(2, length, WIDTH)).astype(np.float32)}
        assert difference(forms.call(model, given), caller(made)(given)) <= LIMIT


def test_states_of_zeros_may_be_computed_from_the_batch() -> None:
    zeros = [
        node("Shape", ["x"], ["sizes"], "sizes", start=0, end=1),
        node("Concat", ["one", "sizes", "hidden"], ["wanted"], "wanted", axis=0),
        node("ConstantOfShape", ["wanted"], ["zeros"], "zeros"),
    ]
    model = written(*zeros, *gru("x", "", "zeros"), LAST, hidden=[HIDDEN], **ONE)
    assert difference(whole(model), whole(stepwise(model))) <= LIMIT


def test_an_input_that_is_no_sequence_is_given_to_every_call() -> None:
    more = (helper.make_tensor_value_info("speaker", TensorProto.FLOAT, ["batch", HIDDEN]),)
    tail = [
        node("Gather", ["states", "end"], ["found"], "last", axis=1),
        node("Add", ["found", "speaker"], ["y"], "add"),
    ]
    model = written(*gru(), *tail, more=more, **ONE)
    given = {**sequences(3), "speaker": np.ones((3, HIDDEN), np.float32)}
    assert difference(forms.call(model, given), caller(stepwise(model))(given)) <= LIMIT


def test_samples_in_frames_of_their_own_are_cut_there() -> None:
    """Rows of 96 samples, in 12 frames of 8 that do not overlap."""
    model = written(
        node("Reshape", ["row", "cut"], ["x"], "cut"), *gru(), LAST, cut=[0, FRAMES, WIDTH], **ONE
    )
    row = helper.make_tensor_value_info("row", TensorProto.FLOAT, ["batch", FRAMES * WIDTH])
    model.value.graph.input[0].CopyFrom(row)
    model = Model("graph", model.value, *forms.signature(model.value))
    made = stepwise(model)
    assert (about(made)["frame"]["step"], about(made)["frame"]["lead"]) == (WIDTH, 0)
    given = {"row": sequences(3)["x"].reshape(3, -1)}
    assert difference(forms.call(model, given), caller(made)(given)) <= LIMIT


def tail(operator: str, *inputs: str, **attributes: Any) -> list[Any]:
    """An operator behind the states, and the last frame of what it gives."""
    made = node(operator, ["states", *inputs], ["mixed"], "mixer", **attributes)
    return [*gru(), made, node("Gather", ["mixed", "end"], ["y"], "last", axis=1)]


WEIGHTS = np.ones((2 * 3 * HIDDEN, WIDTH), np.float32).reshape(2, 3 * HIDDEN, WIDTH)
REFUSED: dict[str, tuple[list[Any], dict[str, Any], str]] = {
    "backwards": ([*gru(direction="reverse"), LAST], {}, r"gru \(GRU\) runs backwards in time"),
    "lengths": ([*gru("x", "lengths"), LAST], {"lengths": np.ones(1, np.int32)}, "takes lengths"),
    "started": (
        [*gru("x", "", "start"), LAST],
        {"start": np.ones((1, 1, HIDDEN), np.float32)},
        "starts from a state that is not zero",
    ),
    "attention": (tail("Softmax", axis=1), {}, r"mixer \(Softmax\) weighs frames against each"),
    "normalised": (
        tail("LayerNormalization", "scale", axis=1),
        {"scale": np.ones((FRAMES, HIDDEN), np.float32)},
        "normalises over time",
    ),
    "position": (
        tail("Add", "table"),
        {"table": np.ones((FRAMES, HIDDEN), np.float32)},
        "a value of its own for each place in the sequence",
    ),
    "turned round": (
        tail("Slice", "end_", "start_", "one", "end_"),
        {"end_": [-1], "start_": [-99]},
        "turns time round",
    ),
    "part": (tail("Slice", "zero", "five", "one"), {"zero": [0], "five": [5]}, "takes part"),
    "first frame": (
        [*gru(), node("Gather", ["states", "first"], ["y"], "first", axis=1)],
        {"first": np.array(0)},
        "picks a frame other than the last",
    ),
    "running sum": (
        tail("CumSum", "axis"),
        {"axis": np.array(1)},
        "is not known to work on each frame by itself",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_mixes_frames_is_refused_by_name(case: str) -> None:
    nodes, constants, said = REFUSED[case]
    with pytest.raises(InputError, match=said) as caught:
        stepwise(written(*nodes, **constants, **ONE))
    assert caught.value.where == "recurrent: step"
    assert caught.value.mend


@pytest.mark.parametrize(
    ("pads", "said", "mend"),
    [
        ([0, 0], "gives 2 frames fewer than it takes", "pad 2 frames on the left"),
        ([1, 1], "looks at 1 later frames", "pad on the left alone"),
    ],
)
def test_a_convolution_that_is_not_causal_is_refused(pads: list[int], said: str, mend: str) -> None:
    nodes = [
        node("Transpose", ["x"], ["rows"], "rows", perm=[0, 2, 1]),
        node("Conv", ["rows", "kernel"], ["mixed"], "conv", pads=pads),
        node("Transpose", ["mixed"], ["columns"], "columns", perm=[0, 2, 1]),
    ]
    kernel = np.ones((WIDTH, WIDTH, 3), np.float32)
    with pytest.raises(InputError, match=said) as caught:
        stepwise(written(*nodes, *gru("columns"), LAST, kernel=kernel, **ONE))
    assert mend in (caught.value.mend or "")


def test_a_mean_over_a_sequence_of_any_length_is_refused() -> None:
    mean = node("ReduceMean", ["states", "one"], ["y"], "mean", keepdims=0)
    with pytest.raises(InputError, match=r"mean \(ReduceMean\) looks at all frames"):
        stepwise(written(*gru(), mean, frames="frames", **ONE))


def test_a_network_without_memory_is_refused() -> None:
    dense = node("MatMul", ["x", "weights"], ["y"], "dense")
    weights = np.ones((WIDTH, 3), np.float32)
    with pytest.raises(InputError, match="keeps nothing from frame to frame"):
        stepwise(written(dense, output=("batch", FRAMES, 3), weights=weights))


def test_a_name_that_a_state_is_to_have_is_refused() -> None:
    more = (helper.make_tensor_value_info("state_0", TensorProto.FLOAT, ["batch", HIDDEN]),)
    nodes = [
        node("Gather", ["states", "end"], ["found"], "last", axis=1),
        node("Add", ["found", "state_0"], ["y"], "add"),
    ]
    with pytest.raises(InputError, match="'state_0'"):
        stepwise(written(*gru(), *nodes, more=more, **ONE))


def test_the_written_graphs_are_sound() -> None:
    """Those that are refused are refused for what they say, and not for being no graphs."""
    for nodes, constants, _ in REFUSED.values():
        onnx.checker.check_model(written(*nodes, **constants, **ONE).value)
