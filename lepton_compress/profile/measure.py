"""Measure artifacts side by side on one machine's processor, this one's or a device's.

Every artifact runs in a process of its own on the same CPUs, and they take turns: in each round
every one is timed once, in an order drawn anew. What disturbs the machine for longer than a turn
so disturbs all alike, and cancels in the ratio to the baseline of the same round. The baseline
runs twice; the ratio of the two shows what this machine takes for a difference where there is none.

A process may be slower than another one of the same artifact, for as long as it lives: where its
memory lies, for one. More rounds would only make that plainer. So nothing is beyond a limit by one
set of processes alone: before it is, all are started and measured once more.

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
from dataclasses import replace
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from lepton_compress.artifacts import Observer, Profile, Progress
from lepton_compress.errors import DeviceError, LeptonError
from lepton_compress.profile import extras
from lepton_compress.profile.lanes import (
    Lane,
    Subject,
    choose_cpus,
    failing,
    job_of,
    session_settings,
)
from lepton_compress.profile.places import Site, site
from lepton_compress.profile.process import Job
from lepton_compress.profile.rates import concurrency, idle, load, quantiles, throughput
from lepton_compress.profile.session import Limits, Session, percentiles
from lepton_compress.recipe import TargetSpec
from lepton_compress.units import show_rate

NOISE_ROUNDS_FACTOR = 4
LEAST_SECONDS = 1.5
"""A burst of other work that is shorter than this cannot decide alone."""
SETS = 2
"""Sets of processes that must agree before anything is beyond a limit."""

PAUSES = (1.0, 2.0, 4.0)
"""Seconds before each attempt to reach a device again."""


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
    callers: Sequence[int] = (),
    rests: Sequence[float] | None = (),
    operators: bool = False,
    folder: Path = Path(),
) -> list[Profile]:
    """Latency, cold start and peak memory of each subject on `target`.

    Rounds are added to the least number until the intervals decide every limit and that of the
    baseline against itself contains 1, or `cap` is reached. After four times the least number
    the latter is waited for no more: a difference that lasts belongs to the two processes.

    The first look is taken after `LEAST_SECONDS` and each next after a quarter more rounds. Every
    look at a ratio could decide by luck, so look k uses an interval that is wrong with probability
    `ERROR` / (k (k + 1)) at most, which sums to `ERROR` however many looks there are (alpha
    spending: Lan and DeMets, Biometrika 70, 1983, 659-663). The interval that is reported is the
    bootstrap's at 95 %, for the rounds that were taken.

    Where that says that something is beyond a limit, and `cap` leaves time, all is measured again
    in fresh processes, and intervals then hold what both sets of processes say. Otherwise they
    cover what varies from round to round within one set, and what varies from process to process
    shows in `noise` alone.

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
        callers: numbers of callers at the same time to measure too, after the rounds.
        rests: seconds to rest before a call, for which to measure calls too, after the rounds;
            None for what takes a tenth of `cap` at most.
        operators: tell the time by operator too, from a pass of its own under the profiler.
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
                cpus = choose_cpus(place, target.threads)
                with contextlib.ExitStack() as stack:
                    progress = stack.enter_context(
                        observer.work(f"measuring on {target.name}", rounds)
                    )
                    held = stack.enter_context(tempfile.TemporaryDirectory(prefix="lepton-"))
                    job = job_of(target, cpus, inputs, Path(held))
                    with _rounds(session, place, job, rounds, cap, progress):
                        for rate in rates:
                            progress.advance(0, f"requests at {show_rate(rate)}")
                            extras.serve_requests(session, rate)
                        progress.advance(0, "calls after rests")
                        extras.rest_between(session.working(), rests, cap)
                        for number in callers:
                            progress.advance(0, f"{number} callers")
                            extras.serve_callers(session, place, target.threads, number, cap)
                    if operators:
                        extras.time_operators(session, place, job, target, observer)
                device = place.device
        except DeviceError as error:
            # Only what was reached once is worth waiting for.
            if not leftovers or attempt == len(PAUSES):
                return _unreached(subjects, target, error, attempt)
            observer.note(f"{target.name}: {error}; measured anew")
            time.sleep(PAUSES[attempt])
        except LeptonError as error:  # too many threads for the place
            for lane in session.lanes:
                lane.reason = str(error)
            return [_profile(lane, session, target) for lane in session.lanes]
        else:
            _note_noise(session, target, observer)
            return [
                replace(_profile(lane, session, target), device=dict(device))
                for lane in session.lanes
            ]
    raise AssertionError


