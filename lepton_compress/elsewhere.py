"""Artifacts on targets whose runtime is another one than they were verified and evaluated in.

ONNX artifacts are evaluated in ONNX Runtime. Another runtime may round integers otherwise, so that
what was measured there need not hold here: on such a target each artifact must answer alike in
both, on the samples that it was evaluated on.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from lepton_compress import registry, verify
from lepton_compress.artifacts import Artifact, Observer, Parity, Profile, Split
from lepton_compress.errors import LeptonError, MissingExtraError
from lepton_compress.recipe import TargetSpec

if TYPE_CHECKING:
    from lepton_compress.targets.runner import Runner


def checked(
    profile: Profile,
    artifact: Artifact,
    file: Path,
    target: TargetSpec,
    samples: Split,
    observer: Observer,
) -> Profile:
    """The profile; a failed one if the artifact answers otherwise on the target's runtime.

    Args:
        artifact, file: what was measured.
        samples: of the evaluation, as the artifact takes them.
        observer: told how many samples fall into another class, where any do.
    """
    usual = registry.get("exporter", artifact.format).evaluates
    if target.runtime == usual or profile.status != "measured":
        return profile
    try:
        found = _agreement(artifact, file, target.runtime, usual, samples)
    except MissingExtraError:  # it is on the target's host, and not here
        observer.note(
            f"{target.name}: evaluated in {usual} alone, as {target.runtime} is not installed here"
        )
        return profile
    except LeptonError as error:
        return _failed(profile, str(error))
    worst = [each for each in found if not each.holds]
    if worst:
        said = "; ".join(_told(each) for each in worst)
        return _failed(
            profile, f"answers otherwise than in {usual}, where it was evaluated: {said}"
        )
    for each in found:
        if each.metric == verify.AGREEMENT and each.value:
            observer.note(
                f"{target.name}: {artifact.candidate} was evaluated in {usual}; in "
                f"{target.runtime} {each.value:.2%} of {each.samples} samples fall into another "
                "class"
            )
    return profile


def _agreement(
    artifact: Artifact, file: Path, runtime: str, usual: str, samples: Split
) -> tuple[Parity, ...]:
    there, here = (
        _run(registry.get("runtime", name).function(file, 1)) for name in (runtime, usual)
    )
    return verify.agree(
        there,
        here,
        samples.named([spec.name for spec in artifact.inputs]),
        candidate=artifact.candidate,
        format=artifact.format,
        against=usual,
    )


def _run(runner: Runner) -> verify.Run:
    names = [spec.name for spec in runner.outputs]
    return lambda feeds: dict(zip(names, runner.run(feeds), strict=True))


def _told(parity: Parity) -> str:
    return (
        f"{parity.metric} {parity.value:.2g} of at most {parity.limit:g}, {parity.samples} samples"
    )


def _failed(profile: Profile, reason: str) -> Profile:
    return replace(
        profile,
        status="failed",
        reason=reason,
        latency={},
        interval={},
        ratio=None,
        ratio_interval=None,
    )
