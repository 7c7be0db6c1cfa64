"""The tree of variants: common beginnings once, keys from everything that counts."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from lepton_compress import branches
from lepton_compress.branches import Branches, Node
from lepton_compress.errors import InputError
from lepton_compress.job import Job, open_job
from lepton_compress.load import forms
from lepton_compress.recipe import BASELINE, read
from lepton_compress.report.silent import Silent
from lepton_compress.store import Store
from tests.bench import DATA, GRAPH, MODULE, NET, Bench

if TYPE_CHECKING:
    from tests.conftest import Install

STEPS = """
from pathlib import Path

from lepton_compress.artifacts import StepOutcome
from lepton_compress.load import forms
from lepton_compress.registry import Params, plugin


class By(Params):
    factor: float = 2.0


@plugin("step", "scale", By, form="graph")
def scale(model, params, context):
    '''Multiplies the largest weight, and counts how often it was called.'''
    import numpy as np
    from onnx import numpy_helper

    with open("calls", "a") as file:
        file.write("scale\\n")
    made = forms.duplicate(model)
    tensor = max(made.value.graph.initializer, key=lambda each: len(each.raw_data))
    array = numpy_helper.to_array(tensor) * np.float32(params.factor)
    tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))
    return StepOutcome(made, changed=True, statistics={"by": params.factor}, notes=("scaled",))
