"""Weights on disk against the float ones."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from lepton_compress.accounts import WeightAccount
from lepton_compress.explain import weights
from lepton_compress.explain.wiring import Wiring, title
from tests.explain import planting
from tests.explain.planting import Array, Weights

Digits = dict[str, tuple[Array, Array]]


def accounts(
    artifact: onnx.ModelProto, reference: onnx.ModelProto | None
) -> dict[str, WeightAccount | None]:
    wiring, plain = Wiring(artifact), Wiring(reference) if reference else None
    return {title(node): weights.account(wiring, node, plain) for node in wiring.computing()}


@pytest.mark.parametrize("per_channel", [True, False])
def test_noise_of_each_channel(trained: Weights, digits: Digits, per_channel: bool) -> None:
    graph = planting.cnn_graph(trained)
    feeds = {"image": digits["calibration"][0]}
    artifact = planting.quantised(graph, feeds, per_channel=per_channel)
    found = accounts(artifact, graph)
    first, dense = found["first/Conv"], found["dense/Gemm"]
    assert first is not None
    assert dense is not None
    assert (first.dtype, first.channels, dense.channels) == ("int8", 16, 10)
    assert first.per_channel is per_channel
    assert first.bytes == 16 * 9
    assert first.peak == 127
    assert first.sqnr_db is not None
    assert first.worst_channel_db is not None
    assert first.worst_channel_db <= first.sqnr_db
    assert found["pooled/MaxPool"] is None
    # Dequantised values stay within half a step of the float ones.
    held = trained["0.weight"]
    step = float(np.abs(held).max()) / 127
    assert first.range == pytest.approx((held.min(), held.max()), abs=step)


def test_without_a_reference_there_is_no_noise(trained: Weights, digits: Digits) -> None:
    graph = planting.cnn_graph(trained)
    artifact = planting.quantised(graph, {"image": digits["calibration"][0]})
    first = accounts(artifact, None)["first/Conv"]
    assert first is not None
    assert first.sqnr_db is None


def test_dead_by_the_float_weights(trained: Weights, digits: Digits) -> None:
    held = dict(trained)
    held["4.weight"] = held["4.weight"].copy()
    held["4.weight"][3] = 0
    held["4.weight"][4] *= 1e-3  # so small that one scale for all rounds it to zero
    graph = planting.cnn_graph(held)
    artifact = planting.quantised(graph, {"image": digits["calibration"][0]}, per_channel=False)
    point = accounts(artifact, graph)["point/Conv"]
    assert point is not None
    assert point.dead == 1
    assert point.poor_channels >= 1


def test_stored_by_element_type(trained: Weights, digits: Digits) -> None:
    graph = planting.cnn_graph(trained)
    artifact = planting.quantised(graph, {"image": digits["calibration"][0]})
    stored = weights.stored(Wiring(artifact))
    # Zero points are int8 too.
    assert stored["int8"].bytes >= sum(trained[f"{each}.weight"].size for each in (0, 2, 4, 8))
    assert stored["float32"].bytes < 2000
    assert weights.stored(Wiring(graph))["float32"].tensors == 8


class TestShared:
    def test_one_tensor_of_two_nodes(self) -> None:
        graph, tokens = planting.tied_graph()
        (found,) = weights.shared(Wiring(planting.quantised(graph, {"tokens": tokens})))
        assert found.tensor == "embedding.weight"
        assert set(found.users) == {"embedding/Gather", "output/MatMul"}
        assert found.bytes == 200 * 32 * 4

    def test_a_second_time_as_int8(self) -> None:
        graph, tokens = planting.tied_graph()
        # As a clean-up leaves it, which folds the transpose into a constant of its own.
        turned = next(node for node in graph.graph.node if node.op_type == "Transpose")
        graph.graph.node.remove(turned)
        held = Wiring(graph).array("embedding.weight").T.copy()
        graph.graph.initializer.append(numpy_helper.from_array(held, "turned"))
        (found,) = weights.shared(Wiring(planting.quantised(graph, {"tokens": tokens})))
        assert found.copy == "turned_quantized"
        assert set(found.users) == {"embedding/Gather", "output/MatMul"}

    def test_nothing_is_shared_in_a_plain_network(self, trained: Weights) -> None:
        assert weights.shared(Wiring(planting.cnn_graph(trained))) == ()
