"""The road from recipe to verdict, in this process; `e2e` walks it as users do."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from lepton_compress import pipeline
from lepton_compress.artifacts import RunResult, Status
from lepton_compress.errors import OutputError, RecipeError
from lepton_compress.report.folder import read_result
from tests.bench import GRAPH, Bench

if TYPE_CHECKING:
    from tests.conftest import Install

NOISY = """
from lepton_compress.artifacts import StepOutcome
from lepton_compress.load import forms
from lepton_compress.registry import Params, plugin


@plugin("step", "chatty", Params, form="graph")
def chatty(model, params, context):
    '''Says something, and renames a node.'''
    context.observer.note("mind the gap")
    made = forms.duplicate(model)
    made.value.graph.node[0].name = "renamed"
    return StepOutcome(made, changed=True)
"""


MEASURING = """
from lepton_compress.artifacts import StepOutcome
from lepton_compress.load import forms
from lepton_compress.registry import Params, plugin


@plugin("step", "modest", Params, form="graph", measures=True)
def modest(model, params, context):
    '''Finds on each target that nothing is better.'''
    names = ", ".join(f"{each.name} {each.threads}x{each.batch}" for each in context.targets)
    known = "a metric" if context.metric else "no metric"
    why = f"nothing beats float on {names} by {known}"
    return StepOutcome(model, changed=False, declined=why)


@plugin("step", "poor", Params, form="graph")
def poor(model, params, context):
    '''Does what it can.'''
    made = forms.duplicate(model)
    made.value.graph.node[0].name = "renamed"
    return StepOutcome(made, changed=True, unmet="half of it was asked for, a third is reached")
