"""TensorFlow Lite Micro's arena is read as it prints it; what it lacks or gets wrong is told."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lepton_compress import registry
from lepton_compress.errors import InputError, LeptonError, MissingExtraError
from lepton_compress.targets import micro, micro_program, tflite_micro
from lepton_compress.targets.flatbuffer import Operator
from lepton_compress.targets.tflite_micro import TfliteMicro

pytest.importorskip("tflite_micro", reason="the extra `microcontroller` is not installed")
pytest.importorskip("ai_edge_litert", reason="the extra `microcontroller` is not installed")
from tests import litert_models


def fit(path: Path, **options: Any) -> Any:
    return registry.get("runtime", "tflite-micro").call(path, TfliteMicro(**options))


def test_the_arena_and_the_file_are_told(tmp_path: Path) -> None:
    path = litert_models.network(tmp_path / "net.tflite")
    made = fit(path)
    assert made.problem == ""
    assert made.tool.startswith("tflite-micro 0.dev")
    assert made.flash == path.stat().st_size
    assert made.ram == made.figures["arena_head_bytes"] + made.figures["arena_tail_bytes"]
    # Input and output of the convolution lie in it at the same time.
    assert made.figures["arena_head_bytes"] >= 8 * 8 * 8 + 8 * 8 * 4
    assert made.figures["largest_difference_steps"] <= 1
    assert made.seconds is None
    assert (made.operators, made.fallbacks) == (5, ())


def test_a_wider_model_takes_a_larger_arena(tmp_path: Path) -> None:
    small = fit(litert_models.network(tmp_path / "small.tflite"))
    wide = fit(litert_models.network(tmp_path / "wide.tflite", channels=64))
    assert wide.ram > small.ram
    assert wide.flash > small.flash


def test_what_it_tells_is_enough_to_run(tmp_path: Path) -> None:
    path = litert_models.network(tmp_path / "net.tflite")
    # Its recording interpreter keeps accounts in the arena too; those are not counted.
    assert fit(path, arena=f"{fit(path).ram + 1024} B").problem == ""
    made = fit(path, arena="1 KiB")
    assert made.problem == "it needs more than the arena of 1.02 KB; raise `arena`"
    assert made.ram is None


@pytest.mark.parametrize("kind", ["SIGN", "GELU"])
def test_an_operator_that_is_missing_is_named_with_its_place(kind: str, tmp_path: Path) -> None:
    made = fit(litert_models.network(tmp_path / "net.tflite", odd=kind))
    place = f"net.{kind.lower()}"
    assert made.problem.startswith(
        f"TensorFlow Lite Micro has no operator {kind}, which stands at {place!r}; "
    )
    assert [(each.operator, each.name) for each in made.fallbacks] == [(kind, place)]
    assert made.ram is None


@pytest.mark.parametrize("kind", ["SIGN", "NEG"])
def test_the_place_has_the_name_of_the_user_s_model(kind: str, tmp_path: Path) -> None:
    path = litert_models.network(tmp_path / "net.tflite", odd=kind)
    litert_models.name_layers(path, **{kind: "head.odd/Op"})
    made = fit(path)
    assert "at 'head.odd/Op'" in made.problem
    assert [each.name for each in made.fallbacks] == ["head.odd/Op"]


@pytest.mark.parametrize("kind", ["EXP", "NEG"])
def test_an_operator_that_it_refuses_is_named_with_its_place(kind: str, tmp_path: Path) -> None:
    made = fit(litert_models.network(tmp_path / "net.tflite", odd=kind))
    assert made.problem.startswith(
        f"TensorFlow Lite Micro cannot run {kind} at 'net.{kind.lower()}': "
    )
    assert "quantise" not in made.problem  # the kernel asks for floats, this is no way out


def test_outputs_that_are_something_else_are_a_problem(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = litert_models.network(tmp_path / "net.tflite")
    broken = tmp_path / "micro_program.py"
    source = Path(micro_program.__file__).read_text()
    wrong = source.replace("micro.set_input(value, index)", "micro.set_input(~value, index)")
    assert wrong != source
    broken.write_text(wrong)
    monkeypatch.setattr(micro_program, "__file__", str(broken))
    made = fit(path)
    assert made.problem.startswith(
        "TensorFlow Lite Micro computes something else than LiteRT: 'probabilities' is up to "
    )


@pytest.mark.parametrize(
    ("steps", "levels", "bad", "noted"),
    [(0.5, 255, False, False), (3.0, 255, False, True), (16.0, 255, True, True)],
)
def test_how_far_apart_is_wrong(steps: float, levels: float, bad: bool, noted: bool) -> None:
    found: dict[str, Any] = {"steps": [0.0, steps], "levels": [255, levels], "outputs": ["a", "b"]}
    assert bool(micro.difference(found)) is bad
    assert bool(micro._note(found)) is noted


@pytest.mark.parametrize(
    ("made", "wanted", "steps"),
    [
        (np.array([1, 2], np.int8), np.array([1, 5], np.int8), 3.0),
        (np.array([0.0, 1.0]), np.array([0.0, 1.0]), 0.0),
        (np.array([0.0, 0.9]), np.array([0.0, 1.0]), 25.5),
        (np.array([np.nan, 1.0]), np.array([0.0, 1.0]), 255.0),
        (np.array([2.0]), np.array([1.0]), 255.0),
        (np.array([2.0, 1.0]), np.array([1.0]), 255.0),
    ],
)
def test_outputs_are_compared_in_steps(made: Any, wanted: Any, steps: float) -> None:
    assert micro_program.apart(made, wanted, wanted.dtype) == pytest.approx(steps)


def test_a_crash_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = litert_models.network(tmp_path / "net.tflite")
    crash = tmp_path / "crash.py"
    crash.write_text("import os, signal\nos.kill(os.getpid(), signal.SIGSEGV)\n")
    monkeypatch.setattr(micro_program, "__file__", str(crash))
    assert fit(path).problem == "TensorFlow Lite Micro crashed on it (signal 11)"


@given(st.tuples(*(st.integers(0, 2**40),) * 3), st.text())
def test_the_arena_is_found_between_whatever_else_is_printed(
    sizes: tuple[int, int, int], noise: str
) -> None:
    parts = dict(zip(("total", "head", "tail"), sizes, strict=True))
    lines = [f"[RecordingMicroAllocator] Arena allocation {k} {v} bytes" for k, v in parts.items()]
    assert micro.arena("\n".join(["before", *lines, noise.replace("Arena", "")])) == parts


def test_an_arena_that_is_not_told_is_no_zero() -> None:
    with pytest.raises(LeptonError, match="does not tell what it takes"):
        micro.arena("[RecordingMicroAllocator] Arena allocation total 12 bytes")


@given(st.text(), st.integers(-64, 255))
def test_any_output_ends_in_one_line(said: str, code: int) -> None:
    _, problem = micro.refusal(said, [Operator("ADD", "sum")], code, 1024)
    assert problem


def test_a_file_that_is_none_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.tflite").write_bytes(b"no model at all")
    with pytest.raises(InputError, match=r"is no LiteRT model; give a .tflite file"):
        fit(tmp_path / "x.tflite")


def test_without_the_extra_it_says_which(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = litert_models.network(tmp_path / "net.tflite")
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "ai_edge_litert.schema_py_generated", None)
        extra = r"pip install 'lepton-compress\[microcontroller\]'"
        with pytest.raises(MissingExtraError, match=extra):
            fit(path)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    (said,) = tflite_micro._requires(TfliteMicro(), ())
    assert said == (
        "tflite-micro needs tflite_micro and ai_edge_litert, which is not installed; "
        "pip install 'lepton-compress[microcontroller]'"
    )
