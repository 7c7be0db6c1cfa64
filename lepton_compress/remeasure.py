"""Measuring the latency of a run's artifacts again, on the machine at hand."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from lepton_compress import provenance
from lepton_compress.artifacts import Artifact, Observer, Profile, RunResult
from lepton_compress.budget import Gate, Gates
from lepton_compress.errors import InputError
from lepton_compress.job import artifact_data
from lepton_compress.recipe import TargetSpec
from lepton_compress.report.folder import kept_recipe

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy as np

    from lepton_compress.artifacts import Split


def remeasure(result: RunResult, gates: Gates, observer: Observer) -> RunResult:
    """The result with profiles measured now, by its recipe's targets and on its data.

    Args:
        result: read from its run folder.
        gates: the latency gates that the measurement should decide.

    Raises:
        InputError: the folder lacks an artifact or the recipe, or holds another file than the run
            measured.
        UserError: the recipe's data cannot be loaded.
    """
    from lepton_compress.profile.measure import Limits, Subject, measure

    where = str(result.folder)
    source = kept_recipe(result)
    if source is None or result.folder is None:
        raise InputError(
            "its recipe is not known any more, and with it the data to measure on",
            where=where,
            mend="run the recipe again",
        )
    subjects = [
        Subject(each.candidate, each.format, _file(result.folder, each))
        for each in result.artifacts
    ]
    evaluation = artifact_data(source).evaluation
    found: list[Profile] = []
    for target in source.recipe.targets:
        latency = gates.latency if _holds(gates.latency, target) else None
        ratio = gates.latency_ratio if _holds(gates.latency_ratio, target) else None
        found += measure(
            subjects,
            baseline=result.baseline,
            target=target,
            inputs=_batch(evaluation, result.artifacts[0], target),
            limits=Limits(
                latency=latency.limit if latency else None,
                percentile=latency.percentile if latency else "p50",
                ratio=ratio.limit if ratio else None,
            ),
            rounds=source.recipe.measure.rounds,
            cap=source.recipe.measure.cap,
            seed=result.seed,
            observer=observer,
            rates=source.recipe.model_copy(update={"gates": gates}).rates(target.name),
            folder=source.folder,
        )
    environment = {**result.environment, **provenance.environment()}
    return replace(result, profiles=tuple(found), environment=environment)


def _holds(gate: Gate | None, target: TargetSpec) -> bool:
    return gate is not None and gate.holds_on(target.name)


def _file(folder: Path, artifact: Artifact) -> Path:
    file = folder / artifact.path
    if not file.is_file():
        raise InputError("no such file", where=str(file), mend="give the whole run folder")
    if provenance.file_digest(file) != artifact.sha256:
        raise InputError(
            "is another file than the run measured", where=str(file), mend="run the recipe again"
        )
    return file


def _batch(split: Split, artifact: Artifact, target: TargetSpec) -> Mapping[str, np.ndarray]:
    """One batch for a target, from the evaluation samples, repeated where there are too few."""
    import numpy as np

    named = split.named([spec.name for spec in artifact.inputs])
    rows = np.arange(target.batch) % len(named)
    return {name: np.ascontiguousarray(array[rows]) for name, array in named.inputs.items()}
