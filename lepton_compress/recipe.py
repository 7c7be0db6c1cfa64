"""What the user writes: one model, one dataset, variants of it, where it must run, and the gates.

The models below are the recipe, its JSON schema and its reference documentation in one. They are
frozen, unknown keys are errors, and nothing here imports a framework.
"""

from __future__ import annotations

import types
import typing
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import (
    BaseModel,
    BeforeValidator,
    Field,
    GetJsonSchemaHandler,
    ValidationError,
    ValidationInfo,
    model_validator,
)
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema

from lepton_compress import registry
from lepton_compress.document import Document, Key, read_document
from lepton_compress.errors import LeptonError, RecipeError
from lepton_compress.provenance import digest
from lepton_compress.registry import Params
from lepton_compress.units import Duration, Factor, Percent, Size

VERSION = 1
BASELINE = "baseline"
"""The candidate that no step has touched."""

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]


class Use(BaseModel):
    """A plug-in by name with its parameters: `name`, or `name: {parameter: value}`."""

    model_config = Params.model_config
    kind: ClassVar[str]

    name: str
    parameters: dict[str, Any] = {}

    @model_validator(mode="before")
    @classmethod
    def _read(cls, given: Any) -> Any:
        if isinstance(given, str):
            return {"name": given}
        if isinstance(given, Use):
            return {"name": given.name, "parameters": given.parameters}
        if isinstance(given, dict) and len(given) == 1:
            ((name, parameters),) = given.items()
            if parameters is None or isinstance(parameters, dict):
                return {"name": name, "parameters": parameters or {}}
        if isinstance(given, dict) and set(given) == {"name", "parameters"}:
            return given
        raise ValueError(
            f"expected the name of a {cls.kind}, or one name with its parameters in a mapping"
        )

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
            full.append(
                {
                    "type": "object",
                    "description": plugin.summary,
                    "properties": {name: schema},
                    "required": [name],
                    "additionalProperties": False,
                }
            )
        return {"anyOf": [{"enum": bare}, *full] if bare else full}

    def bound(self) -> Params:
        """The parameters, checked against the plug-in's model.

        Raises:
            RecipeError: the plug-in is unknown.
            pydantic.ValidationError: a parameter is wrong.
        """
        return registry.get(self.kind, self.name).params.model_validate(self.parameters)


class StepUse(Use):
    kind = "step"


class LoaderUse(Use):
    kind = "loader"


class MetricUse(Use):
    kind = "metric"


class ExporterUse(Use):
    kind = "exporter"


class ModelSpec(Params):
    """The trained model: a Python factory, an exported program, or an ONNX file."""

    factory: str | None = Field(
        None,
        description="`path/to/file.py:name` or `package.module:name` of a function or class "
        "that returns a torch.nn.Module.",
    )
    args: dict[str, Any] = Field({}, description="Keyword arguments of the factory.")
    weights: str | None = Field(
        None,
        description="A .safetensors file, or a torch checkpoint with a state dict in it.",
    )
    program: str | None = Field(None, description="A .pt2 file made by torch.export.save.")
    onnx: str | None = Field(None, description="An .onnx file.")
    outputs: list[Name] = Field([], description="Names for the outputs, in order.")

    @model_validator(mode="after")
    def _one(self) -> Self:
        given = [each for each in ("factory", "program", "onnx") if getattr(self, each)]
        if len(given) != 1:
            said = " and ".join(given) or "none"
            raise ValueError(f"exactly one of factory, program and onnx must be given, not {said}")
        if self.factory is None and (self.weights or self.args):
            raise ValueError("weights and args go with a factory")
        return self


class TargetSpec(Params):
    """A place where the model is to run, with how it is called there."""

    name: Name
    runtime: str = "onnxruntime-cpu"
    threads: Annotated[int, Field(ge=1, le=1024)] = 1
    batch: Annotated[int, Field(ge=1, le=65536)] = Field(1, description="Samples in one call.")


def _read_target(given: Any) -> Any:
    if isinstance(given, str):
        return {"name": given, "runtime": given}
    if isinstance(given, dict) and "name" not in given and "runtime" in given:
        return {"name": given["runtime"], **given}
    return given


class Gate(Params):
    """A limit. Short form: the limit alone."""

    strict: bool = Field(
        False, description="Judge by the whole confidence interval instead of the measured point."
    )
    targets: list[Name] = Field([], description="Only on these targets; empty means on each.")

    @model_validator(mode="before")
    @classmethod
    def _short(cls, given: Any) -> Any:
        return {"limit": given} if isinstance(given, (str, int, float)) else given


