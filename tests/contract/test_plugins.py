"""What every plug-in keeps to, whatever its kind."""

from __future__ import annotations

import inspect
import subprocess
import sys
import typing
from collections.abc import Iterator
from typing import Any

import pytest
from pydantic import BaseModel, ValidationError

from lepton_compress import recipe, registry
from lepton_compress.registry import BUILTIN, Params
from tests.contract.needed import PARAMETERS, PLUGINS, parameters
from tests.test_import_rules import FRAMEWORKS

GIVEN = {
    "step": ["model", "params", "context"],
    "exporter": ["model", "params", "folder"],
    "runtime": ["path", "threads"],
    "metric": ["outputs", "targets", "params", "folder"],
    "loader": ["params", "folder", "seed"],
    "preprocessing": ["params", "raw", "folder"],
    "postprocessing": ["params", "made", "folder"],
}


def inner(model: type[BaseModel]) -> Iterator[type[BaseModel]]:
    """A parameter model and those that its fields hold."""
    yield model
    for field in model.model_fields.values():
        waiting: list[Any] = [field.annotation]
        while waiting:
            each = waiting.pop()
            if isinstance(each, type) and issubclass(each, BaseModel):
                yield from inner(each)
            waiting += typing.get_args(each)


OUTER: list[type[BaseModel]] = [recipe.Recipe]
OUTER += [registry.get(*each).params for each in PLUGINS]
MODELS = {made for outer in OUTER for made in inner(outer)}


def test_every_built_in_is_covered() -> None:
    assert set(BUILTIN) <= set(PLUGINS)
    assert set(PARAMETERS) <= set(PLUGINS), "a line in the table is left over"


@pytest.mark.parametrize(("kind", "name"), PLUGINS)
def test_it_says_what_it_does_in_a_line(kind: str, name: str) -> None:
    first = (inspect.getdoc(registry.get(kind, name).function) or "").split("\n")[0]
    assert first.endswith((".", ";")) or first[-1:].isalnum() or first[-1:] == ")"
    assert 10 < len(first) <= 100
    assert first == registry.get(kind, name).summary


@pytest.mark.parametrize(("kind", "name"), PLUGINS)
def test_it_takes_what_its_kind_is_given(kind: str, name: str) -> None:
    plugin = registry.get(kind, name)
    taken = inspect.signature(plugin.function).parameters.values()
    given = ["path", "params"] if plugin.simulates else GIVEN[kind]
    # What has a default is for those who know this very plug-in.
    assert [each.name for each in taken if each.default is each.empty] == given


@pytest.mark.parametrize(("kind", "name"), PLUGINS)
def test_its_parameters_cannot_be_changed(kind: str, name: str) -> None:
    params = parameters(kind, name)
    assert isinstance(params, Params)
    for field in type(params).model_fields:
        with pytest.raises(ValidationError, match="frozen"):
            setattr(params, field, None)


@pytest.mark.parametrize(("kind", "name"), PLUGINS)
def test_an_unknown_parameter_is_refused(kind: str, name: str) -> None:
    given = PARAMETERS.get((kind, name), {}) | {"no_such_parameter": 1}
    with pytest.raises(ValidationError, match="no_such_parameter"):
        registry.get(kind, name).params.model_validate(given)


@pytest.mark.parametrize(("kind", "name"), PLUGINS)
def test_its_parameters_can_be_written_into_a_key(kind: str, name: str) -> None:
    params = parameters(kind, name)
    assert parameters(kind, name) == params
    assert params.model_dump(mode="json") == params.model_dump(mode="json")


@pytest.mark.parametrize("model", sorted(MODELS, key=str), ids=lambda model: model.__name__)
def test_every_key_is_described(model: type[BaseModel]) -> None:
    assert model.model_config.get("frozen")
    assert model.model_config.get("extra") == "forbid"
    undescribed = [name for name, field in model.model_fields.items() if not field.description]
    assert undescribed == []


def test_no_face_imports_a_framework() -> None:
    modules = sorted({path.partition(":")[0] for path, _ in registry.table().values()})
    code = f"import sys, {', '.join(modules)}; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True)
    loaded = set(done.stdout.split())
    assert set(modules) <= loaded
    assert loaded & FRAMEWORKS == set()
