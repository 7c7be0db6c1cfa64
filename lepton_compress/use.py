"""A plug-in as a recipe names it: its name, and its parameters if it has any."""

from __future__ import annotations

from typing import Any, ClassVar, Self

from pydantic import (
    BaseModel,
    Field,
    GetJsonSchemaHandler,
    ValidationError,
    ValidationInfo,
    model_validator,
)
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema

from lepton_compress import registry
from lepton_compress.errors import LeptonError, MissingExtraError, RecipeError
from lepton_compress.findings import Finding, FindingsError, explain
from lepton_compress.registry import Params

FROM_FILE = "from a file"
"""Validation context: look up every plug-in and check its parameters as well, and refuse keys with
nothing behind them, which a person left unfinished."""


def _in_two_parts(names: list[str]) -> list[dict[str, Any]]:
    """The schema of `quantize: auto` for `quantize_auto`."""
    found: dict[str, list[str]] = {}
    for name in names:
        first, _, second = name.partition("_")
        if first in names and second:
            found.setdefault(first, []).append(second)
    return [
        {
            "type": "object",
            "properties": {first: {"enum": words}},
            "required": [first],
            "additionalProperties": False,
        }
        for first, words in found.items()
    ]


class Use(BaseModel):
    """A plug-in by name with its parameters: `name`, or `name: {parameter: value}`.

    Of a name in two parts, such as `quantize_auto`, `quantize: auto` is another spelling.
    """

    model_config = Params.model_config
    kind: ClassVar[str]

    name: str = Field(description="Of the plug-in.")
    parameters: dict[str, Any] = Field({}, description="Of the plug-in.")

    @model_validator(mode="before")
    @classmethod
    def _read(cls, given: Any) -> Any:
        if isinstance(given, str):
            return {"name": given}
        if isinstance(given, Use):
            return {"name": given.name, "parameters": given.parameters}
        if isinstance(given, dict) and len(given) == 1:
            ((name, parameters),) = given.items()
            if isinstance(parameters, str) and f"{name}_{parameters}" in registry.names(cls.kind):
                return {"name": f"{name}_{parameters}"}
            if parameters is None or isinstance(parameters, dict):
                return {"name": name, "parameters": parameters or {}}
        if isinstance(given, dict) and {"name"} <= set(given) <= {"name", "parameters"}:
            return given
        problem = f"must be the name of one {cls.kind}, or that name with its parameters"
        mend = "write `name`, or `name: {parameter: value}`"
        if isinstance(given, dict) and None in given.values():
            mend = "indent the parameters further than the name"
        raise FindingsError([Finding((), problem, mend)])

    @model_validator(mode="after")
    def _check(self, info: ValidationInfo) -> Self:
        if info.context == FROM_FILE and (found := self.problems()):
            raise FindingsError(found)
        return self

    @classmethod
    def __get_pydantic_json_schema__(
        cls, core: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        # Written as the user writes it, one alternative for each plug-in of the kind.
        bare, full = [], []
        for name in registry.names(cls.kind):
            try:
                plugin = registry.get(cls.kind, name)
            except LeptonError:
                continue  # its package is broken or absent here; others stay usable
            schema = handler(plugin.params.__pydantic_core_schema__)
            if not any(field.is_required() for field in plugin.params.model_fields.values()):
                bare.append(name)
                schema = {"anyOf": [schema, {"type": "null"}]}
            full.append(
                {
                    "type": "object",
                    "description": plugin.summary,
                    "properties": {name: schema},
                    "required": [name],
                    "additionalProperties": False,
                }
            )
        return {"anyOf": [{"enum": bare}, *_in_two_parts(bare), *full]}

    def bound(self) -> Params:
        """The parameters, checked against the plug-in's model.

        Raises:
            RecipeError: the plug-in is unknown.
            pydantic.ValidationError: a parameter is wrong.
        """
        return registry.get(self.kind, self.name).params.model_validate(self.parameters)

    def problems(self) -> list[Finding]:
        """What is wrong with the name or the parameters."""
        try:
            self.bound()
        except ValidationError as error:
            model = registry.get(self.kind, self.name).params
            found = explain(error, model, self.parameters)
            return [each._replace(key=(self.name, *each.key)) for each in found]
        except (RecipeError, MissingExtraError) as error:
            return [Finding((), error.problem, error.mend)]
        return []
