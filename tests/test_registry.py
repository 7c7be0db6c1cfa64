"""Plug-ins: built in or somebody else's, found by name, and told apart from what is broken."""

from __future__ import annotations

import importlib
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from pydantic import ValidationError

from lepton_compress import registry
from lepton_compress.errors import LeptonError, MissingExtraError, PluginError, RecipeError
from lepton_compress.registry import BUILTIN, KINDS, Params, Plugin, plugin

if TYPE_CHECKING:
    from tests.conftest import Install

HALVE = """
from lepton_compress.registry import Params, plugin

class Halve(Params):
    by: int = 2

@plugin("step", "halve", Halve, form="module", requires=lambda params, targets: ["no"])
def halve(model, params, context):
    '''Halves everything.

    More about it.
    '''

@plugin("metric", "loss", Params)
def loss(outputs, targets, params, folder): ...

unmarked = len
"""


class TestBuiltIn:
    @pytest.mark.parametrize(("kind", "name"), BUILTIN)
    def test_each_resolves_to_itself_and_says_what_it_does(self, kind: str, name: str) -> None:
        found = registry.get(kind, name)
        assert (found.kind, found.name, found.origin) == (kind, name, "built-in")
        assert issubclass(found.params, Params)
        assert found.summary

    @pytest.mark.parametrize(("kind", "name"), BUILTIN)
    def test_each_parameter_model_is_strict_about_keys(self, kind: str, name: str) -> None:
        with pytest.raises(ValidationError, match="Extra inputs are not permitted"):
            registry.get(kind, name).params.model_validate({"no such key": 1})

    def test_resolving_all_imports_no_framework(self) -> None:
        code = (
            "import sys; from lepton_compress import registry\n"
            "for kind, name in registry.BUILTIN: registry.get(kind, name)\n"
            "print({'torch', 'onnx', 'onnxruntime', 'numpy', 'sklearn'} & set(sys.modules))"
        )
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)
        assert done.stdout.decode().strip() == "set()"

    def test_names_are_sorted_and_of_one_kind(self) -> None:
        assert registry.names("exporter") == ["executorch", "litert", "onnx"]
        assert registry.names("metric") == sorted(registry.names("metric"))
        assert "prune" not in registry.names("metric")

    def test_every_kind_has_one(self) -> None:
        assert {kind for kind, _ in BUILTIN} == set(KINDS)


class TestDeclaring:
    def test_an_unknown_kind_is_refused(self) -> None:
        with pytest.raises(PluginError, match="unknown plug-in kind 'stp'; kinds are step, "):
            plugin("stp", "x", Params)  # type: ignore[arg-type]

    @pytest.mark.parametrize("form", ["", "program", "Module"])
    def test_a_step_says_which_form_it_takes(self, form: str) -> None:
        with pytest.raises(PluginError, match="step 'x' must say form"):
            plugin("step", "x", Params, form=form)

    def test_from_a_graph_no_module_follows(self) -> None:
        with pytest.raises(PluginError, match="step 'x' cannot give 'module': from a graph only"):
            plugin("step", "x", Params, form="graph", gives="module")

    def test_the_function_stays_what_it_was(self) -> None:
        def f(x: int) -> int:
            return x + 1

        assert plugin("metric", "f", Params)(f) is f
        assert f(1) == 2
        made = f.__lepton_plugin__  # type: ignore[attr-defined]
        assert made == Plugin("metric", "f", Params, f)

    def test_parameters_are_frozen_strict_and_finite(self) -> None:
        class Some(Params):
            value: float = 1.0

        with pytest.raises(ValidationError, match="frozen"):
            Some().value = 2.0  # type: ignore[misc]
        with pytest.raises(ValidationError, match="Extra inputs"):
            Some.model_validate({"valeu": 1})
        with pytest.raises(ValidationError, match="finite"):
            Some(value=float("nan"))


