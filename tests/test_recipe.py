"""Recipes: what people write is read as they mean it, and every mistake gets one clear line."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import jsonschema
import pytest
import yaml
from pydantic import BaseModel, Field, ValidationError

from lepton_compress import recipe, registry
from lepton_compress.errors import PluginError, RecipeError
from lepton_compress.findings import explain
from lepton_compress.recipe import Recipe, Source, StepUse, TargetSpec
from lepton_compress.registry import Params
from lepton_compress.units import Duration

if TYPE_CHECKING:
    from tests.conftest import Install

GOOD = """\
version: 1
name: demo
model:
  factory: nets.py:make
data:
  python:
    function: data.py:load
metrics:
  - accuracy
variants:
  small:
    - prune:
        ratio: 50 %
    - finetune
  int8:
    - quantize
targets:
  - name: edge
    runtime: onnxruntime-cpu
gates:
  drop: 1 %
  size:
    limit: 150 KB
"""


def write(folder: Path, text: str) -> Path:
    path = folder / "r.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def read(folder: Path, text: str) -> Recipe:
    return recipe.read(write(folder, text)).recipe


def lines_of(folder: Path, text: str) -> list[str]:
    """What a wrong recipe is told, a line for each finding."""
    with pytest.raises(RecipeError) as caught:
        recipe.read(write(folder, text))
    error = caught.value
    assert error.exit_code == 2
    return [str(each).replace(f"{folder}/", "") for each in (error, *error.others)]


def changed(old: str, new: str) -> str:
    assert GOOD.count(old) >= 1, old
    return GOOD.replace(old, new, 1)


MISTAKES = yaml.safe_load(Path(__file__).with_name("mistakes.yaml").read_text(encoding="utf-8"))


class TestMistakes:
    @pytest.mark.parametrize("mistake", MISTAKES, ids=lambda each: each["said"])
    def test_each_gets_one_line_with_its_place(
        self, tmp_path: Path, mistake: dict[str, str]
    ) -> None:
        text = changed(mistake["old"], mistake["new"])
        assert lines_of(tmp_path, text) == [mistake["said"]]

    def test_all_are_told_at_once(self, tmp_path: Path) -> None:
        text = GOOD.replace("factory", "factry").replace("ratio: 50 %", "ratio: 5")
        text = text.replace("- quantize", "- quantise").replace("1 %", "one").replace("edge", "a b")
        places = [line.split(" ")[1] for line in lines_of(tmp_path, text)]
        assert places == [
            *("model.factry:", "variants.small[0].prune.ratio:", "variants.int8[0]:"),
            *("targets[0].name:", "gates.drop:"),
        ]

    def test_all_contradictions_are_told_at_once(self, tmp_path: Path) -> None:
        text = GOOD.replace("small:", "baseline:").replace("- name: edge", "- name: a\n  - name: a")
        text = text.replace("drop: 1 %", "drop: {limit: 1 %, targets: [b, a], metric: c}")
        places = [line.split(" ")[1] for line in lines_of(tmp_path, text)]
        assert places == [
            *("variants.baseline:", "targets[1]:", "gates.drop.targets[0]:", "gates.drop.metric:"),
        ]

    def test_a_recipe_made_in_python_is_checked_too(self) -> None:
        made = Recipe.model_validate(yaml.safe_load(changed("ratio: 50 %", "ratio: 5")))
        with pytest.raises(RecipeError) as caught:
            recipe.check(Source(made, Path()))
        assert str(caught.value).startswith("variants.small[0].prune.ratio: 5 is not a number")

    def test_values_from_python_get_the_same_lines_without_a_file(self) -> None:
        values = yaml.safe_load(changed("ratio: 50 %", "ratios: 50 %"))
        with pytest.raises(RecipeError) as caught:
            recipe.from_values(values, Path())
        said = "variants.small[0].prune.ratios: unknown key 'ratios'; did you mean 'ratio'?"
        assert str(caught.value) == said

    def test_contradictions_of_a_recipe_made_in_python_name_their_key(self) -> None:
        with pytest.raises(ValidationError, match=r"variants\.baseline: 'baseline' is the name"):
            Recipe.model_validate(yaml.safe_load(changed("small:", "baseline:")))

    def test_a_mistake_in_an_included_file_is_told_of_it(self, tmp_path: Path) -> None:
        (tmp_path / "base.yaml").write_text(changed("ratio: 50 %", "ratio: 5"))
        (line,) = lines_of(tmp_path, "include: base.yaml\nname: other\n")
        assert line.startswith("base.yaml:13: variants.small[0].prune.ratio: ")

    def test_a_mistake_in_a_merged_mapping_is_told_where_it_stands(self, tmp_path: Path) -> None:
        text = changed("variants:", "x-half: &half\n  ratio: 5\nvariants:")
        (line,) = lines_of(tmp_path, text.replace("ratio: 50 %", "<<: *half"))
        assert line.startswith("r.yaml:11: variants.small[0].prune.ratio: ")

    def test_a_plugin_that_is_not_installed_is_told_where_it_is_asked_for(
        self, tmp_path: Path, third_party: Install
    ) -> None:
        third_party({"step.halve": "halves:halve"}, halves="import no_such_package")
        (line,) = lines_of(tmp_path, changed("- finetune", "- halve"))
        assert line.startswith("r.yaml:14: variants.small[1]: step 'halve' cannot be imported: ")
        assert "install what acme needs" in line

    def test_a_plugin_that_is_broken_is_not_blamed_on_the_recipe(
        self, tmp_path: Path, third_party: Install
    ) -> None:
        third_party({"step.halve": "halves:halve"}, halves="1 / 0")
        with pytest.raises(PluginError, match="fails on import"):
            read(tmp_path, changed("- finetune", "- halve"))

    def test_a_default_that_is_not_installed_is_told(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        less = {key: path for key, path in registry.BUILTIN.items() if key[0] != "runtime"}
        monkeypatch.setattr(registry, "BUILTIN", less)
        monkeypatch.setattr(registry, "table", lambda: dict.fromkeys(less, ("", "built-in")))
        text = changed("targets:\n  - name: edge\n    runtime: onnxruntime-cpu\n", "")
        (line,) = lines_of(tmp_path, text)
        assert line.startswith("r.yaml:1: targets[0].runtime: unknown runtime 'onnxruntime-cpu'")


class Inner(Params):
    deep: int = 0


class Odd(Params):
    """Parameters that pydantic finds several mistakes in where a user made one."""

    either: float | Literal["auto"] = "auto"
    mode: Inner | str = ""
    wait: Duration | float = 0.0
    many: list[Inner] | None = None
    pair: tuple[int, int] = (0, 0)
    by_name: dict[str, Inner] = Field({})


@pytest.mark.parametrize(
    ("given", "key", "said"),
    [
        ({"either": "fast"}, ("either",), "must be a number, or 'auto', not 'fast'"),
        ({"either": [1]}, ("either",), "must be a number, or 'auto', not a list"),
        ({"mode": 5}, ("mode",), "must be a mapping of keys to values, or text, not 5"),
        ({"mode": {"dep": 1}}, ("mode", "dep"), "unknown key 'dep'"),
        ({"mode": {"deep": "x"}}, ("mode", "deep"), "must be a whole number, not 'x'"),
        ({"wait": "2"}, None, None),
        ({"wait": "two"}, ("wait",), "'two' is not a number with a unit"),
        ({"many": [{"deep": "x"}]}, ("many", 0, "deep"), "must be a whole number, not 'x'"),
        ({"many": [{}, {"dep": 1}]}, ("many", 1, "dep"), "unknown key 'dep'"),
        ({"pair": 5}, ("pair",), "must be a list, not 5"),
        ({"pair": [1]}, ("pair",), "must have at least 2 items"),
        ({"by_name": {"a": {"dep": 1}}}, ("by_name", "a", "dep"), "unknown key 'dep'"),
        ({"by_name": {"a": None}}, ("by_name", "a"), "must be a mapping of keys to values, but "),
    ],
)
def test_one_mistake_is_one_finding(
    given: dict[str, Any], key: tuple[str | int, ...] | None, said: str | None
) -> None:
    if key is None or said is None:
        Odd.model_validate(given)
        return
    with pytest.raises(ValidationError) as caught:
        Odd.model_validate(given)
    (found,) = explain(caught.value, Odd, given)
    assert found.key == key
    assert found.problem.startswith(said)
    assert found.mend == ("did you mean 'deep'?" if "unknown" in said else "")


class TestReading:
    def test_a_good_recipe_is_read_as_it_is_meant(self, tmp_path: Path) -> None:
        source = recipe.read(write(tmp_path, GOOD))
        made = source.recipe
        assert source.folder == tmp_path
        assert made.gates.drop is not None
        assert made.gates.size is not None
        assert (made.gates.drop.limit, made.gates.size.limit) == (0.01, 150_000)
        assert [name for name, _ in made.gates.items()] == ["drop", "size"]
        assert made.variants["small"][0] == StepUse(name="prune", parameters={"ratio": "50 %"})
        assert made.variants["small"][1] == StepUse(name="finetune")
        assert made.exports[0].name == "onnx"
        assert made.targets == [TargetSpec(name="edge", runtime="onnxruntime-cpu")]

    def test_every_use_is_listed_with_its_place(self, tmp_path: Path) -> None:
        source = recipe.read(write(tmp_path, GOOD))
        places = {source.where(*key).rpartition(": ")[2]: use for key, use in source.recipe.uses()}
        assert {place: use.name for place, use in places.items()} == {
            "data": "python",
            "metrics[0]": "accuracy",
            "variants.small[0]": "prune",
            "variants.small[1]": "finetune",
            "variants.int8[0]": "quantize",
            "exports[0]": "onnx",
        }

    def test_short_forms_mean_the_same_as_long_ones(self, tmp_path: Path) -> None:
        short = changed("- name: edge\n    runtime: onnxruntime-cpu", "- onnxruntime-cpu")
        long = changed("name: edge", "name: onnxruntime-cpu\n    threads: 1\n    batch: 1")
        long = long.replace("- finetune", "- finetune: {}").replace("- accuracy", "- accuracy:")
        long = long.replace("drop: 1 %", "drop: {limit: 0.01, strict: false}")
        assert read(tmp_path, short) == read(tmp_path, long)
        assert read(tmp_path, short).digest() == read(tmp_path, long).digest()

    def test_a_target_may_be_named_after_its_runtime(self, tmp_path: Path) -> None:
        text = changed("- name: edge\n    runtime: onnxruntime-cpu", "- runtime: onnxruntime-cpu")
        assert read(tmp_path, text).targets == [TargetSpec(name="onnxruntime-cpu")]

    def test_a_step_may_repeat(self, tmp_path: Path) -> None:
        text = changed(
            "    - quantize", "    - finetune\n    - prune: {ratio: 9 %}\n    - finetune"
        )
        names = [step.name for step in read(tmp_path, text).variants["int8"]]
        assert names == ["finetune", "prune", "finetune"]

    def test_anchors_and_merges_are_resolved(self, tmp_path: Path) -> None:
        text = changed("variants:", "x-half: &half {ratio: 10 %, round_to: 4}\nvariants:")
        text = text.replace("ratio: 50 %", "<<: *half\n        ratio: 50 %")
        parameters = read(tmp_path, text).variants["small"][0].parameters
        assert parameters == {"ratio": "50 %", "round_to": 4}

    def test_an_included_file_is_completed_and_overridden(self, tmp_path: Path) -> None:
        (tmp_path / "base.yaml").write_text(GOOD)
        made = read(tmp_path, "include: base.yaml\ngates: {drop: 2 %}\nseed: 7\n")
        assert made.name == "demo"
        assert made.seed == 7
        assert [name for name, _ in made.gates.items()] == ["drop"]

    def test_a_plugin_of_somebody_else_is_checked_like_our_own(
        self, tmp_path: Path, third_party: Install
    ) -> None:
        source = (
            "from lepton_compress.registry import Params, plugin\n"
            "class Halve(Params):\n    by: int = 2\n"
            "@plugin('step', 'halve', Halve, form='module')\n"
            "def halve(model, params, context):\n    'Halves.'\n"
        )
        third_party({"step.halve": "halves:halve"}, halves=source)
        assert (
            read(tmp_path, changed("- finetune", "- halve: {by: 3}")).variants["small"][1].bound()
        )
        (line,) = lines_of(tmp_path, changed("- finetune", "- halve: {bye: 3}"))
        assert line.endswith("halve.bye: unknown key 'bye'; did you mean 'by'?")

    def test_the_digest_covers_every_value(self, tmp_path: Path) -> None:
        before = read(tmp_path, GOOD).digest()
        for old, new in [("demo", "omed"), ("50 %", "51 %"), ("150 KB", "150 KiB"), ("1 %", "2 %")]:
            assert read(tmp_path, changed(old, new)).digest() != before
        assert read(tmp_path, "# a comment\n" + GOOD).digest() == before

    @pytest.mark.parametrize(
        "text", ["", "\t", "- a", "a: !!python/object:os.system {}", "a: [", "a: &a [*a]"]
    )
    def test_what_is_no_document_is_refused(self, tmp_path: Path, text: str) -> None:
        assert lines_of(tmp_path, text)[0].startswith("r.yaml")

    def test_a_folder_is_refused(self, tmp_path: Path) -> None:
        with pytest.raises(RecipeError, match="cannot be read"):
            recipe.read(tmp_path)


def models() -> Iterator[type[BaseModel]]:
    for module in (recipe, registry):
        for _, each in inspect.getmembers(module, inspect.isclass):
            if issubclass(each, BaseModel) and each.__module__.startswith("lepton_compress"):
                yield each


class TestFrozen:
    @pytest.mark.parametrize("model", sorted(set(models()), key=str))
    def test_every_model_is_frozen_and_strict_about_keys(self, model: type[BaseModel]) -> None:
        assert model.model_config["frozen"] is True
        assert model.model_config["extra"] == "forbid"
        assert model.model_config["allow_inf_nan"] is False

    def test_a_recipe_cannot_be_changed(self, tmp_path: Path) -> None:
        made = read(tmp_path, GOOD)
        with pytest.raises(ValidationError, match="frozen"):
            made.seed = 1  # type: ignore[misc]
        with pytest.raises(ValidationError, match="frozen"):
            made.variants["small"][0].name = "other"

    def test_defaults_are_not_shared(self, tmp_path: Path) -> None:
        one, other = read(tmp_path, GOOD), read(tmp_path, GOOD)
        assert one.exports is not other.exports
        assert one.variants["int8"][0].parameters is not other.variants["int8"][0].parameters


@pytest.fixture(scope="module")
def schema() -> dict[str, Any]:
    return recipe.json_schema()


class TestSchema:
    def wrong(self, schema: dict[str, Any], text: str) -> list[str]:
        validator = jsonschema.Draft202012Validator(schema)
        return [error.message for error in validator.iter_errors(yaml.safe_load(text))]

    def test_it_is_a_schema(self, schema: dict[str, Any]) -> None:
        jsonschema.Draft202012Validator.check_schema(schema)
        assert schema["title"] == "lepton-compress recipe"

    @pytest.mark.parametrize(
        ("old", "new"),
        [
            ("name: demo", "name: demo"),
            ("name: demo", "name: demo\nx-any: [thing]"),
            ("- name: edge\n    runtime: onnxruntime-cpu", "- onnxruntime-cpu"),
            ("- name: edge\n    runtime: onnxruntime-cpu", "- runtime: onnxruntime-cpu"),
            ("    runtime: onnxruntime-cpu", "    threads: 2"),
            ("- finetune", "- finetune:"),
            ("- accuracy", "- top_k: {k: 3}"),
            ("drop: 1 %", "drop: 0.01"),
            ("drop: 1 %", "latency: 1.5e3 us"),
            ("drop: 1 %", "latency: {limit: 2 ms, percentile: p90, strict: true}"),
            ("version: 1\n", "version: 1\ninclude: [base.yaml]\n"),
        ],
    )
    def test_it_takes_a_good_recipe(
        self, tmp_path: Path, schema: dict[str, Any], old: str, new: str
    ) -> None:
        assert self.wrong(schema, changed(old, new)) == []
        if "include" not in new:
            read(tmp_path, changed(old, new))

    def test_an_include_may_bring_what_is_missing(self, schema: dict[str, Any]) -> None:
        assert self.wrong(schema, "include: base.yaml\nname: other\n") == []
        assert self.wrong(schema, "name: other\n") != []

    @pytest.mark.parametrize(
        "mistake",
        [each for each in MISTAKES if each.get("schema", True)],
        ids=lambda each: each["said"],
    )
    def test_it_refuses_a_bad_one(self, schema: dict[str, Any], mistake: dict[str, str]) -> None:
        assert self.wrong(schema, changed(mistake["old"], mistake["new"])) != []

    def test_it_takes_plugins_of_somebody_else(self, third_party: Install) -> None:
        # The same class name as a built-in's, and a nested model.
        source = (
            "from lepton_compress.registry import Params, plugin\n"
            "class Inner(Params):\n    deep: int = 0\n"
            "class Prune(Params):\n    inner: Inner\n"
            "@plugin('step', 'halve', Prune, form='module')\n"
            "def halve(model, params, context):\n    'Halves.'\n"
        )
        entries = {"step.halve": "halves:halve", "step.absent": "absent:absent"}
        third_party(entries, halves=source)
        schema = recipe.json_schema()
        jsonschema.Draft202012Validator.check_schema(schema)
        assert self.wrong(schema, changed("- finetune", "- halve: {inner: {deep: 1}}")) == []
        assert self.wrong(schema, changed("- finetune", "- halve: {inner: {dep: 1}}")) != []
        assert self.wrong(schema, changed("- finetune", "- halve")) != []
        assert self.wrong(schema, changed("- finetune", "- absent")) != []


class TestListsOfBatchesAndThreads:
    EDGE = "- name: edge\n    runtime: onnxruntime-cpu"

    def targets(self, folder: Path, more: str) -> list[TargetSpec]:
        return read(folder, changed(self.EDGE, f"{self.EDGE}\n    {more}")).targets

    def test_each_pair_is_a_target(self, tmp_path: Path) -> None:
        found = self.targets(tmp_path, "batch: [1, 8]\n    threads: [1, 2]")
        assert [(each.name, each.batch, each.threads) for each in found] == [
            ("edge/b1/t1", 1, 1),
            ("edge/b1/t2", 1, 2),
            ("edge/b8/t1", 8, 1),
            ("edge/b8/t2", 8, 2),
        ]
        assert {each.runtime for each in found} == {"onnxruntime-cpu"}

    def test_a_name_says_what_is_listed(self, tmp_path: Path) -> None:
        assert [each.name for each in self.targets(tmp_path, "batch: [4]")] == ["edge/b4"]

    @pytest.mark.parametrize(
        ("written", "said"),
        [
            ("batch: []", "targets[0].batch: must not be empty"),
            ("batch: [2, 2]", "targets[0].batch: 2 stands twice"),
            ("batch: [0]", "targets[0].batch[0]: must be at least 1, not 0"),
        ],
    )
    def test_a_bad_list_is_told_where_it_stands(
        self, tmp_path: Path, written: str, said: str
    ) -> None:
        with pytest.raises(RecipeError) as caught:
            self.targets(tmp_path, written)
        assert said in str(caught.value)

    @pytest.mark.parametrize(
        ("name", "held"), [("edge", 4), ("edge/b8", 2), ("edge/b8/t2", 1), ("edge/b1/t2", 1)]
    )
    def test_a_gate_holds_on_all_that_its_name_covers(
        self, tmp_path: Path, name: str, held: int
    ) -> None:
        text = changed(self.EDGE, f"{self.EDGE}\n    batch: [1, 8]\n    threads: [1, 2]")
        text = text.replace("gates:", f"gates:\n  latency: {{limit: 2 ms, targets: [{name}]}}")
        made = read(tmp_path, text)
        assert made.gates.latency is not None
        assert sum(made.gates.latency.holds_on(each.name) for each in made.targets) == held

    def test_a_gate_on_no_target_is_told(self, tmp_path: Path) -> None:
        text = changed(self.EDGE, f"{self.EDGE}\n    batch: [1, 8]")
        text = text.replace("gates:", "gates:\n  latency: {limit: 2 ms, targets: [edge/b4]}")
        with pytest.raises(RecipeError, match="unknown target 'edge/b4'; did you mean 'edge/b"):
            read(tmp_path, text)