def _session(subjects: Sequence[Subject], baseline: str, limits: Limits, seed: int) -> Session:
    lanes = [Lane(subject) for subject in subjects]
    reference = next((lane for lane in lanes if lane.subject.candidate == baseline), None)
    twin = Lane(reference.subject) if reference else None
    return Session(lanes, reference, twin, limits, seed)


@contextlib.contextmanager
def _rounds(
    session: Session, place: Site, job: Job, rounds: int, cap: float, progress: Progress
) -> Iterator[None]:
    """Take the rounds; the workers live as long as the block."""
    left = cap
    for number in range(1, SETS + 1):
        with contextlib.ExitStack() as stack:
            for lane in session.everyone():
                progress.advance(0, f"starting {lane.subject.candidate}")
                with failing(lane):
                    lane.start(place, job, stack)
            for lane in session.everyone():
                with failing(lane):
                    lane.warm_up()
            start = time.monotonic()
            for taken in _take_rounds(session, rounds, left):
                progress.advance(1 if number == 1 and taken <= rounds else 0)
            left -= time.monotonic() - start
            if number == SETS or left <= 0 or not session.exceeded():
                yield
                return
        progress.advance(0, "once more, in fresh processes")
        for lane in session.everyone():
            lane.sets.append([])


def _unreached(
    subjects: Sequence[Subject], target: TargetSpec, error: DeviceError, attempts: int
) -> list[Profile]:
    """Profiles that say why there is nothing."""
    after = f", after {attempts} more attempts" if attempts else ""
    session = Session([], None, None, Limits(), 0)
    lanes = [Lane(subject, reason=f"{error}{after}") for subject in subjects]
    return [replace(_profile(lane, session, target), unreached=True) for lane in lanes]


def _take_rounds(session: Session, rounds: int, cap: float) -> Iterator[int]:
    """Take rounds until enough is known; yields the number of each."""
    sets = max((len(lane.sets) for lane in session.everyone()), default=1)
    order = random.Random(session.seed + sets - 1)  # noqa: S311 - an order, not a secret
    start, number, next_look, look = time.monotonic(), 0, rounds, 0
    while session.everyone():
        lanes = session.everyone()
        order.shuffle(lanes)
        for lane in lanes:
            with failing(lane):
                lane.sets[-1].append(lane.time(lane.burst))
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


def _note_noise(session: Session, target: TargetSpec, observer: Observer) -> None:
    noise = session.ratio(session.twin)
    if noise is not None and session.is_noisy():
        point, (low, high) = noise
        observer.note(
            f"{target.name}: the baseline against itself measures {point:.3f}x ({low:.3f} to "
            f"{high:.3f}), so differences of that size mean nothing on this machine"
        )


def _profile(lane: Lane, session: Session, target: TargetSpec) -> Profile:
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
    found = percentiles(lane.sets, session.seed)
    samples, samples_interval = throughput(lane.turns, target.batch, session.seed) or (None, None)
    return replace(
        profile,
        rounds=len(lane.turns),
        samples=sum(map(len, lane.turns)),
        latency={name: value for name, (value, _) in found.items()},
        interval={name: interval for name, (_, interval) in found.items()},
        ratio=ratio,
        ratio_interval=ratio_interval,
        cold_start=lane.cold_start,
        peak_memory=lane.peak_memory,
        throughput=samples,
        throughput_interval=samples_interval,
        loads=tuple(load(rate, held, session.seed) for rate, held in lane.spells.items()),
        callers=tuple(
            concurrency(number, held, target.batch, session.seed)
            for number, held in lane.called.items()
        ),
        operators=lane.operators,
        session={**session_settings(target), **subject.settings},
        quantiles=quantiles(lane.turns) if lane.turns else (),
        idle=tuple(idle(gap, held) for gap, held in sorted(lane.rested.items())),
    )
