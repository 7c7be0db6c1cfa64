"""What every gate keeps to: it fails what is planted as bad, passes what is good, never passes what
was not measured, and a real model that is bad in one way is stopped by the gate for it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from lepton_compress import pipeline
from lepton_compress.artifacts import (
    Behaviour,
    Corrupted,
    Coverage,
    Fallback,
    Fit,
    Group,
    RunResult,
    Status,
)
from lepton_compress.budget import Gates, Regression
from lepton_compress.gate import judge_gates
from lepton_compress.readings import Measured
from lepton_compress.regress import Pair, regressions
from tests.conftest import make_tiny
from tests.measured import artifact, measured, parity, profile, score
from tests.report.results import result

if TYPE_CHECKING:
    from tests.conftest import Install

TARGET = "onnxruntime-cpu"


def behaviour(candidate: str, **changes: Any) -> Behaviour:
    held: dict[str, Any] = {
        "samples": 1000,
        "flips": 0,
        "negative_flips": 0,
        "calibration_error": 0.01,
        "calibration_interval": (0.005, 0.02),
        "groups": (group("class", "0"), group("class", "1"), group("slice", "night")),
        "corrupted": (Corrupted("gaussian_blur", 3, "accuracy", 1000, 0.8, 0.0, (-0.01, 0.01)),),
    }
    return Behaviour(candidate, "onnx", **held | changes)


def group(
    kind: Any, name: str, drop: float = 0.0, samples: int = 500, error: float = 0.005
) -> Group:
    interval = (drop - 1.96 * error, drop + 1.96 * error)
    return Group(kind, name, "accuracy", samples, 0.9 - drop, drop, interval)


def coverage(candidate: str, share: float) -> Coverage:
    return Coverage(candidate, "onnx", TARGET, 100, int(100 * share), 100, int(100 * share))


def fit(**changes: Any) -> Fit:
    return Fit("a simulator 1", **{"ram": 50_000, "flash": 50_000, "operators": 10} | changes)


def of(**changes: Any) -> Measured:
    """A good artifact `a` beside its baseline, but for what is changed."""
    both = ("baseline", "a")
    held = replace(
        measured(
            *both,
            artifacts=[artifact("baseline", 2000), artifact("a", 1000)],
            profiles=[profile(each, fit=fit()) for each in both],
        ),
        behaviours=[behaviour(each) for each in both],
        coverages=[coverage("baseline", 0), coverage("a", 0.9)],
    )
    return replace(held, **changes)


def base(*others: Any, kind: Any) -> list[Any]:
    return [kind("baseline"), *others]


PLANTED: dict[str, tuple[Any, Measured]] = {
    "score": (0.85, of(scores=base(score("a", 0.5), kind=score))),
    "drop": (0.01, of(scores=base(score("a", drop=0.3), kind=score))),
    "worst_class": (
        0.02,
        of(behaviours=base(behaviour("a", groups=(group("class", "1", 0.3),)), kind=behaviour)),
    ),
    "worst_slice": (
        0.02,
        of(behaviours=base(behaviour("a", groups=(group("slice", "x", 0.3),)), kind=behaviour)),
    ),
    "corrupted": (
        0.02,
        of(
            behaviours=base(
                behaviour(
                    "a", corrupted=(Corrupted("contrast", 5, "accuracy", 9, 0.2, 0.6, (0.5, 0.7)),)
                ),
                kind=behaviour,
            )
        ),
    ),
    "flips": ("2 %", of(behaviours=base(behaviour("a", flips=300), kind=behaviour))),
    "negative_flips": (
        "2 %",
        of(behaviours=base(behaviour("a", negative_flips=300), kind=behaviour)),
    ),
    "calibration_error": (
        "5 %",
        of(
            behaviours=base(
                behaviour("a", calibration_error=0.3, calibration_interval=(0.2, 0.4)),
                kind=behaviour,
            )
        ),
    ),
    "parity": (1e-5, of(parities=[parity("baseline"), parity("a", 5e-5)])),
    "size": ("1500 B", of(artifacts=[artifact("baseline", 2000), artifact("a", 1600)])),
    "size_ratio": ("0.7x", of(artifacts=[artifact("baseline", 2000), artifact("a", 1600)])),
    "integer_nodes": ("50 %", of(coverages=[coverage("baseline", 0), coverage("a", 0.1)])),
    "integer_macs": ("50 %", of(coverages=[coverage("baseline", 0), coverage("a", 0.1)])),
    "latency": ("1.2 ms", of(profiles=base(profile("a", 3.0), kind=profile))),
    "latency_ratio": ("1.1x", of(profiles=base(profile("a", 3.0), kind=profile))),
    "throughput": ("500/s", of(profiles=base(profile("a", 3.0), kind=profile))),
    "latency_at": ("8 ms", of(profiles=base(profile("a", 3.0), kind=profile))),
    "cold_start": ("1 s", of(profiles=base(profile("a", cold_start=9.0), kind=profile))),
    "peak_memory": ("9 MB", of(profiles=base(profile("a", peak_memory=10**8), kind=profile))),
    "ram": ("100 KB", of(profiles=base(profile("a", fit=fit(ram=200_000)), kind=profile))),
    "flash": ("100 KB", of(profiles=base(profile("a", fit=fit(flash=200_000)), kind=profile))),
    "operator_coverage": (
        "90 %",
        of(
            profiles=base(
                profile("a", fit=fit(fallbacks=(Fallback("ADD", "a"),) * 2)), kind=profile
            )
        ),
    ),
}
"""Gate to a limit that a good artifact meets, and what breaks it."""
ONCE = {"cold_start", "peak_memory"}
"""Measured once, so without an interval to be strict about."""
EXACT = {"parity", "size", "size_ratio", "integer_nodes", "integer_macs"}

every = pytest.mark.parametrize("name", Gates.model_fields)


def status(name: str, found: Measured, limit: Any, *, strict: bool = False) -> Status:
    gates = Gates.model_validate({name: {"limit": limit, "strict": strict}})
    made = judge_gates(gates, found, metric="accuracy", targets=[TARGET])
    (verdict,) = [each for each in made if (each.candidate, each.gate) == ("a", name)]
    assert verdict.reason
    return verdict.status


def test_every_gate_has_a_planted_bad_result() -> None:
    assert set(PLANTED) == set(Gates.model_fields)
    assert set(WORSE) == set(Regression.model_fields)


@every
@pytest.mark.parametrize("strict", [False, True])
def test_it_fails_what_is_bad(name: str, strict: bool) -> None:
    limit, bad = PLANTED[name]
    wanted = Status.INCONCLUSIVE if strict and name in ONCE else Status.FAIL
    assert status(name, bad, limit, strict=strict) is wanted


@every
@pytest.mark.parametrize("strict", [False, True])
def test_it_passes_what_is_good(name: str, strict: bool) -> None:
    wanted = Status.INCONCLUSIVE if strict and name in ONCE else Status.PASS
    assert status(name, of(), PLANTED[name][0], strict=strict) is wanted


@every
def test_it_never_passes_what_was_not_measured(name: str) -> None:
    nothing = Measured("baseline", [artifact("a")], [], [], [])
    made = status(name, nothing, PLANTED[name][0])
    assert made is (Status.PASS if name == "size" else Status.NOT_MEASURED)  # a file has a size


@every
def test_it_never_passes_a_value_that_is_no_number(name: str) -> None:
    nan = float("nan")
    broken = of(
        parities=[parity("a", nan)],
        scores=[score("baseline"), score("a", nan, nan)],
        behaviours=[
            behaviour("baseline"),
            behaviour(
                "a",
                flips=None,
                negative_flips=None,
                calibration_error=None,
                groups=(),
                corrupted=(Corrupted("contrast", 1, "accuracy", 9, nan, nan, None),),
            ),
        ],
    )
    looked_at = {"parity", "score", "drop", "worst_class", "worst_slice", "corrupted"}
    looked_at |= {"flips", "negative_flips", "calibration_error"}
    passes = status(name, broken, PLANTED[name][0]) is Status.PASS
    assert passes is (name not in looked_at)


class TestParts:
    """Gates over many parts of the data: nothing fails by luck, nothing passes unseen."""

    def of_groups(self, *groups: Group) -> Measured:
        return of(behaviours=[behaviour("baseline"), behaviour("a", groups=groups)])

    def verdict(self, found: Measured, **asked: Any) -> Any:
        gates = Gates.model_validate({"worst_slice": {"limit": "2 %", **asked}})
        made = judge_gates(gates, found, metric="accuracy", targets=[TARGET])
        (verdict,) = [v for v in made if (v.candidate, v.gate) == ("a", "worst_slice")]
        return verdict

    def test_a_slice_with_too_few_samples_says_how_many_it_needs(self) -> None:
        found = self.of_groups(group("slice", "day"), group("slice", "snow", samples=4))
        made = self.verdict(found)
        assert (made.status, made.needed) == (Status.INCONCLUSIVE, 20)
        assert made.reason == "slice snow has 4 samples, 20 are needed to judge it"
        assert self.verdict(found, samples=3).status is Status.PASS

    def test_one_of_many_beyond_the_limit_may_be_chance(self) -> None:
        # Its own p-value is 0.025; among 40 that is what luck brings.
        odd = group("slice", "odd", 0.05, error=0.015)
        alone = self.verdict(self.of_groups(odd))
        assert alone.status is Status.FAIL
        many = [group("slice", str(each)) for each in range(39)]
        made = self.verdict(self.of_groups(odd, *many))
        assert made.status is Status.INCONCLUSIVE
        assert "may be chance" in made.reason

    def test_strict_asks_for_proof_that_none_is_beyond(self) -> None:
        wide = group("slice", "wide", 0.01, error=0.02)
        assert self.verdict(self.of_groups(wide)).status is Status.PASS
        made = self.verdict(self.of_groups(wide), strict=True)
        assert made.status is Status.INCONCLUSIVE
        assert made.needed is not None
        assert made.needed > wide.samples


WORSE: dict[str, dict[str, Any]] = {
    "drop": {"value": 0.5, "outcomes": (0.0, 0.0, 1.0, 1.0)},
    "negative_flips": {"value": 0.5, "outcomes": (0.0, 0.0, 1.0, 1.0)},
    "size": {"bytes": 90_000},
    "latency": {"ratio": 0.9, "ratio_interval": (0.89, 0.91)},
}
"""Regression to what breaks it: fields of a score, an artifact or a profile."""


@pytest.mark.parametrize("name", Regression.model_fields)
def test_it_fails_a_regression(name: str) -> None:
    def changed(each: Any) -> Any:
        fits = each.candidate == "int8" and set(WORSE[name]) <= set(vars(each))
        return replace(each, **WORSE[name]) if fits else each

    then = result()
    parts: dict[str, Any] = {
        part: tuple(map(changed, getattr(then, part))) for part in ("scores", "profiles")
    }
    now = replace(then, artifacts=tuple(map(changed, then.artifacts)), **parts)
    asked = Regression.model_validate({"negative_flips": "10 %"})
    statuses = {
        verdict.gate: verdict.status for verdict in regressions([pair(now, then)], now, then, asked)
    }
    assert statuses.pop(f"regression.{name}") is Status.FAIL
    same = regressions([pair(then, then)], then, then, asked)
    assert {each.status for each in same} == {Status.PASS}


def pair(now: RunResult, then: RunResult) -> Pair:
    return Pair("edge", now.artifact("int8"), then.artifact("int8"))


DAMAGE = '''
from typing import Literal

import numpy as np
from lepton_compress.artifacts import StepOutcome
from lepton_compress.load import forms
from lepton_compress.registry import Params, plugin


class Damage(Params):
    """What to break."""

    kind: Literal["class", "confidence", "bloat"]


@plugin("step", "damage", Damage, form="graph")
def damage(model, params, context):
    """Breaks a classifier in one way."""
    from onnx import helper, numpy_helper

    made = forms.duplicate(model)
    graph = made.value.graph
    (last,) = [node for node in graph.node if "scores" in node.output]
    last.output[0] = "before"

    def add(operator, tensor, array, out):
        graph.initializer.append(numpy_helper.from_array(np.asarray(array, np.float32), "w" + out))
        graph.node.append(helper.make_node(operator, [tensor, "w" + out], [out], "n" + out))

    if params.kind == "class":
        add("Add", "before", [-100, 0, 0], "scores")
    elif params.kind == "confidence":
        add("Mul", "before", [0.001], "scores")
    else:
        wide = np.zeros((3, 1000)); wide[:, :3] = np.eye(3)
        inner = np.eye(1000)
        add("MatMul", "before", wide, "wide")
        add("MatMul", "wide", inner, "inner")
        add("MatMul", "inner", wide.T, "scores")
    return StepOutcome(made, changed=True)
'''
RECIPE = """\
version: 1
name: planted
model: {onnx: model.onnx}
data: {npz: {path: data.npz, inputs: [x], targets: y, calibration: 20 %, evaluation: 60 %}}
metrics: [accuracy]
slices: parts.py:parts
robustness: {corruptions: [noise_snr], severities: [1]}
variants:
  harmless: [quantize]
  class: [damage: {kind: class}]
  confidence: [damage: {kind: confidence}]
  bloat: [damage: {kind: bloat}]
