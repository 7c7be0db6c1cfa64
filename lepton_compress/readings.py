"""What each gate reads of a measured artifact. Pure functions; no I/O, no framework.

A reading is one value with its interval on the way to a verdict. The gates over many parts of the
data (classes, slices) read all parts at once.

Source: Holm, Scandinavian Journal of Statistics 6 (1979), 65-70: step-down correction.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from lepton_compress.artifacts import (
    Artifact,
    Behaviour,
    Candidate,
    Corrupted,
    Coverage,
    Group,
    Parity,
    Profile,
    Score,
    StepRecord,
)
from lepton_compress.budget import Gate, GroupGate, LatencyGate, LoadGate, ScoreGate
from lepton_compress.units import show_rate

Interval = tuple[float, float]

LEVEL = 0.05
MOST_TIMES = 1000.0
"""An interval this many times too wide is not narrowed by anybody."""
Z = 1.959963984540054
"""The 97.5 % quantile of the standard normal distribution, for `LEVEL`."""


@dataclass(frozen=True)
class Measured:
    """Everything a run measured, in the order of its artifacts."""

    baseline: str
    artifacts: Sequence[Artifact]
    parities: Sequence[Parity]
    scores: Sequence[Score]
    profiles: Sequence[Profile]
    behaviours: Sequence[Behaviour] = ()
    coverages: Sequence[Coverage] = ()
    candidates: Sequence[Candidate] = ()

    def meets(self, artifact: Artifact, target: str) -> bool:
        """Whether a target takes artifacts of this one's format."""
        return meets(self.profiles, artifact, target)

    def unmet_of(self, artifact: Artifact) -> list[StepRecord]:
        """The steps on the way to an artifact that do not give what was asked of them."""
        found = (each for each in self.candidates if each.id == artifact.candidate)
        return [record for each in found for record in each.history if record.unmet]

    def parities_of(self, artifact: Artifact) -> list[Parity]:
        """The checks of an artifact and of what it was made from."""
        return [each for each in self.parities if same(each, artifact)]

    def score_of(self, artifact: Artifact, metric: str) -> Score | None:
        """An artifact's score in a metric."""
        found = (s for s in self.scores if same(s, artifact) and s.metric == metric)
        return next(found, None)

    def profile_of(self, artifact: Artifact, target: str) -> Profile | None:
        """What an artifact costs on a target."""
        found = (p for p in self.profiles if same(p, artifact) and p.target == target)
        return next(found, None)

    def behaviour_of(self, artifact: Artifact) -> Behaviour | None:
        """How its predictions compare with the baseline's."""
        return next((each for each in self.behaviours if same(each, artifact)), None)

    def coverage_of(self, artifact: Artifact) -> Coverage | None:
        """How much of it runs in integers."""
        return next((each for each in self.coverages if same(each, artifact)), None)

    def baseline_of(self, artifact: Artifact) -> Artifact | None:
        """The baseline's artifact of the same format."""
        wanted = (self.baseline, artifact.format)
        return next((a for a in self.artifacts if (a.candidate, a.format) == wanted), None)


@dataclass(frozen=True)
class Reading:
    """One measured value on its way to a verdict. An exact one is its own interval.

    Attributes:
        at_most: which side of the limit is good.
        missing: why there is no value.
        share: whether it is read in per cent.
        samples: how many the interval rests on; 0 where more would not narrow it.
        unit: what those are.
        about: which part of the data it is about; empty for all of it.
        timed: whether it is a time, of which the next measurement gives another value.
    """

    observed: float | None
    interval: Interval | None
    at_most: bool = True
    missing: str = ""
    share: bool = False
    samples: int = 0
    unit: str = "samples"
    about: str = ""
    timed: bool = False


def exact(value: float, *, at_most: bool = True, share: bool = False) -> Reading:
    """A value without any uncertainty."""
    return Reading(float(value), (float(value), float(value)), at_most, share=share)


def timed(
    observed: float | None, interval: Interval | None, rounds: int, missing: str = ""
) -> Reading:
    """A time, or what follows from times."""
    return Reading(observed, interval, True, missing, samples=rounds, unit="rounds", timed=True)


def absent(why: str) -> Reading:
    """Nothing was measured."""
    return Reading(None, None, missing=why)


def read(
    name: str, gate: Gate, artifact: Artifact, target: str | None, metric: str, measured: Measured
) -> Reading:
    """What a gate on one value looks at; `metric` is the one that it looks at by default."""
    if isinstance(gate, ScoreGate):
        wanted = gate.metric or metric
        if name == "corrupted":
            return _corrupted(wanted, artifact, measured)
        return _score(name, wanted, artifact, measured)
    if name in _SIZES or name in _BEHAVIOUR or name in _COVERAGE:
        return (_SIZES | _BEHAVIOUR | _COVERAGE)[name](artifact, measured)
    profile = measured.profile_of(artifact, target or "")
    if name in _FITS:
        return _fit(name, profile)
    if profile is None or profile.status != "measured":
        return absent(profile.reason if profile else "was not profiled")
    return _profile(name, gate, profile)


