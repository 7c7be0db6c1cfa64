"""The account: nodes, ranges, times and noise joined."""

from __future__ import annotations

import numpy as np
import pytest

from lepton_compress.accounts import FOLDED, INT8, Account
from lepton_compress.errors import InputError
from tests.explain import planting
from tests.explain.conftest import Explainer
from tests.explain.planting import Array, Weights

Digits = dict[str, tuple[Array, Array]]


@pytest.fixture
def account(trained: Weights, digits: Digits, explained: Explainer) -> Account:
    graph = planting.cnn_graph(trained)
    calibration = digits["calibration"][0]
    artifact = planting.quantised(graph, {"image": calibration})
    return explained(artifact, graph, calibration=calibration)


def test_every_node_of_the_file_once(account: Account) -> None:
    names = [node.name for node in account.nodes]
    assert names == [
        "first/Conv",
        "deep/Conv",
        "point/Conv",
        "pooled/MaxPool",
        "flat/Reshape",
        "dense/Gemm",
    ]
    assert {node.precision for node in account.nodes} == {INT8}
    assert "depthwise" in account.nodes[1].attributes


def test_time_adds_up(account: Account) -> None:
    assert sum(each.share for each in account.kernels) == pytest.approx(1)
    shares = [node.share for node in account.nodes if node.share is not None]
    assert 0 < sum(shares) <= 1
    assert account.kernels[0].seconds == max(each.seconds for each in account.kernels)


def test_ranges_and_noise(account: Account) -> None:
    conv = account.nodes[0]
    assert conv.activation is not None
    assert conv.activation.seen[1] == pytest.approx(conv.activation.range[1], rel=0.3)
    assert conv.activation.calibrated is not None
    assert conv.sqnr_db is not None
    assert account.output_db is not None
    assert account.arithmetic_db is not None
    assert account.arithmetic_db > account.output_db
    assert account.exact
    assert account.samples == 128


def test_levels_and_types(account: Account) -> None:
    assert set(account.levels) == {"basic", "extended", "all"}
    assert "DequantizeLinear" in account.levels["basic"]
    assert account.levels["extended"]["QLinearConv"] == 3
    assert account.stored["int8"].bytes > account.stored["float32"].bytes
    assert ("QLinearConv", "uint8") in {(each.operator, each.dtype) for each in account.kernels}


def test_fused_nodes_share_one_time(trained: Weights, explained: Explainer) -> None:
    graph = planting.cnn_graph(trained)
    account = explained(graph, graph, samples=8)
    relu = next(node for node in account.nodes if node.name == "first_active/Relu")
    assert relu.runs_as == "in first/Conv"
    assert relu.seconds is None
    assert FOLDED not in {node.precision for node in account.nodes}


def test_own_graph_where_the_reference_is_another(
    trained: Weights, digits: Digits, explained: Explainer
) -> None:
    graph = planting.cnn_graph(trained)
    artifact = planting.quantised(graph, {"image": digits["calibration"][0]})
    other = planting.small_graph(*digits["train"])
    account = explained(artifact, other, samples=16)
    assert not account.exact
    assert any("names other tensors" in note for note in account.notes)
    assert account.nodes[0].sqnr_db is not None
    assert all(node.weight is None or node.weight.sqnr_db is None for node in account.nodes)


def test_a_fixed_batch_is_kept(trained: Weights, digits: Digits, explained: Explainer) -> None:
    graph = planting.cnn_graph(trained)
    artifact = planting.quantised(graph, {"image": digits["calibration"][0]})
    for model in (graph, artifact):
        model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 5
        model.graph.output[0].type.tensor_type.shape.dim[0].dim_value = 5
    account = explained(artifact, graph, samples=12)
    assert account.samples == 10
    with pytest.raises(InputError, match="do not fill one batch of 5"):
        explained(artifact, graph, evaluation=digits["evaluation"][0][:3])


def test_data_of_another_shape_are_refused(
    trained: Weights, digits: Digits, explained: Explainer
) -> None:
    graph = planting.cnn_graph(trained)
    artifact = planting.quantised(graph, {"image": digits["calibration"][0]})
    with pytest.raises(InputError, match="does not accept the data"):
        explained(artifact, graph, evaluation=np.ones((4, 3, 8, 8), np.float32))
    with pytest.raises(InputError, match="does not accept the data"):
        explained(artifact, graph, evaluation=np.ones((4, 1, 8, 8), np.int64))
