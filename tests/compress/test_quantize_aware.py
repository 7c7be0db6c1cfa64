"""Quantisation-aware training: the artifact is the network that was trained."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper
from torch import nn
from torch.nn import functional

from lepton_compress.artifacts import Model, StepOutcome
from lepton_compress.compress import aware, trained_graph
from lepton_compress.compress.aware import Decided, Network
from lepton_compress.compress.placement import Placement, rounded
from lepton_compress.errors import InputError, LeptonError, PluginError
from lepton_compress.export.lower import lower
from lepton_compress.load import forms
from tests.compress import nets
from tests.compress.modules import CLASSES, Plain, accuracy, apply, dataset, model_of

DATA = dataset()


class Residual(nn.Module):
    """Batch normalisation, a shortcut, a branch that starts at zero, concatenation, pooling and
    dropout."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, 8, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(8)
        self.inner = nn.Conv2d(8, 8, 3, padding=1, bias=False)
        self.last = nn.BatchNorm2d(8)
        self.pool = nn.AvgPool2d(2)
        self.drop = nn.Dropout(0.5)
        self.scores = nn.Linear(16 * 9, CLASSES)
        nn.init.zeros_(self.last.weight)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.norm(self.stem(x)))
        y = torch.relu(x + self.last(self.inner(x)))
        x = self.pool(torch.cat([x, y], 1))
        made: torch.Tensor = self.scores(self.drop(x.flatten(1)))
        return made


class Mobile(nn.Module):
    """Pointwise, depthwise and grouped convolutions, ReLU6, hard swish, and a dense layer with a
    normalisation."""

    def __init__(self) -> None:
        super().__init__()
        self.point = nn.Sequential(nn.Conv2d(1, 8, 1, bias=False), nn.BatchNorm2d(8), nn.ReLU6())
        self.depth = nn.Sequential(nn.Conv2d(8, 8, 3, padding="same", groups=8), nn.Hardswish())
        self.group = nn.Conv2d(8, 16, 3, stride=2, groups=2)
        self.hidden = nn.Linear(16, 16)
        self.norm = nn.BatchNorm1d(16)
        self.scores = nn.Linear(16, CLASSES)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.group(self.depth(self.point(x))).mean((2, 3))
        made: torch.Tensor = self.scores(torch.relu(self.norm(self.hidden(x))))
        return made


class Rows(nn.Module):
    """One-dimensional convolutions, a dense layer at each place, and one layer used twice."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv1d(6, 8, 3, padding=1)
        self.norm = nn.BatchNorm1d(8)
        self.twice = nn.Conv1d(8, 8, 1)
        self.each = nn.Linear(8, 8)
        self.scores = nn.Linear(8, CLASSES)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.norm(self.first(x.squeeze(1))))
        x = torch.relu(self.twice(torch.relu(self.twice(x)))) + x
        x = functional.gelu(self.each(x.transpose(1, 2)))
        made: torch.Tensor = self.scores(x.mean(1))
        return made


class Gates(nn.Module):
    """Squeeze and excitation, SiLU, a normalisation that is still fresh, and upsampling."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(1, 8, 3, padding=1)
        self.squeeze = nn.Conv2d(8, 4, 1)
        self.excite = nn.Conv2d(4, 8, 1)
        self.wider = nn.Upsample(scale_factor=2)
        self.hidden = nn.Linear(8, 8, bias=False)
        self.norm = nn.BatchNorm1d(8, affine=False)
        self.scores = nn.Linear(8, CLASSES)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = functional.silu(self.first(x))
        gate = self.excite(torch.relu(self.squeeze(functional.adaptive_avg_pool2d(x, 1))))
        x = self.wider(x * torch.sigmoid(gate)).mean((2, 3))
        made: torch.Tensor = self.scores(torch.relu(self.norm(self.hidden(x))))
        return made


