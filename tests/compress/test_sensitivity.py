"""The search for the nodes that matter, by few evaluations."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from lepton_compress.artifacts import Model
from lepton_compress.compress import sensitivity, static_int8
from lepton_compress.compress.quantize import Quantize
from lepton_compress.load.forms import call
from tests.compress.nets import Silent, cnn, mlp, transformer


@given(
    noise=st.lists(st.floats(0, 1), min_size=2, max_size=40),
    worst=st.integers(0, 1000),
    evaluations=st.integers(4, 100),
)
def test_the_noisiest_comes_first(noise: list[float], worst: int, evaluations: int) -> None:
    noise[worst % len(noise)] = 100.0
    names = [str(place) for place in range(len(noise))]
    calls = 0

    def noise_of(block: Sequence[str]) -> float:
        nonlocal calls
        calls += 1
        return float(sum(noise[int(name)] for name in block))

    order = sensitivity.ranked(names, noise_of, evaluations)
    assert sorted(order) == sorted(names)
    assert calls <= evaluations + 1
    if evaluations >= 4 + 2 * int(np.ceil(np.log2(len(noise)))) + 2:
        assert order[0] == str(worst % len(noise))


class TestRoundings:
    def rounded(self) -> tuple[sensitivity.Roundings, dict[str, np.ndarray], Model]:
        model, split = cnn()
        params = Quantize(layout="keep", rounding="nearest")
        draft = static_int8.draft(model, split, params, threads=1, observer=Silent())
        assert isinstance(draft, static_int8.Draft)
        held = sensitivity.Roundings(draft.ready.model.value, draft.graph(params).value)
        return held, next(split.batches(16)), model

    def test_all_is_the_quantised_graph_and_none_the_float_one(self) -> None:
        held, feeds, model = self.rounded()
        names = held.names()
        assert {"x", "w1", "w2", "w3", "w4", "scores"} <= set(names)
        assert not {"b1", "b2", "b4"} & set(names)
        whole = call(model.replace(value=held.quantized), feeds)["scores"]
        given = call(model.replace(value=held.only(names)), feeds)["scores"]
        wanted = call(model, feeds)["scores"]
        # Biases are not rounded here, which moves a value by a step now and then.
        assert np.square(whole - given).sum() < np.square(whole - wanted).sum()
        none = call(model.replace(value=held.only([])), feeds)["scores"]
        assert np.array_equal(none, wanted)

    def test_noise_of_single_ones_adds_up(self) -> None:
        held, feeds, model = self.rounded()
        wanted = call(model, feeds)["scores"]

        def noise(names: Sequence[str]) -> float:
            given = call(model.replace(value=held.only(names)), feeds)["scores"]
            return float(np.square(given - wanted).sum())

        single = sum(noise([name]) for name in held.names())
        assert 0.4 < single / noise(held.names()) < 2.5

    def test_what_must_stay_float_for_a_tensor_to_do_so(self) -> None:
        held, _, _ = self.rounded()
        assert held.nodes_of("w2") == ["depthwise", "relu6"]
        assert held.nodes_of("r1") == ["conv1", "relu1", "depthwise", "relu6"]
        assert held.nodes_of("p") == ["pool", "flatten", "scores"]


class TestFamilies:
    def test_kinds_and_ends(self) -> None:
        model, _ = cnn()
        found = sensitivity.families(model.value)
        assert found["grouped convolutions"] == ["depthwise", "relu6", "grouped"]
        assert found["the first layer"] == ["conv1", "relu1"]
        assert found["the last layer"] == found["Gemm"] == ["scores"]

    def test_products_of_activations_stand_apart(self) -> None:
        model, _ = transformer(fused=False)
        found = sensitivity.families(model.value)
        products = set(found["products of activations"])
        assert products
        assert not products & set(found.get("MatMul", []))

    def test_no_family_leaves_only_float(self) -> None:
        model, _ = mlp()
        weighted = {"hidden", "scores"}
        assert all(
            not weighted <= set(nodes) for nodes in sensitivity.families(model.value).values()
        )