def _read_share(given: Any, info: ValidationInfo) -> Any:
    if isinstance(given, (int, float)) and not isinstance(given, bool):
        return given
    from lepton_compress.units import PERCENT, parse

    return parse(given, PERCENT, "1 %")


Share = Annotated[float, BeforeValidator(_read_share, json_schema_input_type=str | float)]
"""In the metric's own unit: a number, or `1 %` for metrics that are shares."""


class ScoreGate(Gate):
    """Of a metric: its value, or its drop against the baseline."""

    limit: Share
    metric: str | None = Field(None, description="Which metric; the recipe's first by default.")


class SizeGate(Gate):
    limit: Size


class FactorGate(Gate):
    limit: Factor


class LatencyGate(Gate):
    limit: Duration
    percentile: Literal["p50", "p90", "p99"] = "p50"


class DurationGate(Gate):
    limit: Duration


class Gates(Params):
    """What an artifact must satisfy to be chosen. Each gate stands at most once."""

    score: ScoreGate | None = Field(None, description="At least this score (at most, for errors).")
    drop: ScoreGate | None = Field(None, description="At most this much worse than the baseline.")
    size: SizeGate | None = Field(None, description="At most this many bytes on disk.")
    size_ratio: FactorGate | None = Field(None, description="At most this share of the baseline.")
    latency: LatencyGate | None = Field(None, description="At most this long for one call.")
    latency_ratio: FactorGate | None = Field(
        None, description="Median time of a call, at most this share of the baseline's."
    )
    cold_start: DurationGate | None = Field(
        None, description="From starting a process to its first result."
    )
    peak_memory: SizeGate | None = Field(
        None, description="Above what the runtime takes before it loads the model."
    )

    def items(self) -> Iterator[tuple[str, Gate]]:
        """Name and gate of those that are set."""
        for name in type(self).model_fields:
            gate = getattr(self, name)
            if gate is not None:
                yield name, gate


class Measure(Params):
    """How long to measure latency."""

    rounds: Annotated[int, Field(ge=5, le=10_000)] = Field(
        15, description="Rounds in which every artifact of a target takes its turn, at least."
    )
    cap: Duration = Field(
        20.0,
        description="Stop adding rounds after this long, decided or not.",
        validate_default=False,
    )


class Recipe(Params):
    """A recipe."""

    version: Literal[1]
    name: Name
    description: str = ""
    model: ModelSpec
    data: LoaderUse
    metrics: Annotated[list[MetricUse], Field(min_length=1)] = Field(
        description="The first is the one that gates and selection look at by default."
    )
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
    threads: Annotated[int, Field(ge=1, le=1024)] = Field(
        2, description="To train and calibrate with. Part of what makes a result repeatable."
    )
    variants: Annotated[dict[Name, Annotated[list[StepUse], Field(min_length=1)]], Field()] = Field(
        {}, description="Each a list of steps, applied in order. Common beginnings are shared."
    )
    exports: Annotated[list[ExporterUse], Field(min_length=1)] = [ExporterUse(name="onnx")]
    targets: Annotated[
        list[Annotated[TargetSpec, BeforeValidator(_read_target)]], Field(min_length=1)
    ] = [TargetSpec(name="onnxruntime-cpu")]
    gates: Gates = Gates()
    select: Literal["fastest", "smallest", "most_accurate"] = "fastest"
    require: Literal["chosen", "every"] = Field(
        "chosen",
        description="Whether the run passes if the chosen artifact of each target meets the "
        "gates, or only if every variant does.",
    )
    measure: Measure = Measure()

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if BASELINE in self.variants:
            raise ValueError(f"variants: {BASELINE!r} is the name of the unchanged model")
        names = [target.name for target in self.targets]
        for name in names:
            if names.count(name) > 1:
                raise ValueError(f"targets: {name!r} stands twice; give each its own name")
        metrics = [metric.name for metric in self.metrics]
        for metric in metrics:
            if metrics.count(metric) > 1:
                raise ValueError(f"metrics: {metric!r} stands twice")
        for gate_name, gate in self.gates.items():
            for target in gate.targets:
                if target not in names:
                    mend = registry.nearest(target, names)
                    raise ValueError(f"gates.{gate_name}: unknown target {target!r}; {mend}")
            metric = getattr(gate, "metric", None)
            if metric is not None and metric not in metrics:
                mend = registry.nearest(metric, metrics)
                raise ValueError(f"gates.{gate_name}: unknown metric {metric!r}; {mend}")
        return self

    def uses(self) -> Iterator[tuple[Key, Use]]:
        """Every plug-in that the recipe names, and where."""
        yield ("data",), self.data
        for index, metric in enumerate(self.metrics):
            yield ("metrics", index), metric
        for variant, steps in self.variants.items():
            for index, step in enumerate(steps):
                yield ("variants", variant, index), step
        for index, export in enumerate(self.exports):
            yield ("exports", index), export

    def digest(self) -> str:
        """Of everything the recipe says."""
        return digest(self.model_dump(mode="json"))


