"""What the user writes: one model, one dataset, variants of it, where it must run, and the gates.

The models below are the recipe, its JSON schema and its reference documentation in one. They are
frozen, unknown keys are errors, and nothing here imports a framework.
"""

from __future__ import annotations

import itertools
import re
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeVar

from pydantic import (
    AfterValidator,
    ConfigDict,
    Field,
    GetCoreSchemaHandler,
    GetJsonSchemaHandler,
    GetPydanticSchema,
    ValidationError,
    ValidationInfo,
    model_validator,
)
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, core_schema

from lepton_compress import catalogue, registry, serving
from lepton_compress.budget import Gates, Name, ScoreGate, Section, Truth, covers
from lepton_compress.catalogue import Limits
from lepton_compress.document import Document, Key, read_document, show
from lepton_compress.errors import MissingExtraError, RecipeError, quote
from lepton_compress.findings import Finding, FindingsError, explain, file_schema, refusal
from lepton_compress.provenance import digest
from lepton_compress.registry import Params
from lepton_compress.units import Duration, Rate
from lepton_compress.use import FROM_FILE, Use

VERSION = 1
BASELINE = "baseline"
"""The candidate that no step has touched."""
TRANSFER = "transfer"
"""The step that a recipe writes under its model."""

Count = Annotated[int, Field(strict=True, ge=1, le=1024)]
Batch = Annotated[int, Field(strict=True, ge=1, le=65536)]
Rest = Annotated[Duration, Field(le=10.0)]


_Item = TypeVar("_Item")


def _distinct(given: list[_Item]) -> list[_Item]:
    for index in _repeated(given):
        raise ValueError(f"{given[index]} stands twice")
    return given


Several = Annotated[list[_Item], Field(min_length=1), AfterValidator(_distinct)]


_OF_HOST = ("port", "identity", "ssh_config", "python", "directory")
# What begins with a dash would be an option of ssh; the rest keeps out of a shell's way.
_HOST = re.compile(r"(?!-)[A-Za-z0-9_.%+@:\[\]-]+(?<![@%])")


class StepUse(Use):
    kind = "step"


class LoaderUse(Use):
    kind = "loader"


class MetricUse(Use):
    kind = "metric"

    @property
    def title(self) -> str:
        """What its results are called: its parameter `name`, or the plug-in's name."""
        return str(self.parameters.get("name") or self.name)


class ExporterUse(Use):
    kind = "exporter"

    def written(self, candidate: str) -> Params:
        """The parameters that a candidate's artifact is written with. The baseline is what all is
        judged against, so that nothing of it is rounded."""
        made = self.bound()
        return made.plain if candidate == BASELINE else made


class PreprocessingUse(Use):
    kind = "preprocessing"


class PostprocessingUse(Use):
    kind = "postprocessing"