class Gated(nn.Module):
    """A recurrent layer, and a constant that is added."""

    def __init__(self) -> None:
        super().__init__()
        self.shift = nn.Parameter(torch.randn(8, 6))
        self.first = nn.Conv1d(6, 8, 3, padding=1)
        self.gru = nn.GRU(6, 8, batch_first=True)
        self.scores = nn.Linear(8, CLASSES)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.first(x.squeeze(1)) + self.shift
        made: torch.Tensor = self.scores(self.gru(x)[0][:, -1])
        return made


NETS: dict[str, tuple[Callable[[], nn.Module], dict[str, Any]]] = {
    "residual": (Residual, {"ranges": "learned"}),
    "mobile": (Mobile, {"ranges": "learned", "activations": "int8"}),
    "gates": (Gates, {"ranges": "learned", "per_channel": False}),
    "rows": (Rows, {"ranges": "observed", "weight_bits": 7}),
}
EXACT: dict[str, Any] = {"activations": "uint8", "saturating": False}
FAST: dict[str, Any] = {**EXACT, "epochs": 2, "learning_rate": 3e-3, "batch_size": 16}


@dataclass(frozen=True)
class Ran:
    """What a step gave, what it trained, and where that was rounded."""

    outcome: StepOutcome
    network: Network
    placement: Placement


@functools.cache
def trained(net: str) -> Ran:
    """A step's outcome, with the network that it trained inside."""
    made: list[tuple[Network, Placement]] = []
    build = aware.build

    def kept(decided: Decided, *given: Any) -> Network:
        made.append((build(decided, *given), decided.placement))
        return made[-1][0]

    factory, parameters = NETS[net]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(aware, "build", kept)
        outcome = apply("quantize_aware", model_of(factory), DATA, **{**FAST, **parameters})
    return Ran(outcome, *made[0])


def held(model: Model) -> dict[str, np.ndarray]:
    return {each.name: numpy_helper.to_array(each) for each in model.value.graph.initializer}


@pytest.fixture(params=NETS)
def ran(request: pytest.FixtureRequest) -> Ran:
    return trained(str(request.param))


class TestArtifact:
    def test_it_computes_what_was_trained(self, ran: Ran) -> None:
        outcome, network = ran.outcome, ran.network
        x = np.asarray(DATA.evaluation.named(["x"]).inputs["x"])
        with torch.no_grad():
            wanted = network.graph(x=torch.from_numpy(x.copy())).numpy()
        given = forms.call(outcome.model, {"x": x})["scores"]
        assert (wanted.argmax(1) == given.argmax(1)).mean() > 0.98
        # A kernel may round a tie to the other side: one step of the output at most.
        steps = np.abs(wanted - given) / network.ranges["scores"].step()[0]
        assert steps.max() < 1.01
        assert (steps > 0.5).mean() < 0.05
        assert outcome.statistics["artifact"]["agreement"] > 0.95

    def test_its_scales_and_zero_points_are_the_trained_ones(self, ran: Ran) -> None:
        outcome, network = ran.outcome, ran.network
        arrays, nodes = held(outcome.model), rounded(outcome.model.value)
        assert set(nodes) == set(ran.placement.sources)
        assert set(network.ranges) == set(ran.placement.sources.values())
        for name, source in ran.placement.sources.items():
            each = network.ranges[source]
            scale, zero = arrays[nodes[name].input[1]], arrays[nodes[name].input[2]]
            shift = 128 if zero.dtype == np.int8 else 0
            assert (float(scale), int(zero) + shift) == each.step()
            low, high = outcome.statistics["ranges"][name]
            assert high - low == pytest.approx(255 * each.step()[0])

    def test_its_weights_are_the_trained_integers(self, ran: Ran) -> None:
        outcome, network = ran.outcome, ran.network
        arrays = held(outcome.model)
        for name, layer in network.layers.items():
            assert layer.settled is not None
            integers, scale, _ = layer.settled
            stored = arrays[f"{name}/weight_quantized"]
            if stored.ndim > 2:
                # Channels may have been added that only fill up what a kernel takes at a time.
                assert not stored[:, integers.shape[1] :].any()
                stored = stored[:, : integers.shape[1]]
            assert stored.dtype == np.int8
            assert np.abs(stored).max() == layer.step.largest
            # A dense layer's weight may lie the other way round.
            turned = stored.shape != integers.shape or not np.array_equal(stored, integers)
            np.testing.assert_array_equal(stored.T if turned else stored, integers.numpy())
            np.testing.assert_array_equal(arrays[f"{name}/weight_scale"], scale.reshape(-1))

    def test_layers_run_in_integers_and_norms_are_gone(self, ran: Ran) -> None:
        outcome, network = ran.outcome, ran.network
        weighted = outcome.statistics["weighted"]
        assert set(weighted["integer"]) == set(network.layers)
        assert weighted["float"] == {}
        operators = {node.op_type for node in outcome.model.value.graph.node}
        assert "BatchNormalization" not in operators
        assert outcome.statistics["trained_layers"] == len(network.layers)
        assert outcome.statistics["training"]["loss"][1] < outcome.statistics["training"]["loss"][0]

    @pytest.mark.parametrize("batch", [1, 7])
    def test_it_is_kept_as_a_graph_with_a_dynamic_batch(
        self, ran: Ran, batch: int, tmp_path: Path
    ) -> None:
        made = ran.outcome.model
        assert made.form == "graph"
        assert made.inputs[0].shape == ("batch", 1, 6, 6)
        forms.save(made, made, tmp_path)
        feeds = {"x": np.ones((batch, 1, 6, 6), np.float32)}
        read = forms.call(forms.load(tmp_path, lambda: made), feeds)["scores"]
        np.testing.assert_array_equal(read, forms.call(made, feeds)["scores"])


