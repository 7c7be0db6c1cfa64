"""Measure artifacts side by side on one machine's processor, this one's or a device's.

Every artifact runs in a process of its own on the same CPUs, and they take turns: in each round
every one is timed once, in an order drawn anew. What disturbs the machine for longer than a turn
so disturbs all alike, and cancels in the ratio to the baseline of the same round. The baseline
runs twice; the ratio of the two shows what this machine takes for a difference where there is none.

A connection to a device that breaks is made again a few times, and all is measured anew: rounds
from before and after would not be paired.
"""

from __future__ import annotations

import contextlib
import itertools
import random
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lepton_compress.artifacts import Observer, Profile
from lepton_compress.errors import DeviceError, LeptonError
from lepton_compress.profile.places import Running, Site, site
from lepton_compress.profile.process import Job
from lepton_compress.profile.rates import (
    ARRIVALS,
    PERCENTILES,
    SAMPLES_BEYOND,
    SPELLS,
    load,
    throughput,
)
from lepton_compress.recipe import TargetSpec
from lepton_compress.statistics import (
    Interval,
    bootstrap_median_ratio,
    bootstrap_percentiles,
    median_interval,
)
from lepton_compress.units import show_rate

TURN_SECONDS = 0.005
MIN_CALLS, MAX_CALLS = 3, 2000
STEADY = 0.03
MAX_WARM_UP_BURSTS = 20
MAX_WARM_UP_SECONDS = 3.0

NOISE_ROUNDS_FACTOR = 4
ERROR = 0.05
"""The most that all looks together may decide a ratio wrongly."""
LEAST_SECONDS = 1.5
"""A burst of other work that is shorter than this cannot decide alone."""

START_TIMEOUT = 300.0
MIN_TURN_TIMEOUT = 30.0
TURN_TIMEOUT_FACTOR = 20

PAUSES = (1.0, 2.0, 4.0)
"""Seconds before each attempt to reach a device again."""


@dataclass(frozen=True)
class Subject:
    """An artifact to measure."""

    candidate: str
    format: str
    path: Path


@dataclass(frozen=True)
class Limits:
    """The latency gates that the measurement should decide; None where there is no such gate.

    Attributes:
        latency: of one call, in seconds, at `percentile`.
        percentile: a name in `PERCENTILES`.
        ratio: median latency over the baseline's.
    """

    latency: float | None = None
    percentile: str = "p50"
    ratio: float | None = None


@dataclass
class _Lane:
    """A subject with its worker, and what has been measured so far."""

    subject: Subject
    worker: Running | None = None
    burst: int = MIN_CALLS
    call: float = 0.0
    turns: list[NDArray[np.int64]] = field(default_factory=list)
    spells: dict[float, list[NDArray[np.int64]]] = field(default_factory=dict)
    cold_start: float | None = None
    peak_memory: int | None = None
    reason: str = ""

    def medians(self) -> NDArray[np.float64]:
        """(rounds,) median nanoseconds of each turn."""
        return np.array([np.median(turn) for turn in self.turns])

    def time(self, count: int) -> NDArray[np.int64]:
        """(count,) nanoseconds of calls made now; a call's length so far sets the patience."""
        assert self.worker is not None  # noqa: S101 - only lanes that started are timed
        patience = max(MIN_TURN_TIMEOUT, TURN_TIMEOUT_FACTOR * count * self.call)
        times = self.worker.run(count, patience)
        self.call = float(np.median(times)) * 1e-9
        return times


