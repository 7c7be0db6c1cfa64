"""A recipe made ready to run: everything it names is opened and checked before anything is
computed or written, so that an impossible recipe fails in seconds and leaves nothing behind."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lepton_compress import corrupt, registry
from lepton_compress.artifacts import Dataset, Measure, MetricOutcome
from lepton_compress.errors import InputError, RecipeError, UserError
from lepton_compress.load.data import make_dataset
from lepton_compress.load.model import Origin, open_model
from lepton_compress.load.references import reference_digest
from lepton_compress.load.slices import call_slices
from lepton_compress.preprocess.around import Around, bind
from lepton_compress.provenance import code_digest, digest
from lepton_compress.recipe import TRANSFER, MetricUse, ModelSpec, Recipe, Source, StepUse
from lepton_compress.store import Store, key

if TYPE_CHECKING:
    import numpy as np

    Outputs = Mapping[str, np.ndarray]

IN_MEMORY = "in memory"
"""Stands in references to what a training script holds."""
_FORMS = {
    "module": "a torch module",
    "program": "an exported program, whose layers are gone",
    "graph": "an ONNX graph",
}


@dataclass(frozen=True)
class Metric:
    """A metric with its parameters bound. `mark` changes when its code or parameters do."""

    name: str
    mark: str
    measure: Callable[[Outputs, np.ndarray], MetricOutcome]


@dataclass(frozen=True)
class Job:
    """A recipe with all that it names opened.

    Attributes:
        data: the samples as the model takes them.
        metrics: on outputs as an artifact gives them.
        given: the samples as an artifact takes them; `data` where nothing stands before the model.
        around: what stands before and behind it.
        trust_pickle: whether checkpoints may hold pickled objects.
    """

    source: Source
    origin: Origin
    data: Dataset
    metrics: tuple[Metric, ...]
    given: Dataset
    around: Around = field(default_factory=Around)
    trust_pickle: bool = False

    @property
    def recipe(self) -> Recipe:
        return self.source.recipe

    @property
    def first_metric(self) -> Measure:
        """The first metric, on outputs as the model gives them."""
        measure = self.metrics[0].measure
        return lambda outputs, targets: measure(self.around.finish(outputs), targets)


def open_other(job: Job, given: Mapping[str, Any]) -> Origin:
    """The origin of another model that a step names, as the `model` of a recipe does; where no
    factory is named, it is the recipe's own.

    Raises:
        InputError: a file is missing, or there is no factory.
    """
    held, own = dict(given), job.recipe.model.factory
    if not held.get("factory") and not held.get("onnx"):
        if own is None or own.startswith(IN_MEMORY):
            raise InputError(
                "the model is not given as a factory, which could build another one",
                mend="name a `factory`",
            )
        held["factory"] = own
    spec = ModelSpec.model_validate(held)
    return open_model(spec, job.source.folder, job.data, trust_pickle=job.trust_pickle)


def open_job(source: Source, *, trust_pickle: bool = False) -> Job:
    """Open the data and the metrics of a recipe, and find its model.

    Raises:
        UserError: something that the recipe names cannot be used.
    """
    registry.table()  # a name offered twice is refused before one of the two is used
    check_forms(source)
    recipe = source.recipe
    raw = load_data(source)
    around = bind(source, raw)
    given = around.given(raw)
    data = around.prepared(given)
    if (asked := recipe.robustness) is not None:
        where = source.where("robustness")
        corrupt.pick_input(given.evaluation, asked.input, list(asked.corruptions), where)
    origin = open_model(recipe.model, source.folder, data, trust_pickle=trust_pickle)
    metrics = tuple(bind_metric(use, source.folder) for use in recipe.metrics)
    return Job(source, origin, data, metrics, given, around, trust_pickle)


def artifact_data(source: Source) -> Dataset:
    """The dataset of a recipe as its artifacts take it.

    Raises:
        UserError: as `load_data`, or what stands before the model does not fit it.
    """
    raw = load_data(source)
    return bind(source, raw).given(raw)


def load_data(source: Source) -> Dataset:
    """The dataset of a recipe as the loader gives it, checked.

    Raises:
        UserError: as the loader and `make_dataset`.
    """
    use = source.recipe.data
    loader = registry.get("loader", use.name)
    given = loader.call(use.bound(), source.folder, source.recipe.seed)
    data = make_dataset(given, source.where("data"))
    if source.recipe.slices is None:
        return data
    made = call_slices(source.recipe.slices, source.folder, data.evaluation)
    evaluation = replace(data.evaluation, slices={**data.evaluation.slices, **made})
    return replace(data, evaluation=evaluation)


def bind_metric(use: MetricUse, folder: Path) -> Metric:
    """A metric plug-in with its parameters.

    Raises:
        UserError: it names a Python function that does not exist.
    """
    plugin, parameters = registry.get("metric", use.name), use.bound()
    own = getattr(parameters, "function", None)
    code = [code_digest(plugin.function), reference_digest(own, folder) if own else ""]
    mark = digest([use.name, parameters.model_dump(mode="json"), code])

    def measure(outputs: Outputs, targets: np.ndarray) -> MetricOutcome:
        made: MetricOutcome = plugin.call(outputs, targets, parameters, folder)
        return made

    return Metric(use.title, mark, measure)


def _misplaced(step: StepUse, index: int, where: str) -> list[RecipeError]:
    """What a step has no business with at this place of a variant."""
    if step.name == TRANSFER:
        said = "a variant cannot be compared with a model of other labels"
        mend = "write `transfer` under `model`, so that it is the original"
        return [RecipeError(said, where=where, mend=mend)]
    if index and step.bound().replaces:
        said = (
            f"{step.name} with a `student` puts another model in, so that nothing is left of the "
            "steps before it"
        )
        mend = "put it first, and they work on the student"
        return [RecipeError(said, where=where, mend=mend)]
    return []


def check_forms(source: Source) -> None:
    """Check that each step can work on the form of model that reaches it, and that nothing it
    requires is missing.

    Raises:
        RecipeError: with every finding, the first one in front.
    """
    model = source.recipe.model
    start = "module" if model.factory else "program" if model.program else "graph"
    targets = tuple(target.name for target in source.recipe.targets)
    findings = []
    for variant, steps in source.recipe.variants.items():
        form, changed_by, quantized_by = start, "", ""
        for index, step in enumerate(steps):
            where = source.where("variants", variant, index)
            plugin = registry.get("step", step.name)
            findings += _misplaced(step, index, where)
            if plugin.form == "module" and form != "module":
                cause = f"{changed_by} has made it" if changed_by else "the model is"
                findings.append(
                    RecipeError(
                        f"{step.name} works on a torch module, but {cause} {_FORMS[form]}",
                        where=where,
                        mend=f"put it before {changed_by}"
                        if changed_by
                        else "give the model as a Python factory, or drop the step",
                    )
                )
            if plugin.quantizes and quantized_by:
                findings.append(
                    RecipeError(
                        f"{step.name} works on a float model, but {quantized_by} has quantised it",
                        where=where,
                        mend="drop one of the two",
                    )
                )
            if (
                plugin.measures
                and step.bound().measured
                and (away := _measures_away(source.recipe, step))
            ):
                findings.append(
                    RecipeError(
                        f"{step.name} measures on this machine, but {away} is on another",
                        where=where,
                        mend="name a target without a `host` as its `target`",
                    )
                )
            quantized_by = step.name if plugin.quantizes else quantized_by
            if "graph" in (plugin.form, plugin.gives) and form != "graph":
                form, changed_by = "graph", step.name
            if plugin.requires is not None:
                findings += [
                    RecipeError(reason, where=where)
                    for reason in plugin.requires(step.bound(), targets)
                ]
    for target in source.recipe.targets:
        plugin = registry.get("runtime", target.runtime)
        if plugin.requires is not None and not target.host:
            lacking = plugin.requires(target.bound(), targets)
            findings += [RecipeError(each, where=source.where("targets")) for each in lacking]
    if findings:
        first, *others = findings
        raise RecipeError(first.problem, where=first.where, mend=first.mend, others=tuple(others))


def _measures_away(recipe: Recipe, step: StepUse) -> str:
    """The target that a step which measures would look at, if it is on another machine."""
    asked = getattr(step.bound(), "target", None)
    looked = [each for each in recipe.targets if asked in (None, each.name)]
    local = any(not each.host for each in looked)
    return "" if local or not looked else looked[0].name


def check_model(job: Job, store: Store) -> None:
    """Build the model once and try it, with every metric, on the data; skipped if the store
    knows that this very model, data and metrics fit together.

    Raises:
        UserError: they do not.
    """
    mark = key(
        "check",
        model=job.origin.fingerprint,
        data=job.data.fingerprint,
        around=job.around.mark,
        metrics=[metric.mark for metric in job.metrics],
        **_transferred(job.recipe),
    )
    if store.get(mark) is not None:
        return
    model = job.origin.build()
    if job.recipe.model.transfer is not None:
        model = _with_head(job, model)
    _try_metrics(job, model)
    store.make(mark, "check", lambda _: {"outputs": list(model.outputs)})


def _transferred(recipe: Recipe) -> dict[str, Any]:
    held = recipe.model.transfer
    return {} if held is None else {TRANSFER: held.bound().model_dump(mode="json")}


def _with_head(job: Job, model: Any) -> Any:
    """The model as it will be after `transfer`, untrained."""
    import torch

    from lepton_compress.compress.head import with_head

    assert job.recipe.model.transfer is not None  # noqa: S101 - the caller has looked
    params: Any = job.recipe.model.transfer.bound()
    try:
        with torch.random.fork_rng():
            return with_head(model, params.head, params.classes, job.data)[0]
    except UserError as error:
        where = f"{job.source.where('model', TRANSFER)}: {error.where}"
        raise RecipeError(error.problem, where=where, mend=error.mend) from error


def _try_metrics(job: Job, model: Any) -> None:
    import numpy as np

    from lepton_compress.load import forms

    targets = job.data.evaluation.targets
    if targets is None:
        raise RecipeError("evaluation has no targets", where=job.source.where("data"))
    names = [spec.name for spec in model.inputs]
    one = forms.call(model, next(job.data.evaluation.named(names).batches(1)))
    # One real output stands in for all, so that every label meets the metric without a full run.
    outputs = {
        name: np.broadcast_to(array[0], (len(targets), *array.shape[1:]))
        for name, array in one.items()
    }
    finished = job.around.finish(outputs)
    for index, metric in enumerate(job.metrics):
        try:
            metric.measure(finished, targets)
        except UserError as error:
            where = job.source.where("metrics", index)
            raise RecipeError(str(error), where=where) from error
