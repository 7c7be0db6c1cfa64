"""A fault is planted in a trained model, and the first finding must be that fault."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnxruntime.quantization import QuantType, quantize_dynamic

from lepton_compress.accounts import Account, Finding
from lepton_compress.explain.diagnose import diagnose
from tests.explain import planting
from tests.explain.conftest import Explainer, describe
from tests.explain.planting import Array, Weights

Digits = Mapping[str, tuple[Array, Array]]


@pytest.fixture
def calibration(digits: Digits) -> Array:
    return digits["calibration"][0]


def named(account: Account, cause: str) -> Finding:
    """The first finding, which must be this cause."""
    found = diagnose(account)
    assert found, "no finding at all"
    assert found[0].cause == cause, describe(found)
    assert any(letter.isdigit() for letter in found[0].evidence)
    assert found[0].mend
    return found[0]


def accuracy_findings(account: Account) -> list[Finding]:
    return [each for each in diagnose(account) if each.about in ("accuracy", "portability")]


class TestHealthy:
    def test_nothing_is_wrong_with_the_accuracy(
        self, trained: Weights, calibration: Array, explained: Explainer
    ) -> None:
        graph = planting.cnn_graph(trained)
        artifact = planting.quantised(graph, {"image": calibration})
        account = explained(artifact, graph, calibration=calibration, calibration_samples=197)
        assert accuracy_findings(account) == [], describe(diagnose(account))
        assert account.output_db is not None
        assert account.output_db > 25

    def test_nor_on_colours_nor_without_a_reference(
        self, trained_on_colours: Weights, digits: Digits, explained: Explainer
    ) -> None:
        graph = planting.cnn_graph(trained_on_colours)
        had, has = (planting.coloured(digits[each][0]) for each in ("calibration", "evaluation"))
        artifact = planting.quantised(graph, {"image": had})
        account = explained(artifact, None, evaluation=has, calibration=had)
        assert accuracy_findings(account) == [], describe(diagnose(account))
        assert not account.exact

    def test_nor_with_seven_bits_where_sums_saturate(
        self, trained: Weights, calibration: Array, explained: Explainer
    ) -> None:
        graph = planting.cnn_graph(trained)
        artifact = planting.quantised(graph, {"image": calibration}, reduce_range=True)
        account = explained(artifact, graph, calibration=calibration, extensions=("avx2",))
        assert accuracy_findings(account) == [], describe(diagnose(account))


class TestData:
    @pytest.mark.parametrize(
        ("factor", "offset", "told"),
        [
            (16.0, 0.0, True),
            (0.25, 0.0, True),
            (2.0, -1.0, True),
            (3.2, -0.9, True),
            (16.0, 0.0, False),
            (0.25, 0.0, False),
        ],
    )
    def test_calibration_normalised_differently(
        self,
        trained: Weights,
        calibration: Array,
        explained: Explainer,
        factor: float,
        offset: float,
        told: bool,
    ) -> None:
        graph = planting.cnn_graph(trained)
        wrong = (calibration * factor + offset).astype(np.float32)
        artifact = planting.quantised(graph, {"image": wrong})
        account = explained(artifact, graph, calibration=wrong if told else None)
        found = named(account, "calibration_normalised_differently")
        if told:
            (said,) = re.findall(r"calibration = (\S+) x", found.evidence)
            assert float(said) == pytest.approx(factor, rel=0.05)

    @pytest.mark.parametrize("order", [(2, 1, 0), (1, 2, 0)])
    def test_channel_order(
        self,
        trained_on_colours: Weights,
        digits: Digits,
        explained: Explainer,
        order: tuple[int, ...],
    ) -> None:
        graph = planting.cnn_graph(trained_on_colours)
        had, has = (planting.coloured(digits[each][0]) for each in ("calibration", "evaluation"))
        wrong = np.ascontiguousarray(had[:, list(order)])
        artifact = planting.quantised(graph, {"image": wrong})
        account = explained(artifact, graph, evaluation=has, calibration=wrong)
        found = named(account, "channel_order")
        assert ("BGR" in found.title) == (order == (2, 1, 0))

    def test_too_few_calibration_samples(
        self, trained: Weights, calibration: Array, explained: Explainer
    ) -> None:
        graph = planting.cnn_graph(trained)
        few = calibration[:2]
        artifact = planting.quantised(graph, {"image": few})
        account = explained(artifact, graph, calibration=few, calibration_samples=2)
        found = named(account, "few_calibration_samples")
        assert "from 2 samples" in found.evidence


class TestRanges:
    @pytest.mark.parametrize("told", [True, False], ids=["with-calibration", "without"])
    @pytest.mark.parametrize("tensor", ["first_active", "point_active"])
    def test_clipped_range(
        self, trained: Weights, calibration: Array, explained: Explainer, told: bool, tensor: str
    ) -> None:
        graph = planting.cnn_graph(trained)

        def spoil(ranges: dict[str, planting.Range]) -> None:
            for name in planting.tied(graph, tensor):
                ranges[name] = (0.0, ranges[name][1] / 5)

        artifact = planting.quantised(graph, {"image": calibration}, spoil=spoil)
        account = explained(artifact, graph, calibration=calibration if told else None)
        found = named(account, "clipped_range")
        assert "where the range ends at" in found.evidence

    def test_outlier_channel(
        self, trained: Weights, calibration: Array, explained: Explainer
    ) -> None:
        held = dict(trained)
        # The same function: what one channel gains here, the depthwise filter behind it loses.
        held["0.weight"], held["0.bias"] = held["0.weight"].copy(), held["0.bias"].copy()
        held["2.weight"] = held["2.weight"].copy()
        live = int(np.abs(held["0.weight"]).sum(axis=(1, 2, 3)).argmax())
        held["0.weight"][live] *= 150
        held["0.bias"][live] *= 150
        held["2.weight"][live] /= 150
        graph = planting.cnn_graph(held)
        artifact = planting.quantised(graph, {"image": calibration})
        found = named(explained(artifact, graph, calibration=calibration), "outlier_channel")
        assert f"channel {live} of 16" in found.evidence
        assert "first_active" in found.title

    def test_dead_channel(self, trained: Weights, calibration: Array, explained: Explainer) -> None:
        held = dict(trained)
        held["4.weight"], held["4.bias"] = held["4.weight"].copy(), held["4.bias"].copy()
        held["4.weight"][5], held["4.bias"][5] = 0.0, 0.0
        graph = planting.cnn_graph(held)
        artifact = planting.quantised(graph, {"image": calibration})
        found = named(explained(artifact, graph, calibration=calibration), "dead_channel")
        assert "point/Conv" in found.title
        assert "1 of its 32" in found.evidence

    def test_dead_tensor(self, trained: Weights, calibration: Array, explained: Explainer) -> None:
        held = dict(trained)
        held["2.bias"] = held["2.bias"] - 1000
        graph = planting.cnn_graph(held)
        artifact = planting.quantised(graph, {"image": calibration})
        found = named(explained(artifact, graph, calibration=calibration), "dead_channel")
        assert "never varies" in found.title


class TestWeights:
    def test_per_tensor_depthwise_weights(
        self, trained: Weights, calibration: Array, explained: Explainer
    ) -> None:
        held = dict(trained)
        held["2.weight"], held["2.bias"] = held["2.weight"].copy(), held["2.bias"].copy()
        held["4.weight"] = held["4.weight"].copy()
        # The same function, with filters of very different magnitude.
        factors = np.geomspace(0.004, 1, 16).astype(np.float32)
        held["2.weight"] *= factors.reshape(-1, 1, 1, 1)
        held["2.bias"] *= factors
        held["4.weight"] /= factors.reshape(1, -1, 1, 1)
        graph = planting.cnn_graph(held)
        artifact = planting.quantised(graph, {"image": calibration}, per_channel=False)
        account = explained(artifact, graph, calibration=calibration)
        assert "depthwise" in named(account, "per_tensor_weights").title

    def test_saturating_target(
        self, trained: Weights, calibration: Array, explained: Explainer
    ) -> None:
        graph = planting.cnn_graph(trained)
        artifact = planting.quantised(graph, {"image": calibration})
        account = explained(artifact, graph, calibration=calibration, extensions=("avx2",))
        assert "16 bits" in named(account, "saturating_target").evidence

    def test_tied_weight_left_float(
        self, tied_text: tuple[onnx.ModelProto, Array], explained: Explainer
    ) -> None:
        graph, tokens = tied_text
        artifact = planting.quantised(graph, {"tokens": tokens})
        account = explained(artifact, graph, evaluation=tokens, name="tokens")
        found = named(account, "tied_weight_float")
        assert "embedding" in found.title


class TestOperators:
    def test_batch_norm_not_folded(
        self, trained: Weights, calibration: Array, explained: Explainer
    ) -> None:
        held, norm = unfolded(trained)
        graph = planting.cnn_graph(held, norm=norm)
        artifact = planting.quantised(graph, {"image": calibration})
        found = named(explained(artifact, graph, calibration=calibration), "norm_not_folded")
        assert "behind Conv" in found.evidence

    def test_unsupported_operator_splits_the_graph(
        self, trained: Weights, calibration: Array, explained: Explainer
    ) -> None:
        graph = planting.cnn_graph(trained, middle="Elu")
        artifact = planting.quantised(graph, {"image": calibration})
        found = named(explained(artifact, graph, calibration=calibration), "float_island")
        assert "Elu" in found.title
        assert "%" in found.evidence

    def test_signed_activations(
        self, trained: Weights, calibration: Array, explained: Explainer
    ) -> None:
        graph = planting.cnn_graph(trained)
        artifact = planting.quantised(graph, {"image": calibration}, activations="int8")
        named(explained(artifact, graph, calibration=calibration), "signed_activations")

    def test_dynamic_convolutions(
        self, trained: Weights, explained: Explainer, tmp_path: Path
    ) -> None:
        graph = planting.cnn_graph(trained)
        onnx.save(graph, tmp_path / "from.onnx")
        made = tmp_path / "dynamic.onnx"
        quantize_dynamic(tmp_path / "from.onnx", made, weight_type=QuantType.QUInt8)
        found = named(explained(onnx.load(made), graph), "dynamic_convolutions")
        assert found.evidence.startswith("3 run as ConvInteger")

    @pytest.mark.parametrize("kind", ["GRU", "LSTM"])
    def test_recurrent_layer_left_in_float(
        self, digits: Digits, explained: Explainer, kind: str
    ) -> None:
        rows = digits["calibration"][0].reshape(-1, 8, 8)
        graph = planting.recurrent_graph(*digits["train"], kind)
        artifact = planting.quantised(graph, {"rows": rows})
        evaluation = digits["evaluation"][0].reshape(-1, 8, 8)
        account = explained(artifact, graph, evaluation=evaluation, name="rows")
        found = named(account, "recurrent_in_float")
        assert kind in found.title

    def test_model_too_small(self, digits: Digits, explained: Explainer) -> None:
        rows = digits["calibration"][0].reshape(-1, 64)
        graph = planting.small_graph(*digits["train"])
        artifact = planting.quantised(graph, {"row": rows})
        evaluation = digits["evaluation"][0].reshape(-1, 64)
        account = explained(artifact, graph, evaluation=evaluation, name="row", calibration=rows)
        named(account, "overhead")

    def test_nothing_quantised(self, trained: Weights, explained: Explainer) -> None:
        graph = planting.cnn_graph(trained)
        named(explained(graph, graph), "nothing_quantised")


def unfolded(trained: Weights) -> tuple[Weights, Weights]:
    """The pointwise convolution and a batch normalisation that together compute what it did."""
    held = dict(trained)
    draw = np.random.default_rng(0)
    scale, mean = (draw.uniform(0.5, 2, 32).astype(np.float32) for _ in range(2))
    held["4.weight"] = held["4.weight"] / scale.reshape(-1, 1, 1, 1)
    norm = {"scale": scale, "bias": held["4.bias"], "mean": mean, "var": np.ones(32, np.float32)}
    held["4.bias"] = mean
    return held, {f"norm.{name}": array for name, array in norm.items()}


@pytest.fixture(scope="session")
def tied_text() -> tuple[onnx.ModelProto, Array]:
    """A next-token model whose embedding is its output layer too, and tokens."""
    return planting.tied_graph()
