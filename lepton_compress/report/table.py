"""The rows of the one table that a run is summed up in, as text. Used by every rendering."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from lepton_compress.artifacts import Artifact, Control, Profile, RunResult, Score, Status
from lepton_compress.readings import meets
from lepton_compress.units import show_bytes, show_percent, show_seconds


@dataclass(frozen=True)
class Row:
    """One artifact on one target. `front`: nothing measured beats it (see front.py)."""

    artifact: Artifact
    chosen: bool
    variant: str
    score: str
    drop: str
    size: str
    latency: str
    ratio: str
    verdict: str
    passed: bool
    front: bool


HEADINGS = ("variant", "{metric}", "drop (95 %)", "size", "p50", "ratio (95 %)", "gates")
NO_SPEED = (
    "Deflated: after zlib, level 6, as archives and downloads are. The runtimes compute zeros as "
    "any number, so that nothing is faster by them."
)
SPARSE = ("variant", "zeros set", "size", "deflated", "original", "original deflated")
CONTROLS = ("variant", "metric", "pruned", "control", "drop by pruning (95 %)", "control is")
FRONT_MEASURES = {"score": "score", "latency": "p50", "peak_memory": "peak memory"}


def rows(result: RunResult, target: str) -> Iterator[Row]:
    """The rows of one target, in the order of the candidates: of the artifacts that it takes."""
    choice = next(each for each in result.chosen if each.target == target)
    members = {member for f in result.fronts if f.target == target for member in f.members}
    taken = [each for each in result.artifacts if meets(result.profiles, each, target)]
    several = len({artifact.format for artifact in taken}) > 1
    for artifact in taken:
        score = next((s for s in result.scores if _same(s, artifact)), None)
        profile = next(
            (p for p in result.profiles if _same(p, artifact) and p.target == target), None
        )
        verdict, passed = _verdict(result, artifact, target)
        base = result.baseline == artifact.candidate
        yield Row(
            artifact=artifact,
            chosen=(choice.candidate, choice.format) == (artifact.candidate, artifact.format),
            variant=f"{artifact.candidate} ({artifact.format})" if several else artifact.candidate,
            score=_score(score) + _beside(result, artifact, score),
            drop="" if base else _drop(score),
            size=show_bytes(artifact.bytes),
            latency=_latency(profile),
            ratio=_ratio(profile, base=base),
            verdict=verdict,
            passed=passed,
            front=(artifact.candidate, artifact.format) in members,
        )


def front(result: RunResult) -> str:
    """What the front of its targets is over, in words; empty if there is none."""
    measures = {name: None for each in result.fronts if each.members for name in each.measures}
    return ", ".join(FRONT_MEASURES.get(name, name) for name in measures)


def headings(result: RunResult) -> list[str]:
    """Of the columns."""
    metric = result.scores[0].metric if result.scores else "score"
    return [heading.format(metric=metric.replace("_", " ")) for heading in HEADINGS]


def noise(result: RunResult, target: str) -> str:
    """What the machine took for a difference where there was none."""
    profile = next((p for p in result.profiles if p.target == target), None)
    if profile is None or profile.noise is None or profile.noise_interval is None:
        return "not measured"
    low, high = profile.noise_interval
    return f"{profile.noise:.2f}x ({low:.2f} to {high:.2f})"


def device(about: dict[str, Any]) -> str:
    """Another machine that a target was measured on, in a line."""
    cpu = about["cpu"]
    held = ", ".join(f"{name} {version}" for name, version in about["libraries"].items())
    extensions = f" ({', '.join(cpu['extensions'])})" if cpu["extensions"] else ""
    return (
        f"{about['host']}: {cpu['name']}, {cpu['cores']} cores{extensions}, {about['system']}, "
        f"Python {about['python']}, {held}"
    )


def _verdict(result: RunResult, artifact: Artifact, target: str) -> tuple[str, bool]:
    about = [
        verdict
        for verdict in result.verdicts
        if _same(verdict, artifact) and verdict.target in (None, target)
    ]
    bad = [verdict for verdict in about if verdict.status is not Status.PASS]
    if not bad:
        return "PASS", True
    return "; ".join(f"{verdict.status} {verdict.gate}" for verdict in bad), False


def _score(score: Score | None) -> str:
    if score is None:
        return ""
    return "no value" if math.isnan(score.value) else in_unit(score, score.value)


def _beside(result: RunResult, artifact: Artifact, score: Score | None) -> str:
    """The same of the unpruned model with the same training, where the variant has that control."""
    for each in result.controls:
        if score is not None and _same(each, artifact) and each.metric == score.metric:
            return f" (control {in_unit(score, each.value)})"
    return ""


def controls(result: RunResult) -> Iterator[tuple[str, ...]]:
    """Pruned variants beside the unpruned model with the same training, as `CONTROLS` heads it."""
    several = len({artifact.format for artifact in result.artifacts}) > 1
    for each in result.controls:
        score = next(s for s in result.scores if _same(s, each) and s.metric == each.metric)
        shown = in_unit(score, each.drop)
        if each.drop_interval is not None:
            low, high = (in_unit(score, end).removesuffix(" %") for end in each.drop_interval)
            shown += f" ({low} to {high})"
        name = f"{each.candidate} ({each.format})" if several else each.candidate
        values = (in_unit(score, score.value), in_unit(score, each.value))
        made = ", ".join(each.steps) + (f" (the variant {each.variant})" if each.variant else "")
        yield name, each.metric.replace("_", " "), *values, shown, made


def sparse(result: RunResult) -> Iterator[tuple[str, ...]]:
    """What sparsity buys: files of sparse variants beside the original's, before and after deflate,
    as `SPARSE` heads it."""
    several = len({artifact.format for artifact in result.artifacts}) > 1
    for candidate in result.candidates:
        held = [
            record.statistics["zeros"] for record in candidate.history if record.step == "sparsify"
        ]
        for one in result.artifacts:
            if one.candidate != candidate.id or not held or one.deflated is None:
                continue
            base = result.artifact(result.baseline, one.format)
            sizes = (one.bytes, one.deflated, base.bytes, base.deflated or 0)
            name = f"{one.candidate} ({one.format})" if several else one.candidate
            zeros = f"{100 * held[-1][0] / held[-1][1]:.1f} %"
            yield (name, zeros, *map(show_bytes, sizes))


def _drop(score: Score | None) -> str:
    if score is None or score.drop is None or math.isnan(score.drop):
        return ""
    shown = in_unit(score, score.drop)
    if score.drop_interval is None:
        return shown
    low, high = (in_unit(score, end).removesuffix(" %") for end in score.drop_interval)
    return f"{shown} ({low} to {high})"


def in_unit(score: Score, value: float) -> str:
    """A score, or a difference of scores, as its metric is read: in per cent or as it is."""
    return show_percent(value) if score.is_share else f"{value:.4g}"


def _latency(profile: Profile | None) -> str:
    if profile is None:
        return ""
    if profile.status != "measured":
        return "failed" if profile.fit is None else "does not fit"
    mark = "" if profile.provenance == "measured" else f" ({profile.provenance})"
    if "p50" not in profile.latency:
        return "too few calls" if profile.fit is None else "not told"
    return show_seconds(profile.latency["p50"]) + mark


def _ratio(profile: Profile | None, *, base: bool) -> str:
    if profile is None or profile.ratio is None or profile.ratio_interval is None or base:
        return ""
    low, high = profile.ratio_interval
    if low == high:
        return f"{profile.ratio:.2f}x"
    return f"{profile.ratio:.2f}x ({low:.2f} to {high:.2f})"


def _same(one: object, artifact: Artifact | Control) -> bool:
    held = (getattr(one, "candidate", None), getattr(one, "format", None))
    return held == (artifact.candidate, artifact.format)