def _score(name: str, metric: str, artifact: Artifact, measured: Measured) -> Reading:
    score = measured.score_of(artifact, metric)
    if score is None or math.isnan(score.value):
        return absent(f"{metric} {'has no value' if score else 'was not measured'}")
    if name == "score":
        lower = not score.higher_is_better
        interval = known(score.interval)
        return Reading(score.value, interval, lower, "", score.is_share, score.samples)
    if artifact.candidate == measured.baseline:
        return exact(0.0, share=score.is_share)  # it is what the others are compared with
    interval, missing = known(score.drop_interval), "nothing to compare with"
    return Reading(score.drop, interval, True, missing, score.is_share, score.samples)


def _corrupted(metric: str, artifact: Artifact, measured: Measured) -> Reading:
    """The worst drop under a corruption."""
    found = measured.behaviour_of(artifact)
    rows = [each for each in found.corrupted if each.metric == metric] if found else []
    score = measured.score_of(artifact, metric)
    if score is not None and artifact.candidate == measured.baseline and rows:
        return exact(0.0, share=score.is_share)
    if score is None or not rows:
        return absent(f"{metric} was not measured on corrupted data (see `robustness`)")
    nameless = next((each for each in rows if math.isnan(each.drop)), None)
    if nameless is not None:
        return absent(f"{metric} has no value under {_title(nameless)}")
    worst = max(rows, key=lambda each: each.drop)
    interval, about = known(worst.drop_interval), _title(worst)
    return Reading(worst.drop, interval, share=score.is_share, samples=worst.samples, about=about)


def _title(row: Corrupted) -> str:
    return f"{row.corruption} {row.severity}"


def _size(artifact: Artifact, measured: Measured) -> Reading:
    return exact(artifact.bytes)


def _size_ratio(artifact: Artifact, measured: Measured) -> Reading:
    base = measured.baseline_of(artifact)
    if base is None:
        return absent("the baseline has no such artifact")
    return exact(artifact.bytes / base.bytes)


def _flips(artifact: Artifact, measured: Measured) -> Reading:
    found = measured.behaviour_of(artifact)
    return _share_of(found, found.flips if found else None)


def _negative_flips(artifact: Artifact, measured: Measured) -> Reading:
    found = measured.behaviour_of(artifact)
    return _share_of(found, found.negative_flips if found else None)


def _share_of(found: Behaviour | None, count: int | None) -> Reading:
    if found is None or count is None:
        return absent((found.reason if found else "") or "predictions were not compared")
    share = count / found.samples
    return Reading(share, wilson(share, found.samples), share=True, samples=found.samples)


def _calibration_error(artifact: Artifact, measured: Measured) -> Reading:
    found = measured.behaviour_of(artifact)
    if found is None or found.calibration_error is None:
        return absent((found.reason if found else "") or "no class is predicted with a confidence")
    value, interval = found.calibration_error, known(found.calibration_interval)
    return Reading(value, interval, share=True, samples=found.samples)


def _integer_nodes(artifact: Artifact, measured: Measured) -> Reading:
    found = measured.coverage_of(artifact)
    if found is None:
        return absent("how much runs in integers was not measured")
    return exact(found.integer_nodes / max(found.nodes, 1), at_most=False, share=True)


def _integer_macs(artifact: Artifact, measured: Measured) -> Reading:
    found = measured.coverage_of(artifact)
    if found is None:
        return absent("how much runs in integers was not measured")
    if not found.macs or found.integer_macs is None:
        return absent("its multiply-accumulates are not known")
    return exact(found.integer_macs / found.macs, at_most=False, share=True)


_Reader = Callable[[Artifact, Measured], Reading]
_SIZES: dict[str, _Reader] = {"size": _size, "size_ratio": _size_ratio}
_COVERAGE: dict[str, _Reader] = {"integer_nodes": _integer_nodes, "integer_macs": _integer_macs}
_BEHAVIOUR: dict[str, _Reader] = {
    "flips": _flips,
    "negative_flips": _negative_flips,
    "calibration_error": _calibration_error,
}


_FITS = {"ram": "RAM", "flash": "flash", "operator_coverage": "coverage of operators"}


def _fit(name: str, profile: Profile | None) -> Reading:
    """Of a device that is simulated; what exceeds its limits has values all the same."""
    fit = profile.fit if profile else None
    if profile is None or fit is None:
        why = f"no {_FITS[name]} is told here; name simulated targets in the gate's `targets`"
        return absent((profile.reason if profile else "") or why)
    if name == "operator_coverage":
        if not fit.operators:
            return absent("its operators are not told")
        share = max(0.0, 1 - len(fit.fallbacks) / fit.operators)
        return exact(share, at_most=False, share=True)
    value = fit.ram if name == "ram" else fit.flash
    if fit.problem or value is None:
        why = "it does not fit there" if fit.problem else f"{fit.tool} does not tell it"
        return absent(why)
    return exact(value)