def measure(
    subjects: Sequence[Subject],
    *,
    baseline: str,
    target: TargetSpec,
    inputs: Mapping[str, NDArray[Any]],
    limits: Limits,
    rounds: int,
    cap: float,
    seed: int,
    observer: Observer,
    rates: Sequence[float] = (),
    folder: Path = Path(),
) -> list[Profile]:
    """Latency, cold start and peak memory of each subject on `target`.

    Rounds are added to the least number until the intervals decide every limit and that of the
    baseline against itself contains 1, or `cap` is reached. After four times the least number
    the latter is waited for no more: a difference that lasts belongs to the two processes (where
    their memory lies, for one) and more rounds would only make it plainer.

    The first look is taken after `LEAST_SECONDS` and each next after a quarter more rounds. Every
    look at a ratio could decide by luck, so look k uses an interval that is wrong with probability
    `ERROR` / (k (k + 1)) at most, which sums to `ERROR` however many looks there are (alpha
    spending: Lan and DeMets, Biometrika 70, 1983, 659-663). The interval that is reported is the
    bootstrap's at 95 %, for the rounds that were taken.

    An interval covers what varies from round to round within these processes. What varies from
    process to process shows in `noise` alone.

    Args:
        subjects: what to measure; the first whose candidate is `baseline` is the baseline.
        baseline: a candidate's id; without a subject of it no ratio is known.
        target: the runtime, the number of threads, and the batch (which `inputs` must have).
        inputs: name to array, each (target.batch, ...).
        limits: what should be decided.
        rounds: the least number of rounds.
        cap: seconds after which no round is added to the least number.
        seed: of the order of turns and of the intervals.
        observer: where to report progress.
        rates: arrivals a second at which to measure requests too, after the rounds; each takes
            about a thousand arrivals.
        folder: that paths in the target are relative to.

    Returns:
        One profile a subject, in order. A subject that cannot be measured has status "failed" and
        a reason; the others are measured all the same. Where the target's device is not reached,
        or is lost for good, all are "failed" and `unreached`.
    """
    leftovers: list[str] = []
    for attempt in itertools.count():
        session = _session(subjects, baseline, limits, seed)
        try:
            with site(target, folder, leftovers) as place:
                _measure(session, place, target, inputs, rounds, cap, rates, observer)
                device = place.device
        except DeviceError as error:
            # Only what was reached once is worth waiting for.
            if not leftovers or attempt == len(PAUSES):
                return _unreached(subjects, target, error, attempt)
            observer.note(f"{target.name}: {error}; measured anew")
            time.sleep(PAUSES[attempt])
        else:
            _note_noise(session, target, observer)
            return [
                replace(_profile(lane, session, target), device=dict(device))
                for lane in session.lanes
            ]
    raise AssertionError


def _session(subjects: Sequence[Subject], baseline: str, limits: Limits, seed: int) -> _Session:
    lanes = [_Lane(subject) for subject in subjects]
    reference = next((lane for lane in lanes if lane.subject.candidate == baseline), None)
    twin = _Lane(reference.subject) if reference else None
    return _Session(lanes, reference, twin, limits, seed)


def _measure(
    session: _Session,
    place: Site,
    target: TargetSpec,
    inputs: Mapping[str, NDArray[Any]],
    rounds: int,
    cap: float,
    rates: Sequence[float],
    observer: Observer,
) -> None:
    """Fill the lanes of a session."""
    try:
        cpus = _choose_cpus(place, target.threads)
    except LeptonError as error:
        for lane in session.lanes:
            lane.reason = str(error)
        return
    with contextlib.ExitStack() as stack:
        progress = stack.enter_context(observer.work(f"measuring on {target.name}", rounds))
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="lepton-"))
        job = _job(target, cpus, inputs, Path(folder))
        for lane in session.everyone():
            progress.advance(0, f"starting {lane.subject.candidate}")
            with _failing(lane):
                _start(lane, place, job, stack)
        for lane in session.everyone():
            with _failing(lane):
                _warm_up(lane)
        for number in _take_rounds(session, rounds, cap):
            progress.advance(1 if number <= rounds else 0)
        for rate in rates:
            progress.advance(0, f"requests at {show_rate(rate)}")
            _serve_requests(session, rate)


def _unreached(
    subjects: Sequence[Subject], target: TargetSpec, error: DeviceError, attempts: int
) -> list[Profile]:
    """Profiles that say why there is nothing."""
    after = f", after {attempts} more attempts" if attempts else ""
    session = _Session([], None, None, Limits(), 0)
    lanes = [_Lane(subject, reason=f"{error}{after}") for subject in subjects]
    return [replace(_profile(lane, session, target), unreached=True) for lane in lanes]


