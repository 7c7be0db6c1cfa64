"""Measuring a run's artifacts on every target, for a run and for a result that is judged again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from lepton_compress.artifacts import Artifact, Observer, Profile, Split
from lepton_compress.budget import Gates
from lepton_compress.recipe import BASELINE, Source, TargetSpec

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np


def profiles(
    source: Source,
    gates: Gates,
    files: Sequence[tuple[Artifact, Path]],
    evaluation: Split,
    *,
    seed: int,
    observer: Observer,
) -> list[Profile]:
    """Every artifact on every target of a recipe, side by side with the baseline.

    Args:
        source: the recipe, and the folder that paths in it are relative to.
        gates: whose latency limits the measurement should decide.
        files: each artifact and where its file is.
        evaluation: whose first samples are what the artifacts are run on.
        seed: of the order of turns and of the intervals.
        observer: where to report progress.
    """
    from lepton_compress.profile.lanes import Subject
    from lepton_compress.profile.measure import measure
    from lepton_compress.profile.session import Limits

    recipe, found = source.recipe, list[Profile]()
    subjects = [Subject(each.candidate, each.format, file) for each, file in files]
    asked = recipe.model_copy(update={"gates": gates})
    for target in recipe.targets:
        latency, ratio = (
            each if each and each.holds_on(target.name) else None
            for each in (gates.latency, gates.latency_ratio)
        )
        found += measure(
            subjects,
            baseline=BASELINE,
            target=target,
            inputs=_batch(evaluation, files[0][0], target),
            limits=Limits(
                latency=latency.limit if latency else None,
                percentile=gates.latency.percentile if gates.latency else "p50",
                ratio=ratio.limit if ratio else None,
            ),
            rounds=recipe.measure.rounds,
            cap=recipe.measure.cap,
            seed=seed,
            observer=observer,
            rates=asked.rates(target.name),
            callers=recipe.measure.callers,
            operators=True,
            folder=source.folder,
        )
    return found


def _batch(split: Split, artifact: Artifact, target: TargetSpec) -> Mapping[str, np.ndarray]:
    """One batch for a target, from the evaluation samples, repeated where there are too few."""
    import numpy as np

    named = split.named([spec.name for spec in artifact.inputs])
    rows = np.arange(target.batch) % len(named)
    return {name: np.ascontiguousarray(array[rows]) for name, array in named.inputs.items()}
