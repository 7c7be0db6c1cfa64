"""Profiles of devices that are simulated: limits hold, and no figure is made up."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lepton_compress import registry
from lepton_compress.artifacts import Fallback, Fit, Profile
from lepton_compress.catalogue import Limits
from lepton_compress.errors import InputError, MissingExtraError, PluginError
from lepton_compress.profile.lanes import Subject
from lepton_compress.profile.simulate import exceeded, simulate
from lepton_compress.recipe import TargetSpec, from_target
from lepton_compress.registry import Plugin
from lepton_compress.report.silent import Silent

FITS = {
    "baseline": Fit("tool 1", seconds=2e-3, ram=1000, flash=4000, operators=5),
    "int8": Fit("tool 1", seconds=5e-4, ram=300, flash=1000, operators=5),
}

U55 = {"accelerator": "ethos-u55-128"}


def run(
    monkeypatch: pytest.MonkeyPatch, fits: dict[str, Any], target: TargetSpec | None = None
) -> list[Profile]:
    """Simulate with answers that are known; the plug-in and its parameters are the real ones."""
    real = registry.get("runtime", "ethos-u")

    def answer(path: Path, params: Any) -> Any:
        assert isinstance(params, real.params)
        made = fits[path.stem]
        if isinstance(made, Exception):
            raise made
        return made

    plugin = Plugin(**{**vars(real), "function": answer})
    get = registry.get
    monkeypatch.setattr(
        registry, "get", lambda *asked: plugin if asked == ("runtime", "ethos-u") else get(*asked)
    )
    subjects = [Subject(name, "litert", Path(f"{name}.tflite")) for name in fits]
    where = target or from_target({"runtime": "ethos-u", "name": "npu", "options": U55})
    return simulate(subjects, baseline="baseline", target=where, observer=Silent())


def test_what_is_told_is_kept_and_marked(monkeypatch: pytest.MonkeyPatch) -> None:
    base, int8 = run(monkeypatch, FITS)
    assert int8.provenance == "simulated"
    assert (int8.status, int8.target, int8.runtime) == ("measured", "npu", "ethos-u")
    assert int8.latency == {"p50": 5e-4}
    assert int8.interval == {"p50": (5e-4, 5e-4)}
    assert (int8.ratio, int8.ratio_interval) == (0.25, (0.25, 0.25))
    assert base.ratio == 1.0
    assert int8.fit == FITS["int8"]
    assert (int8.rounds, int8.samples, int8.noise, int8.peak_memory) == (0, 0, None, None)


def test_a_problem_is_the_reason_and_never_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    bad = Fit("tool 1", seconds=0.0, operators=3, problem="nothing of it runs on the NPU")
    base, int8 = run(monkeypatch, {"baseline": bad, "int8": FITS["int8"]})
    assert (base.status, base.reason) == ("failed", "nothing of it runs on the NPU")
    assert base.latency == {}
    assert int8.latency == {"p50": 5e-4}
    assert int8.ratio is None


def test_an_unknown_time_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    left = Fit("tool 1", ram=3, operators=3, fallbacks=(Fallback("FLOOR", "a"),))
    _, int8 = run(monkeypatch, {"baseline": FITS["baseline"], "int8": left})
    assert (int8.status, int8.latency, int8.ratio) == ("measured", {}, None)


def test_a_limit_of_the_target_fails_with_the_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    limits = {"ram": "500 B", "flash": "3000 B"}
    target = from_target({"runtime": "ethos-u", "name": "npu", "limits": limits, "options": U55})
    base, int8 = run(monkeypatch, FITS, target)
    assert base.status == "failed"
    assert base.reason == (
        "takes 1,000 bytes of RAM, the device has 500 (1.00 KB of 500 B) and "
        "takes 4,000 bytes of flash, the device has 3,000 (4.00 KB of 3.00 KB)"
    )
    assert base.fit is not None
    assert int8.status == "measured"
    assert int8.ratio is None  # the baseline does not fit, so that its time means nothing


sizes = st.none() | st.integers(1, 2**40)


@given(sizes, sizes, sizes, sizes)
def test_only_what_is_known_to_be_within_fits(
    ram: int | None, flash: int | None, most_ram: int | None, most_flash: int | None
) -> None:
    said = exceeded(
        Fit("t", ram=ram, flash=flash), Limits.model_construct(ram=most_ram, flash=most_flash)
    )
    within = [
        limit is None or (taken is not None and taken <= limit)
        for taken, limit in ((ram, most_ram), (flash, most_flash))
    ]
    assert (said == "") is all(within)
    assert ("RAM" in said) is not within[0]
    assert ("flash" in said) is not within[1]


def test_a_file_that_is_none_fails_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    wrong = InputError("is no LiteRT model", where="int8.tflite")
    base, int8 = run(monkeypatch, {"baseline": FITS["baseline"], "int8": wrong})
    assert base.status == "measured"
    assert (int8.status, int8.reason) == ("failed", "int8.tflite: is no LiteRT model")


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (MissingExtraError("needs Vela"), MissingExtraError),
        (ValueError("a defect"), PluginError),
        ({"seconds": 1}, PluginError),
    ],
)
def test_what_is_no_fault_of_the_artifact_ends_it(
    answer: Any, error: type[Exception], monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(error):
        run(monkeypatch, {"baseline": answer})
