"""What results say of artifacts at a site, and what they do not say."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from lepton_compress.artifacts import Fit, Parity, RunResult
from lepton_compress.errors import InputError
from lepton_compress.place import evidence
from lepton_compress.place.fleet import Site
from tests.place.fleets import profile, result


def site(**changes: Any) -> Site:
    return Site.model_validate({"name": "here", "kind": "edge", "target": "device", **changes})


@pytest.fixture
def one(tmp_path: Path) -> RunResult:
    return result(tmp_path)


def only(one: RunResult, **changes: Any) -> RunResult:
    """With a single profile, of the small model."""
    return replace(one, profiles=(profile("small", "device", 0.01, **changes),))


def test_times_are_those_of_the_profile(one: RunResult) -> None:
    found, left_out = evidence.gather([one], site(), None)
    assert left_out == []
    assert [each.variant.name for each in found] == ["images:baseline", "images:small"]
    small = found[1]
    assert small.service.quantile(0.5) == pytest.approx(0.01, rel=0.01)
    assert small.variant.provenance == "measured"
    answers = small.answers()
    assert answers is not None
    assert answers[0].shape == (600, 5)


def test_an_estimate_is_slower_and_marked(one: RunResult) -> None:
    asked = site(target="phone", estimate_from={"target": "device", "factor": "3x"})
    found, _ = evidence.gather([one], asked, None)
    assert found[1].service.quantile(0.5) == pytest.approx(0.03, rel=0.01)
    assert {each.variant.provenance for each in found} == {"estimated"}


def test_what_was_measured_is_not_estimated(one: RunResult) -> None:
    asked = site(estimate_from={"target": "server", "factor": "3x"})
    found, _ = evidence.gather([one], asked, None)
    assert {each.variant.provenance for each in found} == {"measured"}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"ram": "5 MB"}, "takes 10.0 MB of ram, here has 5.00 MB"),
        ({"flash": "50 KB"}, "takes 100 KB of flash, here has 50.0 KB"),
        ({"ram": "10 MB", "flash": "100 KB"}, ""),
    ],
)
def test_memory_is_held_to_the_limits(one: RunResult, changes: Any, said: str) -> None:
    found, _ = evidence.gather([one], site(**changes), None)
    assert found[1].problem == said


def test_memory_that_was_not_measured_does_not_fit(one: RunResult) -> None:
    found, _ = evidence.gather([only(one, peak_memory=None)], site(ram="1 GB"), None)
    assert found[0].problem == "what it takes of ram was not measured"


def test_a_simulated_device_tells_its_own_memory_and_time(one: RunResult) -> None:
    fit = Fit("tool 1", seconds=0.002, ram=30_000, flash=90_000)
    held = only(
        one, fit=fit, provenance="simulated", quantiles=(), latency={"p50": 0.002}, throughput=None
    )
    found, _ = evidence.gather([held], site(ram="20 KB"), None)
    assert found[0].service.quantile(0.99) == 0.002
    assert found[0].problem == "takes 30.0 KB of ram, here has 20.0 KB"
    assert found[0].variant.provenance == "simulated"


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"batch": 8}, "was measured with batches of 8"),
        ({"status": "failed", "reason": "it crashed"}, "it crashed"),
    ],
)
def test_what_cannot_be_used_is_left_out_with_the_reason(
    one: RunResult, changes: Any, said: str
) -> None:
    found, left_out = evidence.gather([only(one, **changes)], site(), None)
    assert found == []
    assert said in left_out[0]


def test_workers_need_callers(one: RunResult) -> None:
    asked = {"name": "c", "kind": "cloud", "target": "server", "price": "0/h"}
    two = Site.model_validate({**asked, "workers": 2})
    found, _ = evidence.gather([one], two, None)
    # Two callers had 1.6 times the samples of one: each call took 1.25 times as long.
    assert found[1].service.mean == pytest.approx(2e-3 * 1.25, rel=0.02)
    three = Site.model_validate({**asked, "workers": 3})
    found, left_out = evidence.gather([one], three, None)
    assert found == []
    assert "add `measure: {callers: [3]}` to its recipe" in left_out[0]


def test_an_artifact_that_computes_something_else_is_no_option(one: RunResult) -> None:
    broken = Parity("small", "onnx", "graph", "m", 1.0, 1e-4, 1, 1)
    found, _ = evidence.gather([replace(one, parities=(broken,))], site(), None)
    assert [each.variant.candidate for each in found] == ["baseline"]


def test_scores_that_were_changed_are_refused(one: RunResult, tmp_path: Path) -> None:
    found, _ = evidence.gather([one], site(), None)
    (tmp_path / "answers" / "small.npz").write_bytes(b"other")
    with pytest.raises(InputError, match="is another file than the run wrote"):
        found[1].answers()
    (tmp_path / "answers" / "small.npz").unlink()
    with pytest.raises(InputError, match="is missing"):
        found[1].answers()


def test_why_two_artifacts_make_no_cascade(one: RunResult, tmp_path: Path) -> None:
    low, high = evidence.gather([one], site(), None)[0][::-1]
    assert evidence.pairable(low, high) == ""
    bare = replace(one, answers=())
    low = evidence.gather([bare], site(), None)[0][1]
    assert "keeps no class scores for each sample; run its recipe again" in evidence.pairable(
        low, high
    )
    assert low.answers() is None
    other = evidence.gather([replace(one, data_fingerprint="c" * 64)], site(), None)[0][1]
    assert "were evaluated on other data" in evidence.pairable(other, high)
    without = tuple(replace(score, outcomes=None) for score in one.scores)
    low = evidence.gather([replace(one, scores=without)], site(), None)[0][1]
    assert "has no outcome for each sample" in evidence.pairable(low, high)
