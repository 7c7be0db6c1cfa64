"""Measuring a run's artifacts on every target, for a run and for a result that is judged again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from lepton_compress import elsewhere, registry
from lepton_compress.artifacts import Artifact, Observer, Profile, Split
from lepton_compress.budget import Gates
from lepton_compress.recipe import BASELINE, Source, TargetSpec

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np

    from lepton_compress.profile.lanes import Subject


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
    how = recipe.measure
    asked = recipe.model_copy(update={"gates": gates})
    for target in recipe.targets:
        runtime = registry.get("runtime", target.runtime)
        taken = [(each, file) for each, file in files if registry.takes(runtime, each.format)]
        subjects = [Subject(each.candidate, each.format, file) for each, file in taken]
        if runtime.simulates:
            from lepton_compress.profile.simulate import simulate

            found += simulate(subjects, baseline=BASELINE, target=target, observer=observer)
            continue
        latency, ratio = (
            each if each and each.holds_on(target.name) else None
            for each in (gates.latency, gates.latency_ratio)
        )
        inputs = _batch(evaluation, taken[0][0], target)
        made = measure(
            subjects,
            baseline=BASELINE,
            target=target,
            inputs=inputs,
            limits=Limits(
                latency=latency.limit if latency else None,
                percentile=gates.latency.percentile if gates.latency else "p50",
                ratio=ratio.limit if ratio else None,
            ),
            rounds=how.rounds,
            cap=how.cap,
            seed=seed,
            observer=observer,
            rates=asked.rates(target.name),
            callers=how.callers,
            rests=how.idle,
            operators=True,
            folder=source.folder,
        )
        if how.tune:
            made = [
                _tuned(profile, subject, source, target, inputs, seed, observer)
                for profile, subject in zip(made, subjects, strict=True)
            ]
        found += [
            elsewhere.checked(profile, artifact, file, target, evaluation, observer)
            for profile, (artifact, file) in zip(made, taken, strict=True)
        ]
    return found


def _tuned(
    profile: Profile,
    subject: Subject,
    source: Source,
    target: TargetSpec,
    inputs: Mapping[str, np.ndarray],
    seed: int,
    observer: Observer,
) -> Profile:
    """With better settings of the session, where there are any; a failed one as it is."""
    from lepton_compress.profile.tune import tune

    if profile.status != "measured":
        return profile
    cap = source.recipe.measure.cap
    found = tune(
        subject,
        target=target,
        inputs=inputs,
        cap=cap,
        seed=seed,
        observer=observer,
        folder=source.folder,
    )
    return replace(profile, tuning=found)


def _batch(split: Split, artifact: Artifact, target: TargetSpec) -> Mapping[str, np.ndarray]:
    """One batch for a target, from the evaluation samples, repeated where there are too few."""
    import numpy as np

    named = split.named([spec.name for spec in artifact.inputs])
    rows = np.arange(target.batch) % len(named)
    return {name: np.ascontiguousarray(array[rows]) for name, array in named.inputs.items()}
