"""Noise against the float reference, layer by layer."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from lepton_compress.accounts import RangeAccount
from lepton_compress.alignment import align_channels
from lepton_compress.artifacts import Split
from lepton_compress.explain import error
from lepton_compress.explain.wiring import Pair, Wiring
from tests.explain import planting
from tests.explain.planting import Array, Weights

Digits = dict[str, tuple[Array, Array]]
PAIR = Pair("x", "x_after", "uint8", scale=0.1, zero_point=0, lowest=0, highest=255)


@pytest.fixture
def graph(trained: Weights) -> onnx.ModelProto:
    return planting.cnn_graph(trained)


@pytest.fixture
def artifact(graph: onnx.ModelProto, digits: Digits) -> onnx.ModelProto:
    return planting.quantised(graph, {"image": digits["calibration"][0]})


def compared(
    artifact: onnx.ModelProto, reference: onnx.ModelProto, images: Array
) -> error.Compared:
    return error.compare(
        Wiring(artifact),
        Wiring(reference),
        lambda feeds: planting.run(artifact, feeds),
        Split({"image": images}),
        None,
        len(images),
    )


@pytest.mark.parametrize(
    ("signal", "noise", "db"), [(100.0, 1.0, 20.0), (1.0, 1.0, 0.0), (1.0, 0.0, 120.0)]
)
def test_decibels(signal: float, noise: float, db: float) -> None:
    assert error.decibels(signal, noise) == pytest.approx(db)


@pytest.mark.parametrize(("signal", "noise"), [(0.0, 1.0), (float("nan"), 1.0)])
def test_no_decibels_without_a_signal(signal: float, noise: float) -> None:
    assert error.decibels(signal, noise) is None


class TestRounding:
    def account(self, *batches: Array) -> RangeAccount:
        rounding = error.Rounding(PAIR)
        for batch in batches:
            rounding.add(batch.astype(np.float32))
        found = rounding.account(set())
        assert found is not None
        return found

    def test_exact_values_have_no_noise(self) -> None:
        found = self.account(np.array([[0.0, 2.5], [12.7, 25.5]]))
        assert found.sqnr_db is not None
        assert found.sqnr_db > 100
        assert found.beyond == 0
        assert found.seen == pytest.approx((0, 25.5))

    def test_values_beyond_are_counted_and_are_the_noise(self) -> None:
        found = self.account(np.array([[1.0, 51.0], [1.0, 1.0]]), np.array([[1.0, 1.0]]))
        assert found.beyond == pytest.approx(1 / 6)
        assert found.clipping == pytest.approx(1)
        assert found.overshoot == pytest.approx(2)

    def test_one_step_beyond_is_rounding(self) -> None:
        assert self.account(np.array([[25.55, -0.05]])).beyond == 0

    def test_spread_and_constant_channels(self) -> None:
        rows = np.stack([np.full(8, 2.0), np.linspace(0, 1, 8), np.linspace(0, 20, 8)], axis=1)
        found = self.account(rows)
        assert (found.channels, found.constant, found.largest_channel) == (3, 1, 2)
        assert found.spread == pytest.approx(10)

    def test_nothing_seen(self) -> None:
        assert error.Rounding(PAIR).account(set()) is None


def test_every_layer_is_compared(
    artifact: onnx.ModelProto, graph: onnx.ModelProto, digits: Digits
) -> None:
    images = digits["evaluation"][0][:50]
    found = compared(artifact, graph, images)
    assert found.samples == 50
    for tensor in ("image", "first_active", "point_active", "scores_QuantizeLinear_Input"):
        layer = found.layers[tensor]
        assert layer is not None
        assert 15 < layer < 70
    wanted = planting.run(graph, {"image": images})["scores"]
    given = planting.run(artifact, {"image": images})["scores"]
    direct = 10 * np.log10(np.square(wanted).sum() / np.square(wanted - given).sum())
    assert found.outputs == pytest.approx(float(direct), abs=0.01)
    assert found.changed == (wanted.argmax(1) != given.argmax(1)).mean()


def test_a_graph_against_itself_has_no_noise(graph: onnx.ModelProto, digits: Digits) -> None:
    found = compared(graph, graph, digits["evaluation"][0][:8])
    assert found.changed == 0
    assert found.outputs is not None
    assert found.outputs > 100


class TestWithoutPairs:
    def test_computes_as_the_float_graph_with_rounded_weights(
        self, artifact: onnx.ModelProto, graph: onnx.ModelProto, digits: Digits
    ) -> None:
        images = digits["evaluation"][0][:32]
        made = error.without_pairs(artifact)
        onnx.checker.check_model(made)
        assert not Wiring(made).pairs
        wanted = planting.run(graph, {"image": images})["scores"]
        given = planting.run(made, {"image": images})["scores"]
        # Nearer than the artifact, whose activations are rounded too.
        rounded = planting.run(artifact, {"image": images})["scores"]
        assert np.abs(wanted - given).max() < np.abs(wanted - rounded).max()

    def test_channels_that_fill_up_a_kernel_are_zeros(
        self, artifact: onnx.ModelProto, digits: Digits
    ) -> None:
        images = digits["evaluation"][0][:32]
        wide = onnx.ModelProto()
        wide.CopyFrom(artifact)
        assert align_channels(wide)
        made = error.without_pairs(wide)
        onnx.checker.check_model(made)
        assert not Wiring(made).pairs
        wanted, given = (
            planting.run(each, {"image": images})["scores"]
            for each in (error.without_pairs(artifact), made)
        )
        assert np.allclose(wanted, given, atol=1e-5)

    def test_a_relu_that_became_rounding_is_there_again(self, artifact: onnx.ModelProto) -> None:
        kinds = [node.op_type for node in error.without_pairs(artifact).graph.node]
        assert "Relu" in kinds

    def test_a_clip_at_six_is_there_again(self, graph: onnx.ModelProto, digits: Digits) -> None:
        def six(ranges: dict[str, planting.Range]) -> None:
            ranges["first_active"] = ranges["firsted"] = (0.0, 6.0)

        artifact = planting.quantised(graph, {"image": digits["calibration"][0]}, spoil=six)
        made = error.without_pairs(artifact)
        onnx.checker.check_model(made)
        assert [node.op_type for node in made.graph.node].count("Clip") == 1
