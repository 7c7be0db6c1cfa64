"""The parameters of `quantize`, and what is decided from the processor."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from lepton_compress.compress import processor
from lepton_compress.compress.quantize import Quantize
from lepton_compress.registry import get

VNNI = {"machine": "x86_64", "extensions": ["avx2", "avx512f", "avx512_vnni"]}
AVX2 = {"machine": "AMD64", "extensions": ["avx2"]}
UNKNOWN = {"machine": "x86_64", "extensions": []}
ARM = {"machine": "aarch64", "extensions": ["asimddp"]}


class TestParameters:
    @pytest.mark.parametrize(
        "given",
        [
            {"activations": "uint4"},
            {"weight_bits": 6},
            {"saturating": "maybe"},
            {"saturation_samples": 0},
            {"samples": 0},
            {"symmetrical": True},
            {"activations": "uint16", "calibration": "entropy"},
            {"activations": "uint16", "calibration": "mse"},
        ],
    )
    def test_what_makes_no_sense_is_refused(self, given: dict[str, Any]) -> None:
        with pytest.raises(ValidationError):
            Quantize(**given)

    def test_the_reason_for_sixteen_bits_names_the_way_out(self) -> None:
        with pytest.raises(ValidationError, match="use minmax or percentile"):
            Quantize(activations="uint16", calibration="mse")

    @pytest.mark.parametrize("saturating", ["auto", True, False])
    def test_saturating_reads_words_and_truths(self, saturating: Any) -> None:
        assert Quantize(saturating=saturating).saturating == saturating

    @pytest.mark.parametrize("step", ["quantize", "quantize_dynamic", "float16"])
    def test_steps_are_registered_for_graphs(self, step: str) -> None:
        plugin = get("step", step)
        assert plugin.form == "graph"
        assert plugin.params() == plugin.params.model_validate({})
        assert plugin.summary.endswith((".", ";"))


class TestProcessor:
    @pytest.mark.parametrize(("cpu", "wanted"), [(VNNI, "uint8"), (AVX2, "uint8"), (ARM, "int8")])
    def test_activations(self, cpu: dict[str, Any], wanted: str) -> None:
        made = processor.activations("auto", cpu)
        assert made.value == wanted
        assert "fastest" in made.why
        assert processor.activations("uint16", cpu).told() == {
            "value": "uint16",
            "why": "asked for",
        }

    @pytest.mark.parametrize(
        ("cpu", "wanted", "why"),
        [
            (VNNI, False, "avx512_vnni adds products in 32 bits"),
            (AVX2, True, "without VNNI"),
            (UNKNOWN, True, "not known"),
            (ARM, False, "aarch64 adds products in 32 bits"),
        ],
    )
    def test_saturation(self, cpu: dict[str, Any], wanted: bool, why: str) -> None:
        made = processor.saturates("auto", cpu)
        assert made.value is wanted
        assert why in made.why
        assert processor.saturates(not wanted, cpu).value is not wanted

    def test_bits(self) -> None:
        assert processor.weight_bits("auto", saturating=True).value == 7
        assert processor.weight_bits("auto", saturating=False).value == 8
        assert processor.weight_bits(8, saturating=True).value == 8