class TestThirdParty:
    def test_its_plugins_stand_beside_the_built_in(self, third_party: Install) -> None:
        third_party({"step.halve": "halves:halve", "metric.loss": "halves:loss"}, halves=HALVE)
        assert "halve" in registry.names("step")
        assert "prune" in registry.names("step")
        halve = registry.get("step", "halve")
        assert (halve.origin, halve.form, halve.summary) == ("acme", "module", "Halves everything.")
        assert halve.requires is not None
        assert halve.requires(None, ()) == ["no"]
        assert registry.get("metric", "loss").summary == ""

    def test_they_are_gone_with_the_distribution(self) -> None:
        assert "halve" not in registry.names("step")

    def test_they_are_imported_on_use_alone(self, third_party: Install) -> None:
        third_party({"step.halve": "halves:halve"}, halves="raise SystemExit('imported')")
        assert "halve" in registry.names("step")
        assert "halves" not in sys.modules

    def test_extras_behind_the_path_are_for_installers(self, third_party: Install) -> None:
        third_party({"step.halve": "halves:halve [gpu]"}, halves=HALVE)
        assert registry.get("step", "halve").name == "halve"

    @pytest.mark.parametrize("entry", ["halve", "stp.halve", "step.", ".halve"])
    def test_a_malformed_entry_names_its_distribution(
        self, third_party: Install, entry: str
    ) -> None:
        third_party({entry: "halves:halve"}, halves=HALVE)
        with pytest.raises(PluginError, match=r"of acme is not named kind\.name; kinds are"):
            registry.table()

    def test_a_built_in_name_cannot_be_taken(self, third_party: Install) -> None:
        third_party({"step.prune": "halves:halve"}, halves=HALVE)
        with pytest.raises(
            PluginError, match="step 'prune' is offered twice, by built-in and acme; uninstall one"
        ):
            registry.table()

    def test_two_distributions_cannot_share_a_name(self, third_party: Install) -> None:
        third_party({"step.halve": "halves:halve"}, halves=HALVE)
        third_party({"step.halve": "other:halve"}, name="other-co", other=HALVE)
        with pytest.raises(PluginError, match="step 'halve' is offered twice") as caught:
            registry.names("step")
        assert "acme" in str(caught.value)
        assert "other-co" in str(caught.value)

    def test_kinds_have_names_of_their_own(self, third_party: Install) -> None:
        source = HALVE.replace('"loss"', '"prune"')
        third_party({"metric.prune": "halves:loss"}, halves=source)
        assert registry.get("metric", "prune").origin == "acme"
        assert registry.get("step", "prune").origin == "built-in"

    @pytest.mark.parametrize(
        ("path", "source", "kind", "said"),
        [
            ("halves:halve", "import no_such_package", MissingExtraError, "no_such_package"),
            ("absent:halve", "", MissingExtraError, "install what acme needs"),
            ("halves:halve", "1 / 0", PluginError, "fails on import: ZeroDivisionError"),
            ("halves:halve", "def (", PluginError, "fails on import: SyntaxError"),
            ("halves:absent", HALVE, PluginError, "is not the step 'halve'"),
            ("halves:unmarked", HALVE, PluginError, "is not the step 'halve'"),
            ("halves:loss", HALVE, PluginError, "is not the step 'halve'"),
            ("halves", HALVE, PluginError, "is not the step 'halve'"),
        ],
    )
    def test_a_broken_one_says_so_when_it_is_used(
        self, third_party: Install, path: str, source: str, kind: type[LeptonError], said: str
    ) -> None:
        third_party({"step.halve": path}, halves=source)
        assert registry.get("metric", "accuracy").name == "accuracy"
        with pytest.raises(kind, match=said) as caught:
            registry.get("step", "halve")
        assert "acme" in str(caught.value)

    def test_the_fixture_makes_what_python_itself_finds(self, third_party: Install) -> None:
        folder = third_party({"step.halve": "halves:halve"}, halves=HALVE)
        module = importlib.import_module("halves")
        assert Path(str(module.__file__)).parent == folder


@pytest.mark.parametrize(
    ("kind", "name", "said"),
    [
        ("step", "prun", "unknown step 'prun'; did you mean 'prune'?"),
        ("step", "Quantise", "unknown step 'Quantise'; did you mean 'quantize'?"),
        ("exporter", "xyz", "unknown exporter 'xyz'; known are executorch, litert, onnx"),
        ("colour", "red", "unknown colour 'red'; known are none"),
    ],
)
def test_an_unknown_name_suggests_the_nearest(kind: str, name: str, said: str) -> None:
    with pytest.raises(RecipeError) as caught:
        registry.get(kind, name)
    assert str(caught.value) == said