def test_signed_activations_are_signed() -> None:
    outcome = trained("mobile").outcome
    zeros = [n.input[2] for n in outcome.model.value.graph.node if n.op_type == "QuantizeLinear"]
    assert {held(outcome.model)[name].dtype.name for name in zeros} == {"int8"}


def test_a_branch_that_starts_at_zero_learns() -> None:
    outcome, network = trained("residual").outcome, trained("residual").network
    assert network.layers["last/Conv"].norm is not None
    assert held(outcome.model)["last/Conv/weight_scale"].max() > 1e-6


def test_what_cannot_be_followed_stays_in_float_and_says_so() -> None:
    outcome = apply("quantize_aware", model_of(Gated), DATA, **{**FAST, "epochs": 1})
    weighted = outcome.statistics["weighted"]
    assert list(weighted["integer"].values()) == ["QLinearConv", "QGemm"]
    assert any("no static int8 kernel for GRU" in why for why in weighted["float"].values())
    assert any("takes a constant, which training does not round" in n for n in outcome.notes)


def test_kept_nodes_stay_in_float() -> None:
    outcome = apply(
        "quantize_aware", model_of(Plain), DATA, **{**FAST, "epochs": 1}, keep=["scores/Gemm"]
    )
    assert outcome.statistics["weighted"]["float"] == {"scores/Gemm": "named in `keep`"}
    assert "left in float: scores/Gemm (named in `keep`)" in outcome.notes


