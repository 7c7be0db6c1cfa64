"""A recipe made ready to run: everything opened and tried, and nothing written before it fits."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from lepton_compress.artifacts import Model
from lepton_compress.errors import InputError, PluginError, RecipeError
from lepton_compress.job import bind_metric, check_forms, check_model, open_job
from lepton_compress.recipe import MetricUse, from_values, read
from lepton_compress.store import Store
from tests.bench import GRAPH, MODULE, PROGRAM, Bench

if TYPE_CHECKING:
    from tests.conftest import Install

PICKY = """
from lepton_compress.registry import Params, plugin


def refuse(params, targets):
    return [f"it knows no {target}" for target in targets]


@plugin("step", "picky", Params, form="graph", requires=refuse)
def picky(model, params, context):
    '''Refuses every target.'''


@plugin("metric", "wild", Params)
def wild(outputs, targets, params, folder):
    '''Raises.'''
    raise KeyError("labels")


@plugin("loader", "gone", Params)
def gone(params, folder, seed):
    '''Raises.'''
    raise KeyError("disk")
"""


def checked(values: dict[str, Any], **changes: Any) -> None:
    check_forms(from_values({**values, **changes}, Path()))


class TestForms:
    @pytest.mark.parametrize("recipe", [MODULE, GRAPH, PROGRAM])
    def test_what_fits_passes(self, recipe: dict[str, Any]) -> None:
        checked(recipe)

    @pytest.mark.parametrize(
        ("recipe", "steps", "says"),
        [
            (GRAPH, ["finetune"], r"a\[0\]: finetune works on a torch module, .* an ONNX graph"),
            (PROGRAM, ["distil"], r"a\[0\]: distil .* exported program, whose layers are gone"),
            (MODULE, ["quantize", "distil"], r"a\[1\]: .*quantize has made it an ONNX graph; put"),
            (
                MODULE,
                ["quantize_aware", "finetune"],
                r"a\[1\]: finetune .* quantize_aware has made it an ONNX graph; put it before",
            ),
            (
                MODULE,
                ["quantize_aware", "quantize"],
                r"a\[1\]: quantize works on a float model, but quantize_aware has quantised it",
            ),
            (GRAPH, ["quantize", "quantize_dynamic"], r"a\[1\]: .* but quantize has quantised it"),
        ],
    )
    def test_what_cannot_work_is_refused(
        self, recipe: dict[str, Any], steps: list[str], says: str
    ) -> None:
        with pytest.raises(RecipeError, match=says):
            checked(recipe, variants={"a": steps})

    def test_every_mistake_is_told(self) -> None:
        with pytest.raises(RecipeError) as caught:
            checked(GRAPH, variants={"a": ["finetune", "distil"], "b": ["finetune"]})
        assert [each.where for each in caught.value.others] == ["variants.a[1]", "variants.b[0]"]

    def test_what_a_step_requires_is_asked_for(self, third_party: Install) -> None:
        third_party({"step.picky": "picky:picky"}, picky=PICKY)
        with pytest.raises(RecipeError, match=r"variants\.a\[0\]: it knows no here"):
            checked(GRAPH, variants={"a": ["picky"]})


class TestOpen:
    def test_opens_without_building_the_model(self, bench: Bench) -> None:
        (bench.folder / "net.py").write_text("raise SystemExit('built')")
        job = open_job(read(bench.folder / "module.yaml"))
        assert job.origin.form == "module"
        assert len(job.data.evaluation) == 160
        assert [metric.name for metric in job.metrics] == ["accuracy"]

    def test_a_loader_that_breaks_is_named(self, bench: Bench, third_party: Install) -> None:
        third_party({"loader.gone": "picky:gone"}, picky=PICKY)
        bench.recipe(GRAPH, data="gone")
        with pytest.raises(PluginError, match=r"loader gone \(acme\): raised KeyError: 'disk'"):
            open_job(read(bench.folder / "recipe.yaml"))


class TestMetric:
    def mark(self, folder: Path, given: Any) -> str:
        return bind_metric(MetricUse.model_validate(given), folder).mark

    def test_mark_tells_metrics_and_parameters_apart(self, tmp_path: Path) -> None:
        given = ["accuracy", "top_k", {"top_k": {"k": 2}}, {"accuracy": {"output": "a"}}]
        assert len({self.mark(tmp_path, each) for each in given}) == 4
        assert self.mark(tmp_path, "top_k") == self.mark(tmp_path, {"top_k": {"k": 5}})

    def test_mark_follows_the_code_of_the_user_s_function(self, tmp_path: Path) -> None:
        (tmp_path / "own.py").write_text("def f(outputs, targets): return 1\n")
        use = {"python": {"function": "own.py:f"}}
        before = self.mark(tmp_path, use)
        assert self.mark(tmp_path, use) == before
        (tmp_path / "own.py").write_text("def f(outputs, targets): return 2\n")
        assert self.mark(tmp_path, use) != before

    def test_measures(self, tmp_path: Path) -> None:
        metric = bind_metric(MetricUse(name="accuracy"), tmp_path)
        assert metric.measure({"y": np.eye(3)}, np.array([0, 1, 0])).value == pytest.approx(2 / 3)


class TestCheckModel:
    def test_tries_the_model_once(self, bench: Bench, tmp_path: Path) -> None:
        built: list[Model] = []
        job = open_job(read(bench.folder / "graph.yaml"))
        build = job.origin.build

        def counted() -> Model:
            built.append(build())
            return built[-1]

        object.__setattr__(job.origin, "build", counted)
        store = Store(tmp_path / "ws")
        for _ in range(2):
            check_model(job, store)
        assert len(built) == 1

    def test_every_label_meets_every_metric(self, bench: Bench, tmp_path: Path) -> None:
        bench.recipe(GRAPH, metrics=["accuracy", {"top_k": {"k": 9}}])
        job = open_job(read(bench.folder / "recipe.yaml"))
        with pytest.raises(RecipeError, match=r"metrics\[1\]: .*top 9 needs at least 9 scores"):
            check_model(job, Store(tmp_path / "ws"))
        assert not (tmp_path / "ws").exists()

    def test_a_metric_that_breaks_is_named(
        self, bench: Bench, third_party: Install, tmp_path: Path
    ) -> None:
        third_party({"metric.wild": "picky:wild"}, picky=PICKY)
        bench.recipe(GRAPH, metrics=["wild"])
        job = open_job(read(bench.folder / "recipe.yaml"))
        with pytest.raises(PluginError, match=r"metric wild \(acme\): raised KeyError: 'labels'"):
            check_model(job, Store(tmp_path / "ws"))

    def test_a_model_that_does_not_fit_leaves_nothing(self, bench: Bench, tmp_path: Path) -> None:
        (bench.folder / "model.onnx").write_bytes(b"")
        with pytest.raises(InputError):
            check_model(open_job(read(bench.folder / "graph.yaml")), Store(tmp_path / "ws"))
        assert not (tmp_path / "ws").exists()
