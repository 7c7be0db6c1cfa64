"""Why a node does not run in int8."""

from __future__ import annotations

import pytest

from lepton_compress.accounts import Account
from lepton_compress.explain.reasons import is_integer
from tests.explain import planting
from tests.explain.conftest import Explainer
from tests.explain.planting import Array, Weights


@pytest.mark.parametrize(
    ("operator", "takes", "integer"),
    [
        ("QLinearConv", "uint8", True),
        ("MaxPool", "uint8", True),
        ("MaxPool", "float32", False),
        ("DynamicQuantizeMatMul", "float32", True),
        ("DequantizeLinear", "uint8", False),
        ("Conv", "float32", False),
    ],
)
def test_is_integer(operator: str, takes: str, integer: bool) -> None:
    assert is_integer(operator, takes) is integer


def why(account: Account) -> dict[str, str]:
    return {node.name: node.why_not for node in account.nodes}


def test_reasons(
    trained: Weights, digits: dict[str, tuple[Array, Array]], explained: Explainer
) -> None:
    graph = planting.cnn_graph(trained, middle="Elu")
    feeds = {"image": digits["calibration"][0]}
    whole = why(explained(planting.quantised(graph, feeds), graph, samples=8))
    assert whole["first/Conv"] == ""
    assert whole["deep_active/Elu"] == "there is no int8 kernel for Elu"
    part = [each for each in planting.OPERATORS if each != "Gemm"]
    artifact = planting.quantised(graph, feeds, operators=part)
    left = why(explained(artifact, graph, samples=8))
    assert left["dense/Gemm"] == "its weight is float in the file"
    plain = why(explained(graph, graph, samples=8))
    assert plain["first/Conv"] == "its weight is float in the file"
