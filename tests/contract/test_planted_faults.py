"""Plug-ins that break their contract, and models that are worse than they look: all are caught."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from lepton_compress.artifacts import RunResult, Status
from lepton_compress.boundary import guarded
from lepton_compress.cli import app
from lepton_compress.errors import EXIT_GATE, EXIT_OK, EXIT_UNEXPECTED, EXIT_USER
from lepton_compress.report.folder import read_result
from tests.bench import GRAPH, MODULE, Bench

if TYPE_CHECKING:
    from tests.conftest import Install

STEPS = '''
import copy

from lepton_compress.artifacts import StepOutcome
from lepton_compress.load import forms
from lepton_compress.registry import Params, plugin


def scaled(model, factor):
    changed = forms.duplicate(model)
    changed.value.conv1.weight.data.mul_(factor)
    return changed


@plugin("step", "boasts", Params, form="module")
def boasts(model, params, context):
    """Claims a change that it did not make."""
    return StepOutcome(forms.duplicate(model), changed=True)


@plugin("step", "hides", Params, form="module")
def hides(model, params, context):
    """Hides a change."""
    return StepOutcome(scaled(model, 2.0), changed=False, notes=("nothing to see",))


@plugin("step", "vandal", Params, form="module")
def vandal(model, params, context):
    """Changes what it was given."""
    model.value.conv1.weight.data.mul_(2.0)
    return StepOutcome(model, changed=True)


@plugin("step", "idle", Params, form="module")
def idle(model, params, context):
    """Finds nothing to do."""
    return StepOutcome(model, changed=False, notes=("there is no moon",))


@plugin("step", "crash", Params, form="module")
def crash(model, params, context):
    """Divides by zero."""
    return 1 / 0


@plugin("step", "mute", Params, form="module")
def mute(model, params, context):
    """Returns the bare model."""
    return scaled(model, 2.0)


@plugin("step", "nan", Params, form="module")
def nan(model, params, context):
    """Says what JSON cannot hold."""
    return StepOutcome(scaled(model, 2.0), changed=True, statistics={"loss": float("nan")})


@plugin("step", "surgeon", Params, form="module")
def surgeon(model, params, context):
    """Puts in a layer of another kind, which cannot be saved as a difference."""
    from torch import nn

    changed = forms.duplicate(model)
    changed.value.pool = nn.AvgPool2d(2)
    return StepOutcome(changed, changed=True)


@plugin("step", "hoarder", Params, form="module")
def hoarder(model, params, context):
    """Keeps a change where no difference is looked for."""
    changed = scaled(model, 1.5)
    changed.value.forward = lambda image: image
    return StepOutcome(changed, changed=True)


@plugin("step", "ruin", Params, form="module")
def ruin(model, params, context):
    """Makes the model useless, and says so."""
    changed = forms.duplicate(model)
    changed.value.scores.weight.data.neg_()
    return StepOutcome(changed, changed=True)
'''

OTHERS = '''
import numpy as np

from lepton_compress.artifacts import MetricOutcome
from lepton_compress.registry import Params, plugin


@plugin("exporter", "corrupts", Params, evaluates="onnxruntime-cpu")
def corrupts(model, params, folder):
    """Writes one weight wrong."""
    import onnx
    from onnx import numpy_helper

    held = type(model.value)()
    held.CopyFrom(model.value)
    tensor = max(held.graph.initializer, key=lambda each: len(each.raw_data))
    array = numpy_helper.to_array(tensor).copy()
    array.reshape(-1)[np.abs(array).argmax()] *= -1
    tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))
    path = folder / "model.onnx"
    path.write_bytes(held.SerializeToString(deterministic=True))
    return path


@plugin("exporter", "forgets", Params, evaluates="onnxruntime-cpu")
def forgets(model, params, folder):
    """Writes nothing."""
    return folder / "model.onnx"


@plugin("metric", "void", Params)
def void(outputs, targets, params, folder):
    """Has no value."""
    hits = np.full(len(targets), np.nan)
    return MetricOutcome(float(hits.mean()), True, hits)


@plugin("metric", "wild", Params)
def wild(outputs, targets, params, folder):
    """Raises."""
    raise KeyError("labels")


@plugin("metric", "liar", Params)
def liar(outputs, targets, params, folder):
    """Says more than its terms."""
    return MetricOutcome(1.0, True, np.zeros(len(targets)))


@plugin("metric", "bare", Params)
def bare(outputs, targets, params, folder):
    """Returns a number alone."""
    return 0.5
'''

ENTRIES = {
    **{
        f"step.{name}": f"steps:{name}"
        for name in ("boasts", "hides", "vandal", "idle", "crash", "mute", "nan", "surgeon")
    },
    "step.ruin": "steps:ruin",
    "step.hoarder": "steps:hoarder",
    **{f"exporter.{name}": f"others:{name}" for name in ("corrupts", "forgets")},
    **{f"metric.{name}": f"others:{name}" for name in ("void", "wild", "liar", "bare")},
}


@dataclass(frozen=True)
class Ended:
    """A run that has ended, in this process."""

    code: int
    out: str
    err: str
    result: RunResult | None

    def status(self, candidate: str, gate: str) -> Status:
        """Of a gate's verdict on a candidate."""
        assert self.result is not None
        found = [v for v in self.result.verdicts if (v.candidate, v.gate) == (candidate, gate)]
        assert len(found) == 1
        return found[0].status