@dataclass(frozen=True)
class Source:
    """A recipe with the place it came from: paths in it are relative to `folder`."""

    recipe: Recipe
    folder: Path
    document: Document | None = None

    def where(self, *key: str | int) -> str:
        """How to name a key of the recipe in an error."""
        from lepton_compress.document import show

        return self.document.where(key) if self.document else show(key)


def read(path: Path) -> Source:
    """Read and check a recipe file: its keys, its values, and every plug-in's parameters.

    Raises:
        RecipeError: with every finding, the first one in front.
    """
    document = read_document(path)
    try:
        recipe = Recipe.model_validate(document.value)
    except ValidationError as error:
        raise _joined(list(_findings(error, document.where, (), Recipe))) from error
    source = Source(recipe, path.resolve().parent, document)
    check(source)
    return source


def check(source: Source) -> None:
    """Check the parameters of every plug-in that the recipe names.

    Raises:
        RecipeError: with every finding, the first one in front.
    """
    findings: list[RecipeError] = []
    for key, use in source.recipe.uses():
        try:
            use.bound()
        except ValidationError as error:
            model = registry.get(use.kind, use.name).params
            where = _locate(source)
            findings += _findings(error, where, (*key, use.name), model)
        except RecipeError as error:
            findings.append(RecipeError(error.problem, where=source.where(*key), mend=error.mend))
    for index, target in enumerate(source.recipe.targets):
        try:
            registry.get("runtime", target.runtime)
        except RecipeError as error:
            where = source.where("targets", index)
            findings.append(RecipeError(error.problem, where=where, mend=error.mend))
    if findings:
        raise _joined(findings)


def json_schema() -> dict[str, Any]:
    """The JSON schema of a recipe, for editors and other tools."""
    schema = Recipe.model_json_schema()
    schema["$schema"] = "https://json-schema.org/draft/2020-12/schema"
    schema["title"] = "lepton-compress recipe"
    text = {"type": "string"}
    schema["properties"]["include"] = {"anyOf": [text, {"type": "array", "items": text}]}
    schema["patternProperties"] = {"^x-": {}}
    return schema


def _locate(source: Source) -> Any:
    return lambda key: source.where(*key)


def _joined(findings: list[RecipeError]) -> RecipeError:
    first, *others = findings
    return RecipeError(first.problem, where=first.where, mend=first.mend, others=tuple(others))


def _findings(
    error: ValidationError, where: Any, prefix: Key, model: type[BaseModel]
) -> Iterator[RecipeError]:
    """One clear line for each thing that pydantic found."""
    for finding in error.errors(include_url=False):
        location = finding["loc"]
        key = (*prefix, *location)
        if finding["type"] == "extra_forbidden":
            known = _fields(model, location[:-1])
            unknown = str(location[-1])
            mend = registry.nearest(unknown, known)
            yield RecipeError(f"unknown key {unknown!r}", where=where(key), mend=mend)
        elif finding["type"] == "missing":
            yield RecipeError("is missing", where=where(key), mend="add it")
        else:
            said = finding["msg"].removeprefix("Value error, ")
            said = said[:1].lower() + said[1:] if not said[:2].isupper() else said
            given = finding.get("input")
            shown = (
                "" if isinstance(given, (dict, list)) or repr(given) in said else f", not {given!r}"
            )
            yield RecipeError(said + shown, where=where(key))


def _fields(model: Any, location: tuple[int | str, ...]) -> list[str]:
    """The keys that may stand at a location inside a model."""
    for candidate in _models(model):
        if not location:
            return sorted(candidate.model_fields)
        field = candidate.model_fields.get(str(location[0]))
        if field is None:
            continue
        inner, rest = field.annotation, location[1:]
        while rest and typing.get_origin(inner) in (dict, list, tuple):
            inner, rest = typing.get_args(inner)[-1], rest[1:]
        found = _fields(inner, rest)
        if found:
            return found
    return []


def _models(annotation: Any) -> Iterator[type[BaseModel]]:
    """The pydantic models that an annotation admits."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    elif typing.get_origin(annotation) in (typing.Union, types.UnionType, Annotated):
        for part in typing.get_args(annotation):
            yield from _models(part)
