"""The main road, in order; this page is the map of the house.

    recipe.read         what the user wrote, checked                       recipe.py
    open_job            model, data and metrics opened and tried           job.py, load/
    branches.plan       the tree of variants, common beginnings shared     branches.py
    compress            each step of each variant, once                    branches.py, compress/
    export              an artifact for each variant and format            export/
    verify              each artifact against what it was made from        verify.py
    evaluate            the metrics on the artifact, sample by sample      evaluate.py
    behaviours          what changed by sample, class, slice and noise     behaving.py
    controls            pruned variants beside the unpruned model          controls.py
    profile             latency and memory, beside the baseline            measuring.py, profile/
    judge, select       the gates, and the winner for each target          gate.py
    front               the artifacts that no other one beats              front.py
    write               the run folder                                     report/

Everything but the profile is kept in the store and reused when nothing that determines it changed.
"""

from __future__ import annotations

import datetime
import json
import logging
import math
import shutil
import sys
import time
import zlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from lepton_compress import (
    branches,
    controls,
    evaluate,
    front,
    gate,
    launched,
    layers,
    placing,
    provenance,
    registry,
    serving,
    verifying,
)
from lepton_compress.artifacts import (
    Answered,
    Artifact,
    Front,
    Model,
    Observer,
    RunResult,
    Score,
    TensorSpec,
)
from lepton_compress.behaving import Predictor, answers, behaviours, coverages
from lepton_compress.branches import Branches, Node
from lepton_compress.errors import InputError, PluginError
from lepton_compress.job import Job, check_model, open_job
from lepton_compress.keys import evaluate_key, export_key
from lepton_compress.load import external, forms
from lepton_compress.measuring import profiles
from lepton_compress.recipe import BASELINE, TargetSpec, read
from lepton_compress.report import folder as run_folder
from lepton_compress.report.silent import Silent
from lepton_compress.store import Store
from lepton_compress.verifying import Exported

_log = logging.getLogger(__name__)


def run(
    recipe: str | Path,
    *,
    out: str | Path | None = None,
    workspace: str | Path = ".lepton",
    trust_pickle: bool = False,
    observer: Observer | None = None,
) -> RunResult:
    """Run a recipe file.

    Args:
        recipe: path of the YAML file; paths inside are relative to it.
        out: folder for the results; `runs/<name>` by default. An earlier run's is replaced.
        workspace: where results are kept for reuse.
        trust_pickle: load checkpoints that hold pickled objects, which can run any code.
        observer: told of progress.

    Returns:
        Everything that was found; `result.passed` says whether the demands are met.

    Raises:
        UserError: something given cannot be used. Nothing has been written.
        LeptonError: a plug-in broke its contract, or training failed.
    """
    source = read(Path(recipe))
    target = Path(out) if out is not None else Path("runs") / source.recipe.name
    run_folder.check_writable(target, Path(workspace))
    fleet = placing.fleet_of(source)
    job = open_job(source, trust_pickle=trust_pickle)
    result = execute(job, Store(Path(workspace)), target, observer or Silent())
    if fleet is not None and not launched.rank():
        placing.after(result, fleet, observer or Silent())
    return result


def execute(job: Job, store: Store, out: Path | None, observer: Observer) -> RunResult:
    """Run a job that is already open. Without `out`, no run folder is left.

    Of processes that were started together, all return the first one's result.
    """
    if launched.count() == 1:
        return _execute(job, store, out, observer)
    if launched.rank():
        planned = (*branches.plan(job).values(), *controls.plan(job).values())
        beside = Branches(job, store, Silent())
        text = launched.follow(lambda key: beside.join(key, planned))
        return run_folder.restore(RunResult, json.loads(text))
    found: list[RunResult] = []

    def work() -> str:
        found.append(_execute(job, store, out, observer))
        return json.dumps(run_folder.plain(found[0]))

    launched.lead(work)
    return found[0]