class TransferUse(StepUse):
    """The step `transfer` by its parameters alone."""

    @model_validator(mode="before")
    @classmethod
    def _read(cls, given: Any) -> Any:
        if isinstance(given, Use):
            return {"name": given.name, "parameters": given.parameters}
        if isinstance(given, dict):
            return {"name": TRANSFER, "parameters": given}
        raise FindingsError([Finding((), "must be the parameters of `transfer`", "or write `{}`")])

    @classmethod
    def __get_pydantic_json_schema__(
        cls, core: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        return handler(registry.get("step", TRANSFER).params.__pydantic_core_schema__)

    def problems(self) -> list[Finding]:
        """What is wrong with the parameters."""
        return [each._replace(key=each.key[1:]) for each in super().problems()]


class ModelSpec(Section):
    """The trained model: a Python factory, an exported program, or an ONNX file."""

    model_config = ConfigDict(
        json_schema_extra={
            "oneOf": [{"required": [form]} for form in ("factory", "program", "onnx")]
        }
    )

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
    transfer: TransferUse | None = Field(
        None,
        description="Teach it the labels of the data first: the parameters of the step "
        "[`transfer`](#transfer). What comes out is the original that variants start from and are "
        "compared with. For a factory.",
    )

    @model_validator(mode="after")
    def _one(self) -> Self:
        given = [each for each in ("factory", "program", "onnx") if getattr(self, each)]
        if len(given) != 1:
            said = " and ".join(given) or "none"
            raise ValueError(f"exactly one of factory, program and onnx must be given, not {said}")
        if self.factory is None and (self.weights or self.args):
            raise ValueError("weights and args go with a factory")
        if self.factory is None and self.transfer is not None:
            raise ValueError("transfer trains a torch module: give the model as a factory")
        return self


class TargetForm(Params):
    """A place where the model is to run, with how it is called there. Short form: the runtime, or
    the [target](targets.md) by its name.

    Lists of batches and threads are as many targets as there are pairs, named `edge/b8/t2` after
    what the lists hold; a gate on `edge` holds on each of them."""

    name: Name = Field(description="For the results; the runtime by default.")
    device: str = Field(
        "",
        description="A [target file](targets.md) that says the rest; what is given here replaces "
        "what stands there.",
    )
    runtime: str = Field(
        "onnxruntime-cpu", description="What loads and runs, or simulates, the artifact."
    )
    options: dict[str, Any] = Field({}, description="Parameters of the runtime.")
    limits: Limits = Field(
        Limits(), description="What the device has, where it is simulated; what takes more fails."
    )
    dtypes: list[str] = Field(
        [],
        description="Element types that the device computes in, where it is simulated; operators "
        "in others are not taken. Of all by default.",
    )
    operators: list[str] = Field(
        [],
        description="Operators that it takes, where it is simulated; those that the runtime "
        "says by default.",
    )
    threads: Count | Several[Count] = Field(
        1, description="Threads that compute one call, or a list to try each."
    )
    batch: Batch | Several[Batch] = Field(
        1, description="Samples in one call, or a list to try each."
    )
    channels_multiple: Annotated[int, Field(strict=True, ge=1, le=1024)] | None = Field(
        None,
        description="Widths of layers that are multiples of this leave nothing idle there; `prune` "
        "keeps to it.",
    )
    host: str = Field(
        "",
        description="Measure on [another machine](devices.md), `user@device` as `ssh` takes it.",
    )
    port: Annotated[int, Field(strict=True, ge=1, le=65535)] | None = Field(
        None, description="Of its SSH server; by default what ssh's configuration says."
    )
    identity: str = Field("", description="A private key file for it.")
    ssh_config: str = Field("", description="A file to use in place of `~/.ssh/config`.")
    python: str = Field(
        "python3", min_length=1, description="The interpreter there; it needs the runtime."
    )
    directory: str = Field(
        "", description="Where to make the private folder there; its temporary one by default."
    )

    @model_validator(mode="before")
    @classmethod
    def _short(cls, given: Any) -> Any:
        if isinstance(given, str):
            if ("runtime", given) in registry.BUILTIN or not catalogue.is_known(given):
                return {"name": given, "runtime": given}
            given = {"device": given}
        if isinstance(given, dict) and isinstance(given.get("device"), str) and given["device"]:
            given = _filled(given)
        if isinstance(given, dict) and "name" not in given and "runtime" in given:
            return {"name": given["runtime"], **given}
        return given

    @model_validator(mode="after")
    def _check(self, info: ValidationInfo) -> Self:
        if info.context == FROM_FILE and (found := self.problems()):
            raise FindingsError(found)
        return self

    @classmethod
    def __get_pydantic_json_schema__(
        cls, core: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        full = handler(core)
        fields = handler.resolve_ref_schema(full)
        runtimes = {"enum": registry.names("runtime")}
        fields["properties"]["runtime"] |= runtimes
        del fields["required"]
        fields["anyOf"] = [{"required": [each]} for each in ("name", "runtime", "device")]
        known = {"enum": [*registry.names("runtime"), *sorted(catalogue.built_in())]}
        # An editor knows those that come with the tool; others are written as `{device: name}`.
        return {"anyOf": [known, full]}

    def problems(self) -> list[Finding]:
        """What is wrong with the runtime, or with how to reach the device."""
        try:
            plugin = registry.get("runtime", self.runtime)
        except (RecipeError, MissingExtraError) as error:
            mend = error.mend
            if isinstance(error, RecipeError) and self.name == self.runtime:
                known = [*registry.names("runtime"), *sorted(catalogue.listed())]
                mend = registry.nearest(self.runtime, known)
            return [Finding(("runtime",), error.problem, mend)]
        module = plugin.function.__module__
        if found := [*self._misplaced(plugin)]:
            return found
        if not self.host:
            idle = [name for name in _OF_HOST if name in self.model_fields_set]
            return [Finding((name,), "goes with a `host`", "give one, or drop it") for name in idle]
        if not _HOST.fullmatch(self.host):
            mend = "write it as `user@device`"
            return [Finding(("host",), f"{quote(self.host)} is no name of a host", mend)]
        if not hasattr(sys.modules[module], "PROGRAM"):
            problem = f"{self.runtime} can only be measured on this machine"
            return [Finding(("host",), problem, "drop it")]
        return [
            Finding((name,), "holds a control character", "remove it")
            for name in _OF_HOST
            if not str(getattr(self, name)).isprintable()
        ]

    def _misplaced(self, plugin: registry.Plugin) -> Iterator[Finding]:
        """What the runtime does not take."""
        try:
            plugin.params.model_validate(self.options)
        except ValidationError as error:
            for each in explain(error, plugin.params, self.options):
                # What is simulated has no usual device.
                missing = plugin.simulates and not each.key
                mend = "say it in `options`, or take a `device` of `lepton-compress targets`"
                yield Finding(("options", *each.key), each.problem, mend if missing else each.mend)
        if plugin.simulates and self.batch != 1:
            problem = f"{plugin.name} tells of one sample in a call"
            yield Finding(("batch",), problem, "drop it")
        if plugin.simulates and self.threads != 1:
            problem = f"{plugin.name} tells nothing of threads"
            yield Finding(("threads",), problem, "drop it")
        if plugin.simulates and self.host:
            problem = f"{plugin.name} simulates the device on this machine"
            yield Finding(("host",), problem, "drop it")
        if not plugin.simulates and self.limits != Limits():
            mend = "use the gates `peak_memory` and `size`"
            yield Finding(("limits",), f"{plugin.name} is measured and not simulated", mend)
        for key in () if plugin.simulates else ("operators", "dtypes"):
            if getattr(self, key):
                yield Finding((key,), f"{plugin.name} is measured and not simulated", "drop them")
        yield from catalogue.unknown(plugin, self.operators, self.dtypes)
        device = catalogue.find(self.device) if self.device else None
        if device is not None and not self.host and device.needs_host:
            problem = f"{self.device} is another machine"
            yield Finding((), problem, "give its `host`, as in `host: user@device`")
        if device is not None and device.runtime != self.runtime:
            its = registry.get("runtime", device.runtime)
            if its.simulates or plugin.simulates:
                said = "simulated" if its.simulates else "measured"
                problem = (
                    f"{self.device} is {said} by {its.name}, and {plugin.name} is not about it"
                )
                yield Finding(("runtime",), problem, "drop it, or the `device`")

    def bound(self) -> Params:
        """The runtime's parameters, checked."""
        return registry.get("runtime", self.runtime).params.model_validate(self.options)

    def each(self) -> list[TargetSpec]:
        """The targets that it stands for, batches first."""
        found = []
        for batch, threads in itertools.product(_listed(self.batch), _listed(self.threads)):
            name = self.name
            name += f"/b{batch}" if isinstance(self.batch, list) else ""
            name += f"/t{threads}" if isinstance(self.threads, list) else ""
            given = {key: value for key, value in self if key in self.model_fields_set}
            held = {**given, "name": name, "batch": batch, "threads": threads}
            found.append(TargetSpec.model_validate(held))
        return found


class TargetSpec(TargetForm):
    """One target: a single batch and a single number of threads."""

    name: str = Field(description="For the results.")
    threads: Count = Field(1, description="Threads that compute one call.")
    batch: Batch = Field(1, description="Samples in one call.")


def _filled(given: dict[str, Any]) -> dict[str, Any]:
    """With what its target file says."""
    catalogue.listed()  # a catalogue that is wrong is no mistake of this target
    try:
        return catalogue.filled(given)
    except RecipeError as error:
        problem = f"{error.where}: {error.problem}" if error.where else error.problem
        raise FindingsError([Finding(("device",), problem, error.mend)]) from error


def _listed(given: int | list[int]) -> list[int]:
    return given if isinstance(given, list) else [given]


def _expand(written: list[TargetForm]) -> list[TargetSpec]:
    """Every target on its own."""
    return [each for target in written for each in target.each()]


def _as_written(_: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
    """Read as `TargetForm`s, so that mistakes stand where they were written."""
    return core_schema.no_info_after_validator_function(_expand, handler(list[TargetForm]))


class Measure(Params):
    """How long to measure latency."""

    rounds: Annotated[int, Field(strict=True, ge=5, le=10_000)] = Field(
        15, description="Rounds in which every artifact of a target takes its turn, at least."
    )
    cap: Duration = Field(20.0, description="Stop adding rounds after this long, decided or not.")
    rates: list[Rate] = Field(
        [],
        description="Arrivals a second, as `50/s`: the time of requests that arrive by themselves, "
        "waiting included. A thousand of each artifact, so `50/s` takes 20 s. What gates ask for "
        "is measured anyway.",
    )
    idle: Annotated[list[Rest], AfterValidator(_distinct)] | None = Field(
        None,
        description="Rests before a call, as `[10 ms, 100 ms]`: a call that comes alone finds cold "
        "caches and sleeping processors. 200 calls of each artifact after each; by default 40 "
        "after 1 ms, 10 ms and 100 ms, as far as a tenth of `cap` for each artifact has room.",
    )
    callers: Annotated[list[Count], AfterValidator(_distinct)] = Field(
        [],
        description="Numbers of callers at the same time, as `[1, 4]`: samples a second of all, "
        "and the time of a call among the others. Each caller has as many processors as the "
        "target has `threads`, as far as there are any.",
    )
    tune: Truth = Field(
        False,
        description="Try settings of the runtime's session for every artifact (fewer threads, "
        "graph optimisation, execution mode, memory arena, spinning), and note those that are "
        "faster in the results and in `manifest.json`.",
    )


Corruption = Literal["gaussian_noise", "gaussian_blur", "brightness", "contrast", "noise_snr"]


class Robustness(Params):
    """The evaluation data, corrupted: what the user of a model will sooner or later give it."""

    corruptions: list[Corruption] = Field(
        ["gaussian_noise", "gaussian_blur", "brightness", "contrast"],
        min_length=1,
        description="Of images, or `noise_snr` for audio and other signals.",
    )
    severities: list[Annotated[int, Field(strict=True, ge=1, le=5)]] = Field(
        [1, 3, 5], min_length=1, description="From 1 to 5."
    )
    input: str | None = Field(None, description="Which input; the first float one by default.")


class Recipe(Params):
    """A recipe."""

    version: Literal[1] = Field(description="Of the format of recipes.")
    name: Name = Field(description="What its results are called.")
    description: str = Field("", description="For people.")
    model: ModelSpec = Field(description="The trained model.")
    data: LoaderUse = Field(description="The loader of the samples.")
    preprocess: list[PreprocessingUse] = Field(
        [],
        description="What stands before the model, built into the artifact: the loader gives raw "
        "samples, and so does the device.",
    )
    postprocess: list[PostprocessingUse] = Field(
        [], description="What stands behind it, built into the artifact too."
    )
    metrics: Annotated[list[MetricUse], Field(min_length=1)] = Field(
        description="The first is the one that gates and selection look at by default."
    )
    slices: str | None = Field(
        None,
        description="`path/to/file.py:name` of a function of (inputs by name, targets) of the "
        "evaluation data that returns parts to look at: name to true or false, numbers or texts, "
        "one a sample.",
    )
    robustness: Robustness | None = Field(
        None, description="Corruptions of the evaluation data to evaluate under."
    )
    seed: Annotated[int, Field(strict=True, ge=0, lt=2**32)] = Field(
        0, description="Of every random choice."
    )
    threads: Count = Field(
        2, description="To train and calibrate with. Part of what makes a result repeatable."
    )
    variants: dict[Name, list[StepUse]] = Field(
        {},
        description="Each a list of steps, applied in order. Common beginnings are shared. A list "
        "without steps is the model as it is, for an exporter that rounds weights.",
        json_schema_extra={"additionalProperties": False},
    )
    control: Truth = Field(
        True,
        description="Evaluate beside each pruned variant that is trained the unpruned model with "
        "the same training, so that it is seen what pruning costs.",
    )
    exports: list[ExporterUse] = Field(
        [ExporterUse(name="onnx")], min_length=1, description="Formats to write."
    )
    targets: Annotated[list[TargetSpec], GetPydanticSchema(_as_written)] = Field(
        [TargetSpec(name="onnxruntime-cpu")], min_length=1, description="Where it must run."
    )
    gates: Gates = Field(Gates(), description="What an artifact must satisfy.")
    select: Literal["fastest", "smallest", "most_accurate"] = Field(
        "fastest", description="Which of those that pass to choose."
    )
    require: Literal["chosen", "every"] = Field(
        "chosen",
        description="Whether the run passes if the chosen artifact of each target meets the "
        "gates, or only if every variant does.",
    )
    measure: Measure = Field(Measure(), description="How long to measure latency.")
    place: str | None = Field(
        None,
        description="A [fleet file](fleet.md): where the models should run is planned at the end "
        "of the run.",
    )

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if found := list(self._contradictions()):
            raise FindingsError(found)
        return self

    def _contradictions(self) -> Iterator[Finding]:
        if BASELINE in self.variants:
            problem = f"{BASELINE!r} is the name of the unchanged model"
            yield Finding(("variants", BASELINE), problem, "give the variant another name")
        targets = [target.name for target in self.targets]
        metrics = [metric.title for metric in self.metrics]
        for index in _repeated(targets):
            problem = f"a second target is named {targets[index]!r}"
            # With lists there are more targets than were written.
            key: Key = ("targets",) if any("/" in each for each in targets) else ("targets", index)
            yield Finding(key, problem, "give each its own `name`")
        formats = [use.name for use in self.exports]
        for index in _repeated(formats):
            problem = f"the exporter {formats[index]!r} stands twice"
            yield Finding(("exports", index), problem, "keep one, and put the other in a recipe")
        for index in _repeated(metrics):
            problem = f"the metric {metrics[index]!r} stands twice"
            mend = "remove one, or give it another `name`"
            yield Finding(("metrics", index), problem, mend)
        for name, gate in self.gates.items():
            for index, target in enumerate(gate.targets):
                if not any(covers(target, each) for each in targets):
                    mend = registry.nearest(target, targets)
                    yield Finding(
                        ("gates", name, "targets", index), f"unknown target {target!r}", mend
                    )
            metric = gate.metric if isinstance(gate, ScoreGate) else None
            if metric is not None and metric not in metrics:
                mend = registry.nearest(metric, metrics)
                yield Finding(("gates", name, "metric"), f"unknown metric {metric!r}", mend)

    def rates(self, target: str) -> list[float]:
        """Arrivals a second to measure on a target: those listed, and what a gate asks for."""
        gate = self.gates.latency_at
        asked = [gate.rate] if gate and gate.rate and gate.holds_on(target) else []
        return sorted({*self.measure.rates, *asked})

    def uses(self) -> Iterator[tuple[Key, Use]]:
        """Every plug-in that the recipe names, and where."""
        yield ("data",), self.data
        if self.model.transfer is not None:
            yield ("model", TRANSFER), self.model.transfer
        for index, before in enumerate(self.preprocess):
            yield ("preprocess", index), before
        for index, behind in enumerate(self.postprocess):
            yield ("postprocess", index), behind
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
        return self.document.where(key) if self.document else show(key)


def read(path: Path, folder: Path | None = None) -> Source:
    """Read and check a recipe file: its keys, its values, and every plug-in's parameters.

    Args:
        path: of the file.
        folder: what paths in it are relative to; its own by default.

    Raises:
        RecipeError: with every finding, the first one in front.
    """
    document = read_document(path)
    return from_values(document.value, folder or path.resolve().parent, document)


def from_values(values: Any, folder: Path, document: Document | None = None) -> Source:
    """Check a recipe that is already plain values; paths in it are relative to `folder`.

    Raises:
        RecipeError: as `read`.
    """
    try:
        with catalogue.beside(folder):
            recipe = Recipe.model_validate(values, context=FROM_FILE)
    except ValidationError as error:
        where = document.where if document else show
        raise refusal(explain(error, Recipe, values), where) from error
    source = Source(recipe, folder, document)
    with catalogue.beside(folder):
        check(source)  # pydantic does not look into defaults
    return source


def from_target(values: dict[str, Any]) -> TargetSpec:
    """Check a target that stands alone.

    Raises:
        RecipeError: with every finding, the first one in front.
    """
    try:
        return TargetSpec.model_validate(values, context=FROM_FILE)
    except ValidationError as error:
        raise refusal(explain(error, TargetSpec, values), show) from error


def check(source: Source) -> None:
    """Check the parameters of every plug-in that the recipe names.

    Raises:
        RecipeError: with every finding, the first one in front.
    """
    recipe = source.recipe
    named: list[tuple[Key, Use | TargetSpec]] = [*recipe.uses()]
    named += [(("targets", index), each) for index, each in enumerate(recipe.targets)]
    found = [each._replace(key=(*key, *each.key)) for key, use in named for each in use.problems()]
    found = found or list(serving.mismatches(recipe))
    if found:
        raise refusal(found, lambda key: source.where(*key))


def json_schema() -> dict[str, Any]:
    """The JSON schema of a recipe, for editors and other tools."""
    return file_schema(Recipe, "lepton-compress recipe")


def _repeated(names: Sequence[object]) -> Iterator[int]:
    """Where something stands that stood before."""
    return (index for index, name in enumerate(names) if name in names[:index])