"""


def opened(bench: Bench, recipe: dict[str, Any], **changes: Any) -> Job:
    bench.recipe(recipe, **changes)
    return open_job(read(bench.folder / "recipe.yaml"))


def labels(node: Node) -> list[str]:
    return [each.label for each in node.path()]


@pytest.fixture
def calls(bench: Bench, third_party: Install, monkeypatch: pytest.MonkeyPatch) -> Path:
    """With the step `scale` installed; the file that it counts its calls in."""
    third_party({"step.scale": "scaling:scale"}, scaling=STEPS)
    monkeypatch.chdir(bench.folder)
    return bench.folder / "calls"


class TestPlan:
    def test_lowers_once_before_the_first_graph_step(self, bench: Bench) -> None:
        planned = branches.plan(opened(bench, MODULE))
        assert list(planned) == [BASELINE, "int8", "small"]
        assert labels(planned[BASELINE]) == ["model", "lower"]
        assert labels(planned["int8"]) == ["model", "lower", "quantize"]
        assert labels(planned["small"]) == ["model", "prune", "distil", "lower", "quantize"]
        assert planned["small"].title == "prune > distil > lower > quantize"

    def test_a_step_may_end_in_a_graph_which_is_not_lowered(self, bench: Bench) -> None:
        steps = [{"prune": {"ratio": "50 %"}}, "quantize_aware"]
        node = branches.plan(opened(bench, MODULE, variants={"a": steps}))["a"]
        assert labels(node) == ["model", "prune", "quantize_aware"]
        assert node.form == "graph"
        assert node.parent is not None
        assert node.parent.form == "module"

    def test_an_onnx_file_is_cleaned_once(self, bench: Bench) -> None:
        planned = branches.plan(opened(bench, GRAPH))
        assert labels(planned["int8"]) == ["model", "lower", "quantize"]
        assert planned["int8"].parent == planned[BASELINE]

    def test_common_beginnings_are_one_node(self, bench: Bench) -> None:
        variants = {"a": ["finetune", "quantize"], "b": ["finetune"], "c": ["distil", "quantize"]}
        planned = branches.plan(opened(bench, MODULE, variants=variants))
        a, b, c = (list(planned[name].path()) for name in "abc")
        assert [x.key == y.key for x, y in zip(a, b, strict=False)] == [True, True, True]
        assert [x.key == y.key for x, y in zip(a, c, strict=False)] == [True, False, False, False]

    def test_a_step_may_repeat(self, bench: Bench) -> None:
        variants = {"a": ["finetune", "finetune"]}
        node = branches.plan(opened(bench, MODULE, variants=variants))["a"]
        keys = [each.key for each in node.path()]
        assert len(set(keys)) == len(keys)

    def test_computes_and_writes_nothing(self, bench: Bench) -> None:
        job = opened(bench, MODULE)
        before = bench.tree()
        branches.plan(job)
        assert bench.tree() == before


class TestKeys:
    def key(self, bench: Bench, **changes: Any) -> str:
        variants = {"a": ["finetune", {"quantize": {"samples": 8}}]}
        return branches.plan(opened(bench, MODULE, **{"variants": variants, **changes}))["a"].key

    def test_the_same_recipe_has_the_same_keys(self, bench: Bench) -> None:
        assert self.key(bench) == self.key(bench)

    @pytest.mark.parametrize(
        "change",
        [
            {"name": "other"},
            {"gates": {}},
            {"select": "fastest"},
            {"metrics": ["accuracy", "top_k"]},
            {"measure": {"rounds": 9}},
            {"description": "other words"},
        ],
    )
    def test_what_no_step_sees_does_not_count(self, bench: Bench, change: dict[str, Any]) -> None:
        assert self.key(bench, **change) == self.key(bench)

    @pytest.mark.parametrize(
        "change",
        [
            {"seed": 5},
            {"threads": 1},
            {"variants": {"a": ["finetune", {"quantize": {"samples": 9}}]}},
            {"variants": {"a": [{"finetune": {"epochs": 2}}, {"quantize": {"samples": 8}}]}},
            {"model": {**MODULE["model"], "args": {"width": 16}}},
        ],
    )
    def test_what_a_step_sees_counts(self, bench: Bench, change: dict[str, Any]) -> None:
        assert self.key(bench, **change) != self.key(bench)

    def test_files_count_by_what_they_hold(self, bench: Bench) -> None:
        seen = [self.key(bench)]
        (bench.folder / "net.py").write_text(NET + "\n# changed\n")
        seen.append(self.key(bench))
        (bench.folder / "data.py").write_text(DATA.replace("seed=3", "seed=4"))
        # Loaded anew, as another process would.
        (bench.folder / "data2.py").write_text((bench.folder / "data.py").read_text())
        seen.append(self.key(bench, data={"python": {"function": "data2.py:load"}}))
        weights = bench.folder / "weights.safetensors"
        weights.write_bytes(weights.read_bytes()[:-1] + b"\0")
        seen.append(self.key(bench))
        assert len(set(seen)) == 4

    def test_a_parameter_written_out_with_its_default_is_the_same(self, bench: Bench) -> None:
        short, long = {"a": ["finetune"]}, {"a": [{"finetune": {"epochs": 10}}]}
        assert self.key(bench, variants=short) == self.key(bench, variants=long)


class TestBranches:
    def test_each_node_is_made_once(self, bench: Bench, calls: Path) -> None:
        variants = {"a": ["scale"], "b": ["scale", {"scale": {"factor": 3}}], "c": ["scale"]}
        job = opened(bench, GRAPH, variants=variants)
        store = Store(bench.folder / "ws")
        for _ in range(2):
            made = Branches(job, store, Silent())
            for node in branches.plan(job).values():
                made.entry(node)
        assert calls.read_text().split() == ["scale", "scale"]

    def test_a_candidate_knows_its_history(self, bench: Bench, calls: Path) -> None:
        job = opened(bench, GRAPH, variants={"a": [{"scale": {"factor": 3}}]})
        store, node = Store(bench.folder / "ws"), branches.plan(job)["a"]
        for fresh in (True, False):
            held = Branches(job, store, Silent()).candidate("a", node)
            assert (held.id, held.parent, held.key) == ("a", BASELINE, node.key)
            lowered, scaled = held.history
            assert (lowered.step, lowered.parameters) == ("lower", {})
            assert (scaled.step, scaled.parameters) == ("scale", {"factor": 3.0})
            assert (scaled.statistics, scaled.notes) == ({"by": 3.0}, ("scaled",))
            assert lowered.cached is scaled.cached is not fresh
            assert held.macs is not None
            assert held.macs > held.parameters > 1000

    def test_what_goes_on_is_what_was_kept(self, bench: Bench, calls: Path) -> None:
        job = opened(bench, GRAPH, variants={"a": ["scale"]})
        store, node = Store(bench.folder / "ws"), branches.plan(job)["a"]
        fresh = Branches(job, store, Silent())
        fresh.entry(node)
        again = Branches(job, store, Silent())
        assert forms.fingerprint(fresh.model(node)) == forms.fingerprint(again.model(node))

    def test_mistakes_name_the_place_in_the_recipe(self, bench: Bench) -> None:
        steps = [{"quantize": {"samples": 8, "keep": ["no such node"]}}]
        job = opened(bench, GRAPH, variants={"a": ["quantize"], "b": steps})
        made = Branches(job, Store(bench.folder / "ws"), Silent())
        says = r"recipe\.yaml:\d+: variants\.b\[0\]: quantize: keep: there is no node"
        with pytest.raises(InputError, match=says):
            made.entry(branches.plan(job)["b"])