def _execute(job: Job, store: Store, out: Path | None, observer: Observer) -> RunResult:
    started, clock = datetime.datetime.now(datetime.UTC), time.perf_counter()
    told = _Noting(observer)
    for note in (*job.given.notes, *serving.remarks(job.recipe)):
        told.note(note)
    check_model(job, store)
    store.sweep()
    planned = branches.plan(job)
    made = Branches(job, store, told)
    exported = [each for name in planned for each in _export(job, made, name, planned[name])]
    candidates = tuple(made.candidate(name, node) for name, node in planned.items())
    parities = [parity for each in exported for parity in verifying.parities(job, made, each)]
    predictor = Predictor(job, BASELINE, told)
    scores, answered = _evaluate(job, store, exported, predictor)

    def control(name: str, node: Node) -> list[Score]:
        found = _export(job, made, name, node)
        return [score for each in found for score in _scores(job, store, each, predictor)]

    beside = controls.compare(job, planned, scores, control)
    measured = gate.Measured(
        baseline=BASELINE,
        candidates=candidates,
        artifacts=[each.artifact for each in exported],
        parities=parities,
        scores=scores,
        behaviours=behaviours(job, store, [each.held for each in exported], scores, predictor),
        coverages=coverages(job, store, [each.held for each in exported], told),
        profiles=profiles(
            job.source,
            job.recipe.gates,
            [(each.artifact, each.file) for each in exported],
            job.given.evaluation,
            seed=job.recipe.seed,
            observer=told,
        ),
    )
    verdicts = gate.judge(job.recipe, measured)
    chosen = gate.select(job.recipe, measured, verdicts)
    result = RunResult(
        recipe=job.recipe.name,
        recipe_digest=job.recipe.digest(),
        data_fingerprint=job.given.fingerprint,
        seed=job.recipe.seed,
        started=started.isoformat(timespec="seconds"),
        seconds=round(time.perf_counter() - clock, 2),
        environment=provenance.environment(),
        baseline=BASELINE,
        candidates=candidates,
        artifacts=tuple(measured.artifacts),
        parities=tuple(measured.parities),
        scores=tuple(measured.scores),
        profiles=tuple(measured.profiles),
        verdicts=verdicts,
        chosen=chosen,
        passed=gate.passed(job.recipe, chosen, verdicts),
        notes=(*store.notes, *told.notes),
        behaviours=tuple(measured.behaviours),
        coverages=tuple(measured.coverages),
        fronts=tuple(_front(target, measured) for target in job.recipe.targets),
        labels=evaluate.labels(job.data.evaluation.targets),
        answers=tuple(each for each, _ in answered) if out is not None else (),
        controls=beside,
    )
    if out is None:
        return result
    files = {each.artifact.path: each.file for each in exported}
    files |= {
        path: each.file.with_name(Path(path).name)
        for each in exported
        for path in each.artifact.beside
    }
    files |= {each.path: file for each, file in answered}
    files |= {
        layers.beside(Path(each.artifact.path)).as_posix(): layers.beside(each.file)
        for each in exported
        if layers.beside(each.file).is_file()
    }
    return run_folder.write(result, files, out, job.source)


def _front(target: TargetSpec, measured: gate.Measured) -> Front:
    held = measured
    return front.front(target.name, held.artifacts, held.parities, held.scores, held.profiles)


class _Noting:
    """Passes on what an observer is told, and keeps the notes for the result."""

    def __init__(self, observer: Observer) -> None:
        self.work = observer.work
        self.notes: list[str] = []
        self._note = observer.note

    def note(self, text: str) -> None:
        self.notes.append(text)
        self._note(text)


def _export(job: Job, made: Branches, name: str, node: Node) -> list[Exported]:
    """The artifacts of one candidate, one for each export of the recipe."""
    found = []
    for index, use in enumerate(job.recipe.exports):
        folder = "artifacts" if len(job.recipe.exports) == 1 else f"artifacts/{use.name}"
        plugin, parameters = registry.get("exporter", use.name), use.written(name)
        where = job.source.where("exports", index)

        def build(
            folder: Path, plugin: Any = plugin, parameters: Any = parameters, where: str = where
        ) -> dict[str, Any]:
            made.entry(node)
            with made.observer.work(f"export {name}"), branches.told_of(where):
                file = plugin.call(_surrounded(job, made.model(node)), parameters, folder)
            if not isinstance(file, Path) or not file.is_file():
                raise PluginError(f"wrote no file {file}", where=f"exporter {plugin.name}")
            for each in job.around.files:
                shutil.copyfile(each, folder / each.name)
            more = [each.name for each in job.around.files]
            return _describe(plugin.evaluates, file, folder, more)

        mark = export_key(node, use.name, parameters, job.around)
        entry = made.store.make(mark, f"export {use.name}", build)
        about = entry.details
        file = entry.folder / about["file"]
        beside = [entry.folder / each for each in about["beside"]]
        # Files refer to each other by name, so that each such artifact has its own folder.
        place = f"{folder}/{name}/{file.name}" if beside else f"{folder}/{name}{file.suffix}"
        artifact = Artifact(
            candidate=name,
            format=use.name,
            path=place,
            sha256=provenance.files_digest([file, *beside]),
            bytes=sum(each.stat().st_size for each in (file, *beside)),
            inputs=_specs(about["inputs"]),
            outputs=_specs(about["outputs"]),
            operators=about["operators"],
            beside=tuple(f"{folder}/{name}/{each.name}" for each in beside),
            deflated=_deflated([file, *beside]) if _prunes(job) else None,
        )
        found.append(Exported(artifact, file, node, parameters.narrows))
        if name != BASELINE and (held := layers.read(file)) is not None:
            for note in held.notes:
                made.observer.note(f"{name}, {use.name}: {note}")
    return found


