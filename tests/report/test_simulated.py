"""Reports say of a device that is simulated what its tool told, and that nothing was measured."""

from __future__ import annotations

import io
from dataclasses import replace
from typing import Any

import pytest
from rich.console import Console

from lepton_compress.artifacts import Choice, Fallback, Fit, RunResult
from lepton_compress.report import sections, simulated, terminal
from lepton_compress.report.html import html
from lepton_compress.report.markdown import markdown
from tests.report.results import profile, result

LEFT = tuple(Fallback("FLOOR", f"layer.{number}", "why <b>", "mend | it") for number in range(25))
WHOLE = Fit("tool 1.2", {"clock_hz": 5e8}, 1e-3, 52_000, 79_500, 30, figures={"note": "two apart"})
BARE: dict[str, Any] = {
    "provenance": "simulated", "runtime": "ethos-u", "rounds": 0, "samples": 0, "noise": None,
    "noise_interval": None, "cold_start": None, "peak_memory": None, "throughput": None,
    "throughput_interval": None, "loads": (), "callers": (), "operators": (), "tuning": None,
}  # fmt: skip


@pytest.fixture
def held() -> RunResult:
    """The original does not fit; of the variant most runs on the device."""
    failed = Fit("tool 1.2", {"clock_hz": 5e8}, operators=30, fallbacks=LEFT, problem="no way")
    base = profile(
        "baseline", "npu", None, status="failed", reason="no way", fit=failed,
        latency={}, interval={}, **BARE,
    )  # fmt: skip
    fits = replace(WHOLE, fallbacks=LEFT[:22])
    times: dict[str, Any] = {"latency": {"p50": 1e-3}, "interval": {"p50": (1e-3, 1e-3)}}
    int8 = profile("int8", "npu", None, fit=fits, **times, **BARE)
    return result(("npu",), profiles=(base, int8))


def test_a_measured_target_is_none() -> None:
    assert simulated.about(result(), "edge") == ""
    assert list(simulated.rows(result(), "edge")) == []
    assert list(sections.devices(result())) == []
    assert "imulated" not in markdown(result())


def test_figures_and_what_is_not_told(held: RunResult) -> None:
    base, int8 = simulated.rows(held, "npu")
    assert (base.ram, base.flash, base.time, base.reason) == ("not told",) * 3 + ("no way",)
    assert (int8.ram, int8.flash, int8.time) == ("52.0 KB", "79.5 KB", "1.00 ms")
    assert (int8.coverage, int8.reason) == ("8 of 30 (26.67 %)", "yes; two apart")
    assert (base.fits, int8.fits) == (False, True)


def test_fallbacks_are_cut_and_counted(held: RunResult) -> None:
    rows = list(simulated.fallbacks(held, "npu"))
    base = [row for row in rows if row[0] == "baseline"]
    int8 = [row for row in rows if row[0] == "int8"]
    assert len(base) == simulated.FEW_FALLBACKS + 1
    assert base[-1][1] == "22 more"
    assert len(int8) == simulated.MOST_FALLBACKS + 1
    assert int8[0] == ("int8", "FLOOR", "layer.0", "why <b>", "mend | it")
    assert int8[-1][1] == "2 more"


def test_markdown(held: RunResult) -> None:
    text = markdown(held)
    assert "Simulated by tool 1.2, nothing was measured (clock_hz 500,000,000)." in text
    assert "1.00 ms (simulated)" in text
    assert "| int8 | 52.0 KB | 79.5 KB | 8 of 30 (26.67 %) | 1.00 ms | yes; two apart |" in text
    assert "| int8 | FLOOR | layer.0 | why <b> | mend \\| it |" in text
    assert "rounds" not in text


def test_html_escapes_what_a_compiler_said(held: RunResult) -> None:
    page = html([held])
    assert "Simulated devices" in page
    assert "why &lt;b&gt;" in page
    assert "why <b>" not in page


@pytest.mark.parametrize("width", [200, 60])
def test_no_time_loses_its_mark(held: RunResult, width: int) -> None:
    file = io.StringIO()
    terminal.show(held, Console(width=width, file=file, soft_wrap=True))
    text = file.getvalue()
    assert "1.00 ms (simulated)" in text
    assert "int8: FLOOR at layer.0 stays on the host: why <b>; mend | it" in text
    assert "baseline: FLOOR" not in text  # why it does not fit has been told


def test_two_targets_beside_each_other(held: RunResult) -> None:
    both = result(("edge", "npu"))
    profiles = [each for each in both.profiles if each.target == "edge"]
    made = replace(both, profiles=(*profiles, *held.profiles))
    assert [each.target for each in made.chosen] == ["edge", "npu"]
    assert isinstance(made.chosen[0], Choice)
    text = markdown(made)
    assert "The baseline against itself" in text
    assert "Simulated by tool 1.2" in text