@dataclass(frozen=True)
class _Session:
    """The lanes of one measurement. `twin` is the baseline's second worker."""

    lanes: list[_Lane]
    baseline: _Lane | None
    twin: _Lane | None
    limits: Limits
    seed: int

    def everyone(self) -> list[_Lane]:
        """Every lane that has not failed."""
        lanes = [*self.lanes, self.twin] if self.twin else self.lanes
        return [lane for lane in lanes if not lane.reason]

    def ratio(self, lane: _Lane | None) -> tuple[float, Interval] | None:
        """Of a lane to the baseline, with its interval; None where either has no rounds."""
        baseline = self.baseline
        if lane is None or baseline is None or not (lane.turns and baseline.turns):
            return None
        return bootstrap_median_ratio(lane.medians(), baseline.medians(), seed=self.seed)

    def is_noisy(self) -> bool:
        """Whether the baseline differs from itself."""
        noise = self.ratio(self.twin)
        return noise is not None and not noise[1][0] <= 1 <= noise[1][1]

    def decided(self, look: int) -> bool:
        """Whether the intervals decide every limit at the `look`-th look, from 1."""
        return all(self._lane_decided(lane, look) for lane in self.lanes if not lane.reason)

    def _lane_decided(self, lane: _Lane, look: int) -> bool:
        limit, baseline = self.limits.ratio, self.baseline
        if limit is not None and baseline is not None and baseline.turns and lane is not baseline:
            ratios = lane.medians() / baseline.medians()
            if _contains(median_interval(ratios, error=ERROR / (look * (look + 1))), limit):
                return False
        limit, name = self.limits.latency, self.limits.percentile
        if limit is None:
            return True
        interval = _percentiles(lane, self.seed, (name,)).get(name, (0.0, (0.0, np.inf)))[1]
        return not _contains(interval, limit)


def _contains(interval: Interval, limit: float) -> bool:
    # A value equal to its limit meets it, so an interval that ends there has decided.
    return interval[0] <= limit < interval[1]


def _choose_cpus(place: Site, threads: int) -> tuple[int, ...]:
    """The last CPUs that may be used there: the first ones serve most interrupts.

    Empty where the system cannot pin a process.

    Raises:
        LeptonError: there are fewer CPUs than threads.
    """
    if threads > place.cores:
        user = "the device's" if place.device else "this"
        raise LeptonError(
            f"{threads} threads need as many CPUs, and {user} process may use {place.cores}",
            mend="lower the target's threads",
        )
    return tuple(place.cpus[-threads:]) if place.cpus is not None else ()


def _job(
    target: TargetSpec, cpus: tuple[int, ...], inputs: Mapping[str, NDArray[Any]], folder: Path
) -> Job:
    """What all workers have in common, the inputs written to a file in `folder`."""
    file = folder / "inputs.npz"
    # By position: an input's name may be any text, even one that np.savez takes for an argument.
    np.savez(file, *(np.asarray(array, order="C") for array in inputs.values()))
    return Job(target.runtime, "", target.threads, cpus, str(file), tuple(inputs))


@contextlib.contextmanager
def _failing(lane: _Lane) -> Iterator[None]:
    """A worker's failure is the reason of its lane; what it has measured so far does not count."""
    try:
        yield
    except DeviceError:
        raise  # it is nobody's own
    except LeptonError as error:
        lane.reason = str(error)
        lane.turns.clear()
        if lane.worker is not None:
            lane.worker.close()


def _start(lane: _Lane, place: Site, job: Job, stack: contextlib.ExitStack) -> None:
    """Start a worker and wait for its first result; `stack` ends it."""
    path = str(lane.subject.path.resolve())
    lane.worker = stack.enter_context(place.start(replace(job, path=path)))
    ready = lane.worker.ready(START_TIMEOUT)
    lane.cold_start, lane.peak_memory = ready.cold_start, ready.peak_memory
    lane.call = ready.first_call


def _warm_up(lane: _Lane) -> None:
    """Run bursts until two in a row have nearly the same median; find how many fill a turn."""
    end = time.monotonic() + MAX_WARM_UP_SECONDS
    before = float(np.median(lane.time(lane.burst)))
    for _ in range(MAX_WARM_UP_BURSTS):
        lane.burst = int(np.clip(TURN_SECONDS / max(lane.call, 1e-9), MIN_CALLS, MAX_CALLS))
        now = float(np.median(lane.time(lane.burst)))
        if abs(now - before) <= STEADY * before or time.monotonic() > end:
            return
        before = now


