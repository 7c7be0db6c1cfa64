"""What running a recipe will do: read, looked up and told, with nothing computed or written."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from lepton_compress import branches, controls, keys, registry, serving
from lepton_compress.branches import Node
from lepton_compress.inspect.weights_file import stored_weights
from lepton_compress.job import Job, open_job
from lepton_compress.overviews import (
    Held,
    Plan,
    PlannedGate,
    PlannedModel,
    PlannedStage,
    PlannedTarget,
    PlannedVariant,
)
from lepton_compress.provenance import file_digest
from lepton_compress.recipe import ExporterUse, Source, read
from lepton_compress.registry import Params
from lepton_compress.store import Entry, Store

Kept = Mapping[str, Entry]


def plan(recipe: str | Path, *, workspace: str | Path = ".lepton") -> Plan:
    """Everything that a run of the recipe would do, and what of it the workspace already has.

    The data is loaded, since it is part of every key; the model is not built. Nothing is written.

    Raises:
        UserError: a run would be refused.
    """
    source = read(Path(recipe))
    job = open_job(source)
    # Not `get`, which counts as a use.
    kept = {entry.key: entry for entry in Store(Path(workspace)).entries()}
    planned = branches.plan(job)
    variants = [
        PlannedVariant(name, tuple(_stages(job, name, node, kept)))
        for name, node in planned.items()
    ]
    count = len(variants)
    variants += _controls(job, planned, kept)
    variants = list(_mark_shared(variants))
    return Plan(
        recipe=job.recipe.name,
        recipe_digest=job.recipe.digest(),
        workspace=str(workspace),
        model=_model(source, job.origin.form),
        samples={
            name: len(getattr(job.data, name)) for name in ("train", "calibration", "evaluation")
        },
        variants=tuple(variants[:count]),
        targets=tuple(
            PlannedTarget(
                each.name,
                each.runtime,
                each.threads,
                each.batch,
                each.host,
                each.device,
                registry.get("runtime", each.runtime).simulates,
                each.options,
            )
            for each in job.recipe.targets
        ),
        gates=tuple(_gates(source)),
        select=job.recipe.select,
        require=job.recipe.require,
        notes=tuple(serving.remarks(job.recipe)),
        controls=tuple(variants[count:]),
        measure=job.recipe.measure.model_dump(mode="json"),
    )


def _controls(job: Job, planned: Mapping[str, Node], kept: Kept) -> Iterator[PlannedVariant]:
    """Those that no variant is; they are evaluated and not verified."""
    known = {node.key for node in planned.values()}
    for variant, node in controls.plan(job).items():
        if node.key not in known:
            known.add(node.key)
            stages = (each for each in _stages(job, variant, node, kept) if each.kind != "verify")
            yield PlannedVariant(f"control of {variant}", tuple(stages))


def _stages(job: Job, candidate: str, node: Node, kept: Kept) -> Iterator[PlannedStage]:
    for each in node.path():
        if each.parent is not None:
            yield _made(each, kept)
    for use in job.recipe.exports:
        yield from _proved(job, node, use, use.written(candidate), kept)


def _made(node: Node, kept: Kept) -> PlannedStage:
    """A step or a lowering."""
    entry = kept.get(node.key)
    about = entry.details.get("graph", {}) if entry else {}
    return PlannedStage(
        kind="step" if node.step else "lower",
        name=node.label,
        key=node.key,
        cached=entry is not None,
        given=dict(node.step.parameters) if node.step else {},
        parameters=node.step.bound().model_dump(mode="json") if node.step else {},
        parameter_count=about.get("parameters"),
        macs=about.get("macs"),
    )


def _proved(
    job: Job, node: Node, use: ExporterUse, parameters: Params, kept: Kept
) -> Iterator[PlannedStage]:
    """An export, and what is done with the artifact."""
    mark = keys.export_key(node, use.name, parameters, job.around)
    entry = kept.get(mark)
    file = entry.folder / str(entry.details["file"]) if entry else None
    if file is not None and not file.is_file():
        file = None
    yield PlannedStage(
        kind="export",
        name=use.name,
        key=mark,
        cached=file is not None,
        given=dict(use.parameters),
        parameters=parameters.model_dump(mode="json"),
        bytes=file.stat().st_size if file else None,
    )
    held = file_digest(file) if file else ""
    marks = [keys.verify_key(job, parent, lowered.key) for parent, lowered in keys.links(node)]
    last = keys.verify_key(job, node, held) if held else ""
    yield PlannedStage("verify", use.name, last, all(each in kept for each in [*marks, last]))
    for metric in job.metrics:
        mark = keys.evaluate_key(job, held, metric) if held else ""
        yield PlannedStage("evaluate", metric.name, mark, mark in kept)


def _mark_shared(variants: list[PlannedVariant]) -> Iterator[PlannedVariant]:
    users: dict[str, list[str]] = {}
    for variant in variants:
        for stage in variant.stages:
            users.setdefault(stage.key, []).append(variant.name)
    for variant in variants:
        stages = (
            replace(
                stage,
                shared_with=tuple(name for name in users[stage.key] if name != variant.name)
                if stage.key
                else (),
            )
            for stage in variant.stages
        )
        yield replace(variant, stages=tuple(stages))


def _model(source: Source, form: str) -> PlannedModel:
    spec, folder = source.recipe.model, source.folder
    weights, numbers, size = spec.weights or "", None, None
    file = folder / str(spec.weights or spec.program or spec.onnx or "")
    if file.is_file():
        size = file.stat().st_size
    held: dict[str, Held] | None = None
    if file.suffix == ".safetensors" and spec.weights:
        held = stored_weights(file)
    elif spec.onnx:
        from lepton_compress.inspect.onnx_file import initialisers
        from lepton_compress.load.model import read_onnx_file

        held = initialisers(read_onnx_file(file))
    if held is not None:
        numbers = sum(each.numbers for each in held.values())
        size = sum(each.bytes for each in held.values())
    reference = str(spec.factory or spec.program or spec.onnx)
    return PlannedModel(form, reference, weights, numbers, size)


def _gates(source: Source) -> Iterator[PlannedGate]:
    written: Any = source.document.value.get("gates") if source.document else None
    for name, gate in source.recipe.gates.items():
        limit: float = getattr(gate, "limit")  # noqa: B009 - each kind of gate has one of its own
        said = written.get(name) if isinstance(written, Mapping) else None
        said = said.get("limit") if isinstance(said, Mapping) else said
        yield PlannedGate(
            name, limit, str(limit if said is None else said), gate.strict, tuple(gate.targets)
        )