def _prunes(job: Job) -> bool:
    variants = job.recipe.variants.values()
    return any(registry.get("step", step.name).prunes for steps in variants for step in steps)


def _deflated(files: Sequence[Path]) -> int:
    packer, size = zlib.compressobj(6), 0
    for each in files:
        with each.open("rb") as file:
            while part := file.read(1 << 20):
                size += len(packer.compress(part))
    return size + len(packer.flush())


def _surrounded(job: Job, model: Model) -> Model:
    """With what stands before and behind it, if anything does."""
    if not job.around:
        return model
    from lepton_compress.preprocess.attach import attach

    return attach(model, job.around)


def _describe(runtime: str, file: Path, folder: Path, more: list[str]) -> dict[str, Any]:
    """What can be read off an artifact's file; `more` are files that travel with it."""
    read = _read_graph if file.suffix == ".onnx" else _read_loaded
    inputs, outputs, operators = read(file, runtime)
    return {
        "file": file.relative_to(folder).as_posix(),
        "beside": [
            *(each.relative_to(folder).as_posix() for each in external.beside(file)),
            *more,
        ],
        "inputs": [[spec.name, spec.dtype, list(spec.shape)] for spec in inputs],
        "outputs": [[spec.name, spec.dtype, list(spec.shape)] for spec in outputs],
        "operators": operators,
    }


_Contents = tuple[Sequence[TensorSpec], Sequence[TensorSpec], dict[str, dict[str, int]]]


def _read_graph(file: Path, runtime: str) -> _Contents:
    """Inputs, outputs and operators of an ONNX file."""
    import onnx

    from lepton_compress import graph

    model = onnx.load(file, load_external_data=False)
    inputs, _ = forms.signature(model)
    return inputs, [forms.spec(value) for value in model.graph.output], graph.operators(model)


def _read_loaded(file: Path, runtime: str) -> _Contents:
    """The same of another file, as its runtime loads it; operators where that can tell."""
    function = registry.get("runtime", runtime).function
    runner = function(file, 1)
    tell = getattr(sys.modules[function.__module__], "contents", None)
    return runner.inputs, runner.outputs, tell(file) if tell else {}


def _specs(rows: list[list[Any]]) -> tuple[TensorSpec, ...]:
    return tuple(TensorSpec(name, dtype, tuple(shape)) for name, dtype, shape in rows)


def _evaluate(
    job: Job, store: Store, exported: list[Exported], predictor: Predictor
) -> tuple[list[Score], list[tuple[Answered, Path]]]:
    """Every metric on every artifact, and its drop from the baseline's; and what it answers."""
    scores: list[Score] = []
    answered: list[tuple[Answered, Path]] = []
    for each in exported:
        scores += _scores(job, store, each, predictor)
        answered += answers(job, store, each.held, predictor)  # the outputs are at hand
    for score in scores:
        if score.candidate == BASELINE and math.isnan(score.value):
            titles = [metric.name for metric in job.metrics]
            raise InputError(
                f"{score.metric} gives no number for the original model",
                where=job.source.where("metrics", titles.index(score.metric)),
                mend="check the metric, and that the evaluation data has what it needs",
            )
    compared = []
    for score in scores:
        base = next(
            s
            for s in scores
            if (s.candidate, s.format, s.metric) == (BASELINE, score.format, score.metric)
        )
        compared.append(score if score is base else evaluate.compare(base, score))
    held = [replace(s, drop=0.0) if s.candidate == BASELINE else s for s in compared]
    return held, answered


def _scores(job: Job, store: Store, exported: Exported, predictor: Predictor) -> list[Score]:
    artifact, targets = exported.artifact, job.data.evaluation.targets
    if targets is None:  # a dataset without labels to evaluate on was refused when it was made
        return []
    found = []
    for metric in job.metrics:

        def build(folder: Path, metric: Any = metric) -> dict[str, Any]:
            score = evaluate.score(
                metric.measure,
                predictor.outputs(exported.held),
                targets,
                candidate=artifact.candidate,
                format=artifact.format,
                metric=metric.name,
            )
            return run_folder.plain(score)  # type: ignore[no-any-return]

        entry = store.make(
            evaluate_key(job, artifact.sha256, metric), f"evaluate {metric.name}", build
        )
        score = run_folder.restore(Score, entry.details)
        # Two candidates may be byte-identical and share the entry.
        found.append(replace(score, candidate=artifact.candidate, format=artifact.format))
    return found
