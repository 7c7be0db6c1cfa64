"""Vela's figures are read as it writes them, and what does not run on the accelerator is told."""

from __future__ import annotations

import configparser
import importlib.util
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from lepton_compress import registry
from lepton_compress.errors import LeptonError, MissingExtraError
from lepton_compress.findings import explain
from lepton_compress.targets import ethos_u, vela
from lepton_compress.targets.ethos_u import ACCELERATORS, MODES, SYSTEMS, EthosU

pytest.importorskip("ethosu.vela", reason="the extra `ethos-u` is not installed")
pytest.importorskip("ai_edge_litert", reason="ai-edge-litert writes the models of these tests")
from tests import litert_models

USUAL: dict[str, Any] = {"accelerator": "ethos-u55-128"}


def fit(path: Path, **options: Any) -> Any:
    return registry.get("runtime", "ethos-u").call(path, EthosU(**USUAL | options))


def test_an_integer_model_runs_on_the_accelerator(tmp_path: Path) -> None:
    made = fit(litert_models.network(tmp_path / "net.tflite"))
    assert made.problem == ""
    assert (made.operators, made.fallbacks) == (5, ())
    assert made.tool.startswith("ethos-u-vela 5.2")
    assert made.configuration["system_config"] == "Ethos_U55_High_End_Embedded"
    assert made.configuration["clock_hz"] == 500e6
    # Cycles over the clock is the time; the feature maps are the memory.
    assert made.seconds == made.figures["cycles_total"] / 500e6 > 0
    assert made.ram >= 8 * 8 * 8 + 8 * 8 * 4
    assert made.flash == made.figures["off_chip_flash_used_bytes"] > 0
    assert {each.place for each in made.layers} == {"npu"}
    macs = {each.name: each.figures["macs"] for each in made.layers}
    assert macs["net.conv"] == 0 or sum(macs.values()) > 0
    conv = next(each for each in made.layers if each.operator == "Conv2D")
    assert conv.figures["macs"] == 8 * 8 * 8 * 9 * 4


def test_a_wider_model_takes_more_of_everything(tmp_path: Path) -> None:
    small = fit(litert_models.network(tmp_path / "small.tflite"))
    wide = fit(litert_models.network(tmp_path / "wide.tflite", channels=256))
    assert wide.seconds > small.seconds
    assert wide.ram > small.ram
    assert wide.flash > small.flash


def test_a_larger_accelerator_is_faster(tmp_path: Path) -> None:
    path = litert_models.network(tmp_path / "wide.tflite", channels=256)
    config = {"system_config": "Ethos_U55_High_End_Embedded"}
    seconds = [fit(path, accelerator=f"ethos-u55-{macs}", **config).seconds for macs in (32, 256)]
    assert seconds[0] > seconds[1]


def test_an_operator_that_stays_on_the_host_is_named(tmp_path: Path) -> None:
    made = fit(litert_models.network(tmp_path / "net.tflite", odd="FLOOR"))
    assert made.problem == ""
    (one,) = made.fallbacks
    assert (one.operator, one.name, one.reason) == ("FLOOR", "net.floor", "Unsupported opType")
    assert one.remedy.startswith("move it out of the model")
    assert made.operators == 6
    # Vela counts nothing for it, so that its sum is no time of a call.
    assert made.seconds is None
    assert made.figures["npu_seconds"] > 0


def test_places_have_the_names_of_the_user_s_model(tmp_path: Path) -> None:
    path = litert_models.network(tmp_path / "net.tflite", odd="FLOOR")
    litert_models.name_layers(path, FLOOR="steps/Floor", CONV_2D="stem.conv/Conv")
    made = fit(path)
    assert [each.name for each in made.fallbacks] == ["steps/Floor"]
    assert "stem.conv/Conv" in [each.name for each in made.layers]
    assert "net.conv" not in [each.name for each in made.layers]


def test_conversions_at_the_edges_do_not_hide_the_time(tmp_path: Path) -> None:
    made = fit(litert_models.network(tmp_path / "net.tflite", float_edges=True))
    assert {each.operator for each in made.fallbacks} <= {"QUANTIZE", "DEQUANTIZE"}
    assert made.fallbacks
    assert all("borders: int8" in each.remedy for each in made.fallbacks)
    assert made.seconds > 0


def test_a_float_model_does_not_fit(tmp_path: Path) -> None:
    made = fit(litert_models.float_network(tmp_path / "float.tflite"))
    assert made.problem.startswith("nothing of it runs on the NPU (FULLY_CONNECTED at 'scores'")
    assert "quantise it" in made.problem
    assert made.seconds is None
    assert len(made.fallbacks) == made.operators == 1


def test_integer_weights_alone_do_not_fit(tmp_path: Path) -> None:
    made = fit(litert_models.float_network(tmp_path / "hybrid.tflite", integer_weights=True))
    assert made.problem.startswith("nothing of it runs on the NPU")


def test_weights_in_dram_have_no_flash(tmp_path: Path) -> None:
    made = fit(litert_models.network(tmp_path / "net.tflite"), accelerator="ethos-u85-512")
    assert made.flash is None
    assert made.figures["dram_used_bytes"] > 0
    assert made.seconds > 0


@pytest.mark.parametrize("accelerator", ACCELERATORS)
def test_every_accelerator_compiles_by_default(accelerator: str, tmp_path: Path) -> None:
    made = fit(litert_models.network(tmp_path / "net.tflite"), accelerator=accelerator)
    assert made.problem == ""
    assert made.configuration["accelerator"] == accelerator