def _untimed(profile: Profile) -> str:
    """Why a device that is simulated has no such time."""
    fit = profile.fit
    if fit is not None and fit.fallbacks and not profile.latency:
        many = len(fit.fallbacks)
        return f"{many} operator{'s' if many > 1 else ''} on the host, whose time is not told"
    return "no such time is told of a device that is simulated"


def _profile(name: str, gate: Gate, profile: Profile) -> Reading:
    if isinstance(gate, LoadGate):
        return _load(gate, profile)
    if isinstance(gate, LatencyGate):
        observed = profile.latency.get(gate.percentile)
        missing = f"{profile.samples} samples are too few for {gate.percentile}"
        missing = missing if profile.fit is None else _untimed(profile)
        return timed(observed, profile.interval.get(gate.percentile), profile.rounds, missing)
    if name == "latency_ratio":
        missing = "the baseline has no latency"
        return timed(profile.ratio, profile.ratio_interval, profile.rounds, missing)
    if name == "throughput":
        value, held = profile.throughput, profile.throughput_interval
        made = timed(value, held, profile.rounds, "was not measured")
        return replace(made, at_most=False)
    if name == "cold_start":
        return Reading(profile.cold_start, None, missing="not measured")
    peak = profile.peak_memory
    return Reading(None if peak is None else float(peak), None, missing="not measured")


def _load(gate: LoadGate, profile: Profile) -> Reading:
    """The time of requests at the gate's rate, or at the highest."""
    loads = sorted(profile.loads, key=lambda each: each.rate)
    found = [each for each in loads if gate.rate in (None, each.rate)]
    if not found:
        asked = f" at {show_rate(gate.rate)}" if gate.rate else ""
        return absent(f"requests{asked} were not measured (see `measure.rates`)")
    one, name = found[-1], gate.percentile
    missing = f"{one.arrivals} arrivals are too few for {name}"
    held, about = one.interval.get(name), f"arrivals at {show_rate(one.rate)}"
    return Reading(one.latency.get(name), held, missing=missing, about=about, timed=True)


def groups(
    name: str, gate: GroupGate, artifact: Artifact, metric: str, measured: Measured
) -> tuple[list[Group], str]:
    """The parts of the data that a gate over parts looks at, and why there are none."""
    kind, wanted = name.removeprefix("worst_"), gate.metric or metric
    found = measured.behaviour_of(artifact)
    if found is None:
        return [], "parts of the data were not looked at"
    parts = [each for each in found.groups if (each.kind, each.metric) == (kind, wanted)]
    many = {"class": "classes", "slice": "slices"}[kind]
    return parts, f"{wanted} was not measured by {many}"


def beyond(parts: Sequence[Group], limit: float) -> list[tuple[Group, float]]:
    """Each part with its p-value for a drop of at most `limit`, corrected by Holm's step-down."""
    ranked = sorted(((each, _p_value(each, limit)) for each in parts), key=lambda pair: pair[1])
    found, least = [], 0.0
    for rank, (each, p) in enumerate(ranked):
        least = max(least, min(1.0, p * (len(ranked) - rank)))
        found.append((each, least))
    return found


def _p_value(part: Group, limit: float) -> float:
    """One-sided, by the normal law, centre and error taken from the part's interval."""
    low, high = part.drop_interval
    centre, error = (low + high) / 2, (high - low) / (2 * Z)
    if error <= 0:
        return 0.0 if part.drop > limit else 1.0
    return math.erfc((centre - limit) / error / math.sqrt(2)) / 2


def wilson(share: float, samples: int) -> Interval:
    """95 % score interval of a proportion (Wilson, JASA 22, 1927, 209-212)."""
    scale = 1 + Z**2 / samples
    centre = (share + Z**2 / (2 * samples)) / scale
    half = Z / scale * math.sqrt(share * (1 - share) / samples + Z**2 / (4 * samples**2))
    return min(max(centre - half, 0.0), share), max(min(centre + half, 1.0), share)


def needed(reading: Reading, limit: float) -> int | None:
    """About how many samples would decide, if they go on like those measured.

    An interval narrows with the root of their number; it decides once the half of it that points
    at the limit is shorter than the way there.
    """
    if reading.observed is None or reading.interval is None or reading.samples <= 0:
        return None
    low, high = reading.interval
    way = abs(limit - reading.observed)
    half = high - reading.observed if limit >= reading.observed else reading.observed - low
    if way <= half / MOST_TIMES:
        return None
    count = math.ceil(reading.samples * (half / way) ** 2)
    return count if count > reading.samples else None


def meets(profiles: Sequence[Profile], artifact: Artifact, target: str) -> bool:
    """Whether a target takes artifacts of this one's format: those are what it was tried with."""
    formats = {each.format for each in profiles if each.target == target}
    return not formats or artifact.format in formats


def known(interval: Interval | None) -> Interval | None:
    """An interval with two ends, or none."""
    return None if interval is None or any(math.isnan(end) for end in interval) else interval


def same(
    one: Artifact | Parity | Score | Profile | Behaviour | Coverage | object, artifact: Artifact
) -> bool:
    """Whether it is about an artifact."""
    held = (getattr(one, "candidate", None), getattr(one, "format", None))
    return held == (artifact.candidate, artifact.format)