Runs = Callable[..., Ended]


@pytest.fixture
def run(
    bench: Bench,
    third_party: Install,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> Runs:
    """Runs a recipe with the plug-ins above installed, as the command line does."""
    third_party(ENTRIES, steps=STEPS, others=OTHERS)
    monkeypatch.chdir(bench.folder)

    def run(recipe: dict[str, Any], **changes: Any) -> Ended:
        bench.recipe(recipe, **changes)
        capfd.readouterr()
        code = guarded(lambda: app(["run", "recipe.yaml"], standalone_mode=False))
        said = capfd.readouterr()
        out = Path("runs/tiny")
        return Ended(code, said.out, said.err, read_result(out) if out.exists() else None)

    return run


class TestSteps:
    @pytest.mark.parametrize(
        ("step", "says"),
        [
            ("boasts", "says it changed the model, but the model is the same"),
            ("hides", "says it changed nothing, but the model differs"),
            ("vandal", "changed the model it was given instead of a copy"),
            ("crash", "raised ZeroDivisionError: division by zero"),
            ("mute", "returned Model, not a StepOutcome"),
            ("nan", "its statistics are not JSON"),
        ],
    )
    def test_a_broken_contract_ends_the_run_and_names_the_step(
        self, run: Runs, bench: Bench, step: str, says: str
    ) -> None:
        ended = run(MODULE, variants={"a": [step]})
        assert ended.code == EXIT_UNEXPECTED
        assert f"error: step {step} (acme): {says}" in ended.err
        log = Path(ended.err.rpartition("the log is ")[2].strip())
        assert "Traceback" in log.read_text()
        log.unlink()
        assert ended.result is None
        assert step not in bench.entries()

    def test_a_change_that_cannot_be_kept_is_refused(self, run: Runs, bench: Bench) -> None:
        ended = run(MODULE, variants={"a": ["surgeon"]})
        assert ended.code == EXIT_UNEXPECTED
        assert "error: step surgeon: exchanged, added or removed 'pool'" in ended.err
        assert "surgeon" not in bench.entries()

    def test_what_is_not_kept_is_not_used_either(self, run: Runs) -> None:
        # An interrupted run would go on without it; an undisturbed one must do the same.
        ended = run(MODULE, variants={"a": ["hoarder"]})
        assert ended.code == EXIT_OK, ended.err
        assert ended.status("a", "parity") is Status.PASS
        assert ended.result is not None
        assert ended.result.artifact("a").outputs[0].shape[1:] == (4,)

    def test_a_step_that_matches_nothing_is_the_users_mistake(self, run: Runs) -> None:
        ended = run(MODULE, variants={"a": ["idle"]})
        assert ended.code == EXIT_USER
        assert "the step idle matches nothing in this model (there is no moon)" in ended.err
        assert ended.result is None


class TestExporters:
    def test_one_wrong_weight_fails_parity_and_is_never_chosen(self, run: Runs) -> None:
        ended = run(GRAPH, exports=["corrupts"])
        assert ended.code == EXIT_GATE, ended.err
        assert {ended.status(name, "parity") for name in ("baseline", "int8")} == {Status.FAIL}
        assert ended.result is not None
        (choice,) = ended.result.chosen
        assert (choice.candidate, choice.met) == (None, False)
        assert "nothing, even the baseline's artifact differs from its graph" in ended.out

    def test_a_sound_export_beside_it_is_chosen(self, run: Runs) -> None:
        ended = run(GRAPH, exports=["corrupts", "onnx"])
        assert ended.code == EXIT_OK, ended.out
        assert ended.result is not None
        assert {each.format for each in ended.result.chosen} == {"onnx"}
        paths = [each.path for each in ended.result.artifacts]
        assert len(set(paths)) == len(paths) == 6
        assert all((Path("runs/tiny") / path).is_file() for path in paths)

    def test_an_exporter_that_writes_nothing_breaks_its_contract(self, run: Runs) -> None:
        ended = run(GRAPH, exports=["forgets"])
        assert ended.code == EXIT_UNEXPECTED
        assert "error: exporter forgets: wrote no file" in ended.err


class TestMetrics:
    def test_a_metric_without_a_value_for_the_original_is_a_mistake(self, run: Runs) -> None:
        ended = run(GRAPH, metrics=["void"])
        assert ended.code == EXIT_USER
        assert "metrics[0]: void gives no number for the original model" in ended.err

    @pytest.mark.parametrize(
        ("metric", "says"),
        [
            ("wild", "error: metric wild (acme): raised KeyError: 'labels'"),
            ("liar", "error: metric liar: its outcomes are not one number a sample with the mean"),
            ("bare", "error: metric bare: returned float, not a MetricOutcome"),
        ],
    )
    def test_a_broken_contract_ends_the_run(self, run: Runs, metric: str, says: str) -> None:
        ended = run(GRAPH, metrics=[metric])
        assert ended.code == EXIT_UNEXPECTED
        assert says in ended.err
        assert ended.result is None


class TestGates:
    def test_a_gate_that_fails_ends_in_1_with_the_verdicts(self, run: Runs) -> None:
        ended = run(GRAPH, gates={"size": "1 KB"})
        assert ended.code == EXIT_GATE
        assert ended.status("int8", "size") is Status.FAIL
        assert "FAIL size" in ended.out
        assert "nothing passes the gates: int8 size FAIL" in ended.out
        assert "failed: see the gates" in ended.out
        report = Path("runs/tiny/report.md").read_text()
        assert "| int8 |  | size | FAIL | 8." in report
        assert report.startswith("# tiny: FAILED\n")

    @pytest.mark.slow
    def test_a_variant_that_lost_accuracy_is_not_chosen(self, run: Runs) -> None:
        ended = run(MODULE, variants={"ruined": ["ruin", "quantize"], "int8": ["quantize"]})
        assert ended.code == EXIT_OK, ended.err
        assert ended.status("ruined", "parity") is Status.PASS
        assert ended.status("ruined", "drop") is Status.FAIL
        assert ended.status("int8", "drop") is Status.PASS
        assert ended.result is not None
        assert [each.candidate for each in ended.result.chosen] == ["int8"]

    def test_unless_every_variant_must_pass(self, run: Runs) -> None:
        ended = run(MODULE, variants={"ruined": ["ruin", "quantize"]}, require="every")
        assert ended.code == EXIT_GATE
        assert ended.result is not None
        assert [each.candidate for each in ended.result.chosen] == ["baseline"]
        assert not ended.result.passed