class TestAccuracy:
    @pytest.fixture(scope="class")
    @classmethod
    def uneven(cls) -> Model:
        """A good network whose channels have very different sizes, which changes nothing in
        floats, and much where a weight has one scale for all of them."""
        given: dict[str, Any] = {"epochs": 6, "learning_rate": 5e-3, "validation": "0 %"}
        model = apply("finetune", model_of(Plain), DATA, **given).model
        net: Any = model.value
        sizes = 2.0 ** torch.linspace(-5, 5, 16)
        with torch.no_grad():
            net.norm.weight.mul_(sizes)
            net.norm.bias.mul_(sizes)
            net.second.weight.div_(sizes.reshape(1, -1, 1, 1))
        assert accuracy(model, DATA.evaluation) > 0.95
        return model

    @pytest.mark.parametrize("ranges", ["learned", "observed"])
    def test_training_wins_back_what_calibration_loses(self, uneven: Model, ranges: str) -> None:
        given: dict[str, Any] = {**EXACT, "per_channel": False}
        data = dataset(labels=False)
        split = DATA.calibration.named(["x"])
        after = nets.apply("quantize", lower(uneven, split), split, **given).model
        given |= {"ranges": ranges, "epochs": 6, "learning_rate": 3e-3, "validation": "0 %"}
        trained = apply("quantize_aware", uneven, data, **given)
        scores = [accuracy(each, DATA.evaluation) for each in (after, trained.model)]
        assert scores[0] < 0.9
        assert scores[1] > scores[0] + 0.05
        # It learned from the original alone.
        assert any("distilled from the teacher alone" in note for note in trained.notes)


class Branching(nn.Module):
    """What it does depends on what it sees."""

    def __init__(self) -> None:
        super().__init__()
        self.scores = nn.Linear(36, CLASSES)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if x.sum() > 0:
            x = -x
        made: torch.Tensor = self.scores(x.flatten(1))
        return made


class Bare(nn.Module):
    """Nothing to quantise."""

    def __init__(self) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.ones(3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.mean((1, 2))[:, :CLASSES] * self.gain


class TestRefusals:
    def test_labels_that_are_needed(self) -> None:
        with pytest.raises(InputError, match="train split has no targets; set distil: true") as e:
            apply("quantize_aware", model_of(Plain), dataset(labels=False), distil=False)
        assert e.value.where == "quantize_aware: data: train"

    def test_a_loss_that_is_not_finite(self) -> None:
        broken = model_of(Plain)
        broken.value.scores.weight.data.fill_(float("inf"))
        with pytest.raises(LeptonError, match="training: the loss became nan in epoch 1"):
            apply("quantize_aware", model_of(Plain), DATA, original=broken, **FAST)

    def test_a_model_that_cannot_be_traced(self) -> None:
        with pytest.raises(InputError, match=r"torch\.export cannot trace the model") as caught:
            apply("quantize_aware", model_of(Branching), DATA)
        assert caught.value.where == "quantize_aware"
        assert "\n" not in str(caught.value)

    def test_a_node_that_is_not_there(self) -> None:
        with pytest.raises(InputError, match=r"no node 'third'"):
            apply("quantize_aware", model_of(Plain), DATA, keep=["third"])

    def test_a_teacher_of_another_form(self) -> None:
        model = model_of(Plain)
        with pytest.raises(InputError, match="the teacher is not a torch module"):
            apply("quantize_aware", model, DATA, original=model.replace(form="program"))

    def test_nothing_to_train(self) -> None:
        outcome = apply("quantize_aware", model_of(Bare), DATA)
        assert not outcome.changed
        assert "none of Conv, Gemm, MatMul" in outcome.notes[0]


def test_numbers_other_than_the_trained_ones_are_found() -> None:
    ran = trained("residual")
    steps = {name: each.step() for name, each in ran.network.ranges.items()}
    graph = onnx.ModelProto()
    graph.CopyFrom(ran.outcome.model.value)
    trained_graph.check(graph, ran.placement, steps, [], 0)
    name = rounded(graph)["x"].input[1]
    scale = next(each for each in graph.graph.initializer if each.name == name)
    scale.CopyFrom(numpy_helper.from_array(np.float32(1.001) * numpy_helper.to_array(scale), name))
    with pytest.raises(PluginError, match="the graph holds another range of x"):
        trained_graph.check(graph, ran.placement, steps, [], 0)
    del graph.graph.node[:]
    with pytest.raises(PluginError, match="rounds other values than training did"):
        trained_graph.check(graph, ran.placement, steps, [], 0)


def test_the_artifact_is_valid_onnx() -> None:
    onnx.checker.check_model(trained("residual").outcome.model.value, full_check=True)