"""


class Recorder:
    """An observer that remembers."""

    def __init__(self) -> None:
        self.labels: list[str] = []
        self.notes: list[str] = []

    @contextlib.contextmanager
    def work(self, label: str, total: int | None = None) -> Iterator[Recorder]:
        self.labels.append(label)
        yield self

    def advance(self, steps: int = 1, note: str = "") -> None: ...

    def note(self, text: str) -> None:
        self.notes.append(text)


@pytest.fixture
def here(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> Bench:
    monkeypatch.chdir(bench.folder)
    return bench


def run(bench: Bench, observer: Recorder | None = None, **changes: Any) -> RunResult:
    path = bench.recipe(GRAPH, **{"variants": {"int8": ["quantize"]}, **changes})
    return pipeline.run(path, observer=observer)


def test_leaves_its_folder_where_the_recipe_s_name_says(here: Bench) -> None:
    held = run(here)
    assert held.folder == Path("runs/tiny")
    assert read_result(Path("runs/tiny")).recipe_digest == held.recipe_digest
    for artifact in held.artifacts:
        file = Path("runs/tiny") / artifact.path
        assert file.stat().st_size == artifact.bytes


def test_every_stage_is_announced(here: Bench) -> None:
    watcher = Recorder()
    run(here, watcher)
    for stage in ("lower", "lower > quantize", "export int8", "verify int8", "evaluate"):
        assert stage in watcher.labels
    assert "measuring on here" in watcher.labels


def test_the_baseline_goes_the_same_road(here: Bench) -> None:
    held = run(here)
    baseline, int8 = held.scores
    assert (baseline.candidate, baseline.drop) == ("baseline", 0.0)
    assert int8.drop_interval is not None
    counts = [
        sum(each.candidate == name for each in held.parities) for name in ("baseline", "int8")
    ]
    # Both: the lowering and the file, at two batches.
    assert counts == [4, 4]
    assert [each.ratio for each in held.profiles if each.candidate == "baseline"] == [1.0]


def test_notes_of_a_step_stand_in_the_result(here: Bench, third_party: Install) -> None:
    third_party({"step.chatty": "chatting:chatty"}, chatting=NOISY)
    watcher = Recorder()
    held = run(here, watcher, variants={"a": ["chatty"]})
    assert "mind the gap" in held.notes
    assert "mind the gap" in watcher.notes


def test_a_step_may_decline_and_the_model_goes_on(here: Bench, third_party: Install) -> None:
    third_party({"step.modest": "measuring:modest"}, measuring=MEASURING)
    held = run(here, variants={"a": ["modest"]})
    record = held.candidates[1].history[-1]
    assert record.declined == "nothing beats float on here 1x1 by a metric"
    assert not record.changed
    assert held.artifact("a").sha256 == held.artifact("baseline").sha256
    assert held.folder is not None
    assert record.declined in (held.folder / "report.md").read_text()
    again = run(here, variants={"a": ["modest", "quantize"]})
    assert again.candidates[1].history[-2].cached
    assert again.artifact("a").sha256 != held.artifact("a").sha256
    # It measured on that target, and must do so again on another.
    other = [{"name": "here", "runtime": "onnxruntime-cpu", "batch": 2}]
    third = run(here, variants={"a": ["modest"]}, targets=other).candidates[1].history[-1]
    assert third.declined == "nothing beats float on here 1x2 by a metric"


def test_what_a_step_leaves_unmet_fails_its_candidate(here: Bench, third_party: Install) -> None:
    third_party({"step.poor": "measuring:poor"}, measuring=MEASURING)
    held = run(here, variants={"a": ["poor"]}, gates=None, require="every")
    (verdict,) = [each for each in held.verdicts if each.gate == "step poor"]
    assert (verdict.candidate, verdict.status) == ("a", Status.FAIL)
    assert verdict.reason == "half of it was asked for, a third is reached"
    assert not held.passed


def test_byte_identical_variants_share_results_and_keep_their_names(here: Bench) -> None:
    variants = {"one": ["quantize"], "two": ["quantize"]}
    held = run(here, variants=variants)
    assert held.artifact("one").sha256 == held.artifact("two").sha256
    assert [each.candidate for each in held.scores] == ["baseline", "one", "two"]
    assert [each.candidate for each in held.profiles] == ["baseline", "one", "two"]


def test_each_target_is_measured_in_its_own_way(here: Bench) -> None:
    targets = [
        {"name": "edge", "runtime": "onnxruntime-cpu", "batch": 1},
        {"name": "cloud", "runtime": "onnxruntime-cpu", "batch": 200},
    ]
    held = run(here, targets=targets)
    # 200 is more than there are samples: they are repeated.
    assert [(each.target, each.batch) for each in held.profiles[::2]] == [
        ("edge", 1),
        ("cloud", 200),
    ]
    assert [each.target for each in held.chosen] == ["edge", "cloud"]


def test_what_cannot_run_on_a_target_is_told_for_that_target(here: Bench) -> None:
    targets = [{"name": "huge", "runtime": "onnxruntime-cpu", "threads": 1024}]
    held = run(here, targets=targets)
    assert not held.passed
    assert {each.status for each in held.profiles} == {"failed"}
    assert any(
        each.status is Status.FAIL and "1024 threads need as many CPUs" in each.reason
        for each in held.verdicts
    )


def test_several_metrics_are_all_scored_and_gated(here: Bench) -> None:
    held = run(
        here,
        metrics=["accuracy", {"top_k": {"k": 2}}],
        gates={"drop": {"limit": "50 %", "metric": "top_k"}},
    )
    assert [(each.candidate, each.metric) for each in held.scores] == [
        ("baseline", "accuracy"),
        ("baseline", "top_k"),
        ("int8", "accuracy"),
        ("int8", "top_k"),
    ]
    assert held.passed


def test_the_folder_is_looked_at_before_anything_else(here: Bench) -> None:
    (here.folder / "runs").write_text("a file")
    with pytest.raises(OutputError, match="runs: is a file"):
        run(here)
    assert not (here.folder / ".lepton").exists()


def test_a_recipe_that_is_not_there(here: Bench) -> None:
    with pytest.raises(RecipeError, match="no such file"):
        pipeline.run("nowhere.yaml")
