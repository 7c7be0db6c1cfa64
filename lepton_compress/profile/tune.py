"""Find settings of a runtime's session that are faster than its own for an artifact.

Each setting is tried alone, in rounds with the default; then the best one and all good ones
together are measured once more in fresh processes. Only what is faster both times, by more than the
default differs from itself, is worth a note: the best of many is partly luck, which the second
measurement does not repeat.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lepton_compress import registry
from lepton_compress.artifacts import Json, Observer, Profile, Progress, Trial, Tuning
from lepton_compress.budget import PARITY_LIMIT
from lepton_compress.errors import LeptonError
from lepton_compress.profile.lanes import Subject
from lepton_compress.profile.measure import measure
from lepton_compress.profile.session import Limits
from lepton_compress.recipe import TargetSpec

ROUNDS = 40
DEFAULT = "the default"

Settings = dict[str, Json]


def tune(
    subject: Subject,
    *,
    target: TargetSpec,
    inputs: Mapping[str, NDArray[Any]],
    cap: float,
    seed: int,
    observer: Observer,
    folder: Path = Path(),
) -> Tuning:
    """Try the settings that the target's runtime offers on one artifact.

    Args:
        subject: the artifact.
        target, inputs, seed, folder: as for `measure`.
        cap: seconds for the rounds of each of the two measurements.
        observer: where to report progress.
    """
    module = sys.modules[registry.get("runtime", target.runtime).function.__module__]
    offered = getattr(module, "alternatives", None)
    settings: list[Settings] = offered(target.threads) if offered else []
    if not settings:
        return Tuning(reason=f"{target.runtime} has no settings to try")

    def tried(settings: Sequence[Settings], round_: int) -> tuple[list[Trial], str]:
        lanes = [replace(subject, candidate=DEFAULT)]
        lanes += [replace(subject, candidate=show(each), settings=each) for each in settings]
        found = measure(
            lanes,
            baseline=DEFAULT,
            target=target,
            inputs=inputs,
            limits=Limits(),
            rounds=ROUNDS,
            cap=cap,
            seed=seed + round_,
            observer=_Silenced(observer),
            folder=folder,
        )
        default = found[0]
        trials = [_trial(each, one, round_) for each, one in zip(settings, found[1:], strict=True)]
        return trials, default.reason

    first, failure = tried(settings, 1)
    if failure:
        return Tuning(trials=tuple(first), reason=f"the default failed ({failure})")
    good = sorted((each for each in first if each.faster), key=lambda each: each.ratio or 0.0)
    good = [_checked(each, subject, target, inputs) for each in good]
    finalists = _finalists([each for each in good if not each.reason])
    different = [each for each in good if each.reason]
    first = [next((d for d in different if d.settings == each.settings), each) for each in first]
    if not finalists:
        said = f"none of {len(first)} settings is faster than the default beyond noise"
        return Tuning(trials=tuple(first), reason=said)
    again, failure = tried(finalists, 2)
    again = [_checked(each, subject, target, inputs) for each in again]
    best = min(
        (each for each in again if each.faster and not each.reason),
        key=lambda each: each.ratio or 0.0,
        default=None,
    )
    trials = (*first, *again)
    if best is None:
        said = failure or "what was faster at first was not when measured again"
        return Tuning(trials=trials, reason=said)
    return Tuning(
        settings=best.settings,
        ratio=best.ratio,
        ratio_interval=best.ratio_interval,
        trials=trials,
        reason=f"{show(best.settings)}: faster both times it was measured",
    )


def show(settings: Mapping[str, Json]) -> str:
    """Settings in a line."""
    return ", ".join(f"{name}={value}" for name, value in settings.items())


def _trial(settings: Settings, found: Profile, round_: int) -> Trial:
    faster = False
    if found.ratio is not None and found.ratio_interval is not None:
        # What the default differs by from itself is no gain.
        noise = abs((found.noise or 1.0) - 1.0)
        faster = found.ratio_interval[1] < 1 and found.ratio < 1 - noise
    return Trial(
        settings, round_, found.ratio, found.ratio_interval, found.noise, faster, found.reason
    )


def _finalists(good: Sequence[Trial]) -> list[Settings]:
    """The best one, and all that go together, the better one first where two do not."""
    together: Settings = {}
    for each in good:
        if not set(each.settings) & set(together):
            together |= each.settings
    found = [each.settings for each in good[:1]]
    return found if together in found or not together else [*found, together]


def _checked(
    trial: Trial, subject: Subject, target: TargetSpec, inputs: Mapping[str, NDArray[Any]]
) -> Trial:
    """With a reason where the artifact computes something else under the settings, as fused and
    unfused integer kernels may; accuracy was measured under the default."""
    if not trial.faster or trial.reason:
        return trial
    plugin = registry.get("runtime", target.runtime)
    try:
        default = plugin.function(subject.path, target.threads).run(inputs)
        changed = plugin.function(subject.path, target.threads, trial.settings).run(inputs)
    except LeptonError as error:
        return replace(trial, faster=False, reason=str(error))
    apart = max(map(_difference, default, changed), default=0.0)
    if apart <= PARITY_LIMIT:
        return trial
    said = f"computes something else than the default (by {apart:.2g}), so it was not considered"
    return replace(trial, faster=False, reason=said)


def _difference(one: NDArray[Any], other: NDArray[Any]) -> float:
    """The largest difference, over the largest number."""
    if one.shape != other.shape or one.dtype != other.dtype:
        return float("inf")
    if one.size == 0 or np.array_equal(one, other, equal_nan=one.dtype.kind == "f"):
        return 0.0
    apart = np.abs(one.astype(np.float64) - other.astype(np.float64)).max()
    return float(apart / max(float(np.abs(one).max()), 1e-12)) if np.isfinite(apart) else np.inf


class _Silenced:
    """Passes progress on, and keeps to itself what each trial would note of the machine."""

    def __init__(self, observer: Observer) -> None:
        self._observer = observer

    def work(
        self, label: str, total: int | None = None
    ) -> contextlib.AbstractContextManager[Progress]:
        return self._observer.work(label.replace("measuring", "tuning"), total)

    def note(self, text: str) -> None:
        pass