gates:
  score: 80 %
  drop: 10 %
  worst_class: {limit: 30 %, samples: 5}
  worst_slice: {limit: 30 %, samples: 5}
  corrupted: 20 %
  flips: 15 %
  negative_flips: 15 %
  calibration_error: 50 %
  size: 2 MB
  size_ratio: 20x
  latency: 50 us
  latency_ratio: 5x
  throughput: 8000/s
  latency_at: {limit: 10 s, rate: 2000/s}
  integer_nodes: 50 %
  integer_macs: 50 %
measure: {rounds: 5, cap: 1 s}
"""
CAUGHT = {
    "class": {"score", "drop", "worst_class", "worst_slice", "corrupted", "flips"}
    | {"negative_flips"},
    "confidence": {"calibration_error"},
    "bloat": {"size", "size_ratio", "latency", "latency_ratio", "throughput"},
}
FLOAT = {"integer_nodes", "integer_macs"}


@pytest.fixture
def planted(tmp_path: Path, third_party: Install) -> RunResult:
    """A real run over models that are each bad in one way."""
    third_party({"step.damage": "damages:damage"}, damages=DAMAGE)
    make_tiny(tmp_path)
    (tmp_path / "recipe.yaml").write_text(RECIPE)
    (tmp_path / "parts.py").write_text(
        "def parts(inputs, targets):\n    return {'first': targets == 0, 'rest': targets != 0}\n"
    )
    return pipeline.run(tmp_path / "recipe.yaml", out=tmp_path / "run", workspace=tmp_path / "w")


@pytest.mark.slow
def test_a_real_model_is_stopped_by_the_gate_for_what_is_wrong(planted: RunResult) -> None:
    caught = {
        candidate: {
            each.gate
            for each in planted.verdicts
            if each.candidate == candidate and each.status is Status.FAIL
        }
        for candidate in ("harmless", *CAUGHT)
    }
    assert caught["harmless"] - {"latency_ratio"} == set()
    for candidate, gates in CAUGHT.items():
        assert caught[candidate] == gates | FLOAT, candidate
