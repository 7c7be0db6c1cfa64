"""The library call for training scripts: the same engine as `lepton-compress run`, with the model
and the data already in memory."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lepton_compress.artifacts import Observer, RunResult
from lepton_compress.errors import RecipeError
from lepton_compress.job import IN_MEMORY, Job, Metric, bind_metric, check_forms
from lepton_compress.load.data import make_dataset
from lepton_compress.load.memory import identity
from lepton_compress.load.model import open_model, open_module
from lepton_compress.metrics import PythonMetric, call
from lepton_compress.pipeline import execute
from lepton_compress.provenance import digest
from lepton_compress.recipe import MetricUse, Source, from_values
from lepton_compress.report.folder import check_writable
from lepton_compress.report.silent import Silent
from lepton_compress.store import Store

if TYPE_CHECKING:
    import torch

Steps = Sequence[str | Mapping[str, Any]]


def compress(
    model: torch.nn.Module | str | Path,
    *,
    data: Any,
    metrics: Sequence[str | Mapping[str, Any] | Callable[..., Any]] = ("accuracy",),
    steps: Steps | None = None,
    variants: Mapping[str, Steps] | None = None,
    exports: Sequence[str | Mapping[str, Any]] = ("onnx",),
    targets: Sequence[str | Mapping[str, Any]] = ("onnxruntime-cpu",),
    gates: Mapping[str, Any] | None = None,
    select: str = "fastest",
    require: str = "chosen",
    outputs: Sequence[str] = (),
    transfer: Mapping[str, Any] | None = None,
    name: str = "compress",
    seed: int = 0,
    threads: int = 2,
    measure: Mapping[str, Any] | None = None,
    out: str | Path | None = None,
    workspace: str | Path = ".lepton",
    observer: Observer | None = None,
) -> RunResult:
    """Compress a model that a training script holds.

    Args:
        model: a torch module, which is copied and never changed; or the path of an .onnx or .pt2
            file.
        data: the splits train, calibration and evaluation as a mapping, or a function that returns
            it; each an array, a pair (inputs, targets), or an iterable of batches such as a torch
            DataLoader. Inputs are (samples, ...), by name where there are several.
        metrics: names, names with parameters, or functions of (outputs by name, targets) that
            return a number or one number a sample, higher being better.
        steps: the steps of a single variant, as in a recipe: `["quantize"]`,
            `[{"prune": {"ratio": "50 %"}}, "distil", "quantize"]`.
        variants: several, by name, instead of `steps`.
        exports, targets, gates, select, require, seed, threads, measure: as in a recipe.
        outputs: names for the model's outputs.
        transfer: teach the model the labels of the data first, as `model: {transfer: ...}` does.
        out: folder for the artifacts and the report; None leaves no folder.
        workspace: where results are kept for reuse.
        observer: told of progress.

    Returns:
        The same result as of a run; `result.passed` says whether the gates are met.

    Raises:
        UserError: something given cannot be used.
        LeptonError: a plug-in broke its contract, or training failed.
    """
    if (steps is None) == (variants is None):
        raise RecipeError("give either steps or variants", where="compress()")
    named = {"compressed": list(steps)} if steps is not None else dict(variants or {})
    functions = [each for each in metrics if callable(each)]
    values = {
        "version": 1,
        "name": name,
        "model": _describe(model, list(outputs))
        | ({} if transfer is None else {"transfer": dict(transfer)}),
        "data": {"python": {"function": IN_MEMORY}},
        "metrics": [_metric(each, several=len(functions) > 1) for each in metrics],
        "seed": seed,
        "threads": threads,
        "variants": {key: list(held) for key, held in named.items()},
        "exports": list(exports),
        "targets": list(targets),
        "gates": dict(gates or {}),
        "select": select,
        "require": require,
        "measure": dict(measure or {}),
    }
    source = from_values(values, Path.cwd())
    folder = Path(out) if out is not None else None
    if folder is not None:
        check_writable(folder, Path(workspace))
    job = _open(source, model, data, functions)
    return execute(job, Store(Path(workspace)), folder, observer or Silent())


def _open(source: Source, model: Any, data: Any, functions: list[Callable[..., Any]]) -> Job:
    check_forms(source)
    dataset = make_dataset(data() if callable(data) else data, "data")
    if isinstance(model, (str, Path)):
        origin = open_model(source.recipe.model, source.folder, dataset)
    else:
        origin = open_module(model, dataset, tuple(source.recipe.model.outputs))
    given = iter(functions)
    metrics = tuple(
        _own(next(given), use.title) if _is_own(use) else bind_metric(use, source.folder)
        for use in source.recipe.metrics
    )
    return Job(source, origin, dataset, metrics, dataset)


def _describe(model: Any, outputs: list[str]) -> dict[str, Any]:
    """The `model` section that says what was given."""
    if isinstance(model, (str, Path)):
        kind = "program" if Path(model).suffix == ".pt2" else "onnx"
        return {kind: str(model), "outputs": outputs}
    return {"factory": f"{IN_MEMORY}:{type(model).__name__}", "outputs": outputs}


def _metric(given: Any, *, several: bool) -> Any:
    """As a recipe names it; several functions are told apart by their names."""
    if not callable(given):
        return given
    named = {"name": _name(given)} if several else {}
    return {"python": {"function": f"{IN_MEMORY}:{_name(given)}", **named}}


def _name(function: Callable[..., Any]) -> str:
    # A partial or an instance with __call__ has no name of its own.
    return str(getattr(function, "__name__", type(function).__name__))


def _is_own(use: MetricUse) -> bool:
    return str(use.parameters.get("function", "")).startswith(IN_MEMORY)


def _own(function: Callable[..., Any], title: str) -> Metric:
    params = PythonMetric(function=_name(function))
    mark = digest(["memory", identity(function)])
    return Metric(title, mark, lambda outputs, targets: call(function, params, outputs, targets))
