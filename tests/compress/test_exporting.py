"""Groups whose removal breaks the export alone are found and named."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from lepton_compress.artifacts import Model
from lepton_compress.compress import exporting
from lepton_compress.compress.channels import find_groups
from lepton_compress.compress.groups import choose
from lepton_compress.errors import InputError
from lepton_compress.load import forms
from tests.compress.modules import Plain, apply, model_of

X = {"x": np.random.default_rng(1).normal(size=(2, 1, 6, 6)).astype(np.float32)}


def refusing(*layers: str) -> Callable[[Model], Model]:
    """An exporter that knows some layers by their whole width alone."""

    def lower(model: Model) -> Model:
        for layer in layers:
            if len(model.value.get_submodule(layer).weight) != 16:
                raise InputError(f"{layer} must be 16 wide", where="model")
        return forms.duplicate(model)

    return lower


def blamed(lower: Callable[[Model], Model]) -> dict[str, str]:
    model = model_of(Plain)
    groups, _ = find_groups(model.value, X, set())
    kept = choose(groups, 0.5, "local", 1)
    return exporting.faults(model, groups, kept, X, lower)


def test_nothing_is_blamed_where_all_is_well() -> None:
    assert blamed(refusing()) == {}


@pytest.mark.parametrize("layers", [("first",), ("hidden",), ("first", "hidden")])
def test_those_to_blame_are_named(layers: tuple[str, ...]) -> None:
    found = blamed(refusing(*layers))
    assert set(found) == set(layers)
    assert found[layers[0]] == (
        f"without its channels the model cannot be exported ({layers[0]} must be 16 wide)"
    )


def test_a_graph_that_computes_something_else() -> None:
    def lower(model: Model) -> Model:
        made = forms.duplicate(model)
        if len(made.value.second.weight) != 16:
            made.value.scores.bias.data += 9
        return made

    assert blamed(lower) == {
        "second": "without its channels the exported graph computes something else"
    }


def test_a_model_that_cannot_be_exported_at_all_is_no_groups_fault() -> None:
    def lower(model: Model) -> Model:
        raise InputError("no", where="model")

    assert blamed(lower) == {}


@pytest.mark.slow
def test_the_real_exporter_takes_what_is_pruned() -> None:
    outcome = apply("prune", model_of(Plain), ratio="50 %", scope="local", exports=True)
    assert outcome.notes == ()
    assert outcome.statistics["channels"] == {
        "first": [16, 8],
        "second": [16, 8],
        "hidden": [16, 8],
    }
