"""The layout for the integer kernels: the same outputs, on graphs of any width."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import helper

from lepton_compress import registry
from lepton_compress.alignment import align_channels
from lepton_compress.graph import value_specs
from lepton_compress.load.forms import call, duplicate
from lepton_compress.provenance import cpu, is_x86
from tests.compress.nets import apply
from tests.compress.test_layout import data, net


class TestAlignChannels:
    @given(channels=st.integers(1, 9))
    @settings(max_examples=9)
    def test_outputs_are_the_same_bit_for_bit(self, channels: int) -> None:
        split = data(channels)
        plain = apply("quantize", net(channels), split, activations="uint8", layout="keep").model
        wide = duplicate(plain)
        found = align_channels(wide.value)
        onnx.checker.check_model(wide.value, full_check=True)
        assert found == (["conv"] if channels % 4 else [])
        feeds = dict(split.inputs)
        assert np.array_equal(call(plain, feeds)["y"], call(wide, feeds)["y"])
        taken = next(n for n in wide.value.graph.node if n.name == "conv").input[0]
        assert value_specs(wide.value)[taken].shape[1] == -(-channels // 4) * 4

    def test_grouped_convolutions_and_float_graphs_are_left_alone(self) -> None:
        split = data(6)
        grouped = apply("quantize", net(6, groups=6), split, activations="uint8", layout="keep")
        assert align_channels(duplicate(grouped.model).value) == []
        assert align_channels(net(3).value) == []

    def test_a_shared_weight_is_left_alone(self) -> None:
        split = data(3)
        made = apply("quantize", net(3), split, activations="uint8", layout="keep").model.value
        weights = next(n for n in made.graph.node if n.name == "conv").input[1]
        made.graph.node.append(helper.make_node("Identity", [weights], ["other"], "other"))
        assert align_channels(made) == []

    def test_signed_activations_are_left_alone(self) -> None:
        made = apply("quantize", net(3), data(3), activations="int8", layout="keep").model.value
        assert align_channels(made) == []


class TestExport:
    @pytest.mark.parametrize("layout", ["auto", "keep"])
    def test_the_artifact_is_laid_out_and_the_graph_is_not(
        self, layout: str, tmp_path: Path
    ) -> None:
        model = apply("quantize", net(3), data(3), activations="uint8").model
        plugin = registry.get("exporter", "onnx")
        path = plugin.call(model, plugin.params.model_validate({"layout": layout}), tmp_path)
        kinds = {node.op_type for node in onnx.load(path).graph.node}
        assert ("Pad" in kinds) == (layout == "auto" and is_x86(cpu()))
        assert "Pad" not in {node.op_type for node in model.value.graph.node}