def test_options_reach_vela(tmp_path: Path) -> None:
    path = litert_models.network(tmp_path / "wide.tflite", channels=256)
    made = fit(path, optimise="Size", arena_cache_size=100_000)
    assert made.problem == ""
    assert made.configuration["arena_cache_size"] == 100_000
    assert made.configuration["optimise"] == "Size"


def test_a_model_that_vela_refuses_says_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(EthosU, "mode", "No_Such_Mode")
    made = fit(litert_models.network(tmp_path / "net.tflite"))
    assert made.problem.startswith("Vela cannot compile it: ")
    assert "No_Such_Mode" in made.problem


class TestConfigurations:
    def wrong(self, **options: Any) -> str:
        with pytest.raises(ValidationError) as caught:
            EthosU(**USUAL | options)
        (found,) = explain(caught.value, EthosU, USUAL | options)
        return f"{found.key[0]}: {found.problem}; {found.mend}"

    def test_one_of_another_family_is_refused(self) -> None:
        said = self.wrong(accelerator="ethos-u85-256", system_config="Ethos_U55_High_End_Embedded")
        assert said.startswith(
            "system_config: Ethos_U55_High_End_Embedded does not belong to ethos-u85-256; use "
            "Ethos_U85_SYS_Flash_Low or "
        )

    def test_writing_to_flash_is_refused(self) -> None:
        said = self.wrong(memory_mode="Dedicated_Sram")
        assert said.startswith("memory_mode: Dedicated_Sram writes to the memory beside the SRAM")

    @pytest.mark.parametrize(
        ("key", "value", "near"),
        [
            ("accelerator", "ethos-u55-129", "ethos-u55-128"),
            ("system_config", "Ethos_U55_Deep", "Ethos_U55_Deep_Embedded"),
            ("memory_mode", "Shared", "Shared_Sram"),
        ],
    )
    def test_unknown_ones_are_refused(self, key: str, value: str, near: str) -> None:
        assert self.wrong(**{key: value}) == f"{key}: unknown {value!r}; did you mean {near!r}?"

    def test_the_tables_are_vela_s_own(self) -> None:
        spec = importlib.util.find_spec("ethosu.vela")
        assert spec is not None
        assert spec.origin is not None
        held = configparser.ConfigParser()
        assert held.read(Path(spec.origin).parents[1] / "config_files" / "Arm" / "vela.ini")
        systems = {name.partition(".")[2] for name in held if name.startswith("System_Config.")}
        assert systems == set(SYSTEMS)
        for name, memory in SYSTEMS.items():
            beside = held[f"System_Config.{name}"]["axi1_port"]
            assert beside == {"DRAM": "Dram", "flash": "OffChipFlash"}[memory]
        modes = {name.partition(".")[2] for name in held if name.startswith("Memory_Mode.")}
        assert modes == set(MODES)

    def test_the_accelerators_are_vela_s_own(self) -> None:
        from ethosu.vela.architecture_features import Accelerator

        assert set(Accelerator.member_list()) == set(ACCELERATORS)


SUMMARY = {
    "core_clock": "5e8",
    "inference_time": "0.001",
    "nn_macs": "100",
    "total_original_weights": "10",
    "total_npu_encoded_weights": "12",
    "weights_storage_area": "Off-chip Flash",
    **{f"cycles_{each}": "7" for each in ("total", "npu")},
    **{f"cycles_{each}_access": "7" for each in vela._MEMORIES},
    **{f"{each}_total_bytes": "3" for each in vela._MEMORIES},
    **{f"{each}_memory_used": "2" for each in vela._MEMORIES},
    **{f"{each}_bandwidth": "1" for each in vela._MEMORIES},
}


@pytest.mark.parametrize("column", [name for name in SUMMARY if name.startswith("cycles")])
@pytest.mark.parametrize("value", [None, "", "fast"])
def test_a_figure_that_is_absent_is_told(column: str, value: str | None) -> None:
    row = {name: held for name, held in SUMMARY.items() if name != column}
    if value is not None:
        row[column] = value
    with pytest.raises(LeptonError, match=f"no number in the column '{column}'"):
        vela.figures(row)


@given(st.floats())
def test_every_figure_is_finite(value: float) -> None:
    made = vela.figures({**SUMMARY, "nn_macs": repr(value)})["macs"]
    assert made == (value if abs(value) < float("inf") else 0.0)


NAMES = st.text(
    st.characters(exclude_categories=("C", "Z"), exclude_characters="'"), min_size=1, max_size=30
)


@given(st.dictionaries(NAMES, NAMES, max_size=5))
def test_reasons_are_found_between_whatever_else_is_printed(reasons: dict[str, str]) -> None:
    said = "Vela says hello\n"
    for name, why in reasons.items():
        said += f"Warning (supported operators) operator: ADD, ofm: '{name}'\nReason: {why}\n\n#\n"
    assert vela.causes(said) == reasons


@given(st.text())
def test_any_output_is_read(said: str) -> None:
    assert isinstance(vela.causes(said), dict)


def test_an_empty_table_is_told(tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_text("a,b\n")
    with pytest.raises(LeptonError, match="empty"):
        vela.rows(tmp_path / "x.csv")


def test_without_the_extra_it_says_which(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = litert_models.network(tmp_path / "net.tflite")
    monkeypatch.setitem(__import__("sys").modules, "ethosu.vela.tflite.Model", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'lepton-compress\[ethos-u\]'"):
        fit(path)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    (said,) = ethos_u._requires(EthosU(**USUAL), ())
    assert said.endswith("is not installed; pip install 'lepton-compress[ethos-u]'")