def _take_rounds(session: _Session, rounds: int, cap: float) -> Iterator[int]:
    """Take rounds until enough is known; yields the number of each."""
    order = random.Random(session.seed)  # noqa: S311 - an order of turns, not a secret
    start, number, next_look, look = time.monotonic(), 0, rounds, 0
    while session.everyone():
        lanes = session.everyone()
        order.shuffle(lanes)
        for lane in lanes:
            with _failing(lane):
                lane.turns.append(lane.time(lane.burst))
        number += 1
        yield number
        if number < rounds:
            continue
        taken = time.monotonic() - start
        if taken >= cap:
            return
        if number >= next_look and taken >= LEAST_SECONDS:
            look += 1
            wait_for_noise = number < NOISE_ROUNDS_FACTOR * rounds
            if session.decided(look) and not (wait_for_noise and session.is_noisy()):
                return
            next_look = number + -(-number // 4)


def _serve_requests(session: _Session, rate: float) -> None:
    """Spells of arrivals at a rate, the artifacts in turns; each spell the same for all."""
    for spell in range(SPELLS):
        for lane in (each for each in session.lanes if not each.reason):
            with _failing(lane):
                assert lane.worker is not None  # noqa: S101 - only lanes that started serve
                expected = ARRIVALS * max(1 / rate, lane.call)
                patience = max(MIN_TURN_TIMEOUT, TURN_TIMEOUT_FACTOR * expected)
                served = lane.worker.serve(rate, ARRIVALS, session.seed + spell, patience)
                lane.spells.setdefault(rate, []).append(served)


def _percentiles(
    lane: _Lane, seed: int, names: Sequence[str] = tuple(PERCENTILES)
) -> dict[str, tuple[float, Interval]]:
    """Name to seconds and their interval, of those percentiles with enough samples behind them."""
    samples = sum(map(len, lane.turns))
    shown = [name for name in names if samples * (1 - PERCENTILES[name]) >= SAMPLES_BEYOND - 1e-6]
    if not shown:
        return {}
    found = bootstrap_percentiles(lane.turns, [PERCENTILES[name] for name in shown], seed=seed)
    return {
        name: (point * 1e-9, (low * 1e-9, high * 1e-9))
        for name, (point, (low, high)) in zip(shown, found, strict=True)
    }


def _note_noise(session: _Session, target: TargetSpec, observer: Observer) -> None:
    noise = session.ratio(session.twin)
    if noise is not None and session.is_noisy():
        point, (low, high) = noise
        observer.note(
            f"{target.name}: the baseline against itself measures {point:.3f}x ({low:.3f} to "
            f"{high:.3f}), so differences of that size mean nothing on this machine"
        )


def _profile(lane: _Lane, session: _Session, target: TargetSpec) -> Profile:
    """What the lane's rounds say; a failed lane says only why."""
    subject = lane.subject
    profile = Profile(
        candidate=subject.candidate,
        format=subject.format,
        target=target.name,
        runtime=target.runtime,
        status="failed" if lane.reason else "measured",
        provenance="measured",
        batch=target.batch,
        threads=target.threads,
        reason=lane.reason,
    )
    noise, noise_interval = session.ratio(session.twin) or (None, None)
    profile = replace(profile, noise=noise, noise_interval=noise_interval)
    if lane.reason:
        return profile
    ratio, ratio_interval = session.ratio(lane) or (None, None)
    percentiles = _percentiles(lane, session.seed)
    samples, samples_interval = throughput(lane.turns, target.batch, session.seed) or (None, None)
    return replace(
        profile,
        rounds=len(lane.turns),
        samples=sum(map(len, lane.turns)),
        latency={name: value for name, (value, _) in percentiles.items()},
        interval={name: interval for name, (_, interval) in percentiles.items()},
        ratio=ratio,
        ratio_interval=ratio_interval,
        cold_start=lane.cold_start,
        peak_memory=lane.peak_memory,
        throughput=samples,
        throughput_interval=samples_interval,
        loads=tuple(load(rate, held, session.seed) for rate, held in lane.spells.items()),
    )
