"""What is measured beside the rounds: requests at a rate, calls after rests, callers at once, time
by operator."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from lepton_compress.artifacts import Observer, OperatorTime
from lepton_compress.errors import DeviceError, LeptonError
from lepton_compress.profile.lanes import (
    MAX_CALLS,
    MIN_CALLS,
    MIN_TURN_TIMEOUT,
    START_TIMEOUT,
    TURN_TIMEOUT_FACTOR,
    Lane,
    failing,
)
from lepton_compress.profile.places import Site
from lepton_compress.profile.process import Job
from lepton_compress.profile.rates import ARRIVALS, SPELLS
from lepton_compress.profile.session import Session
from lepton_compress.recipe import TargetSpec

SPELL_SECONDS = 0.05
RESTS = (0.001, 0.01, 0.1)
"""Seconds of rest before a call: what a call takes grows from the first of them to the last, and
hardly beyond."""
RESTED, ASKED_RESTED, LEAST_RESTED = 40, 200, 12
"""Calls after each rest: by default, where it was asked for, and at least for it to be worth it."""
REST_SPELLS = 4
REST_SHARE = 0.1
"""Of the cap that rests may take by default."""
LEAST_SHARED = 100
"""Calls of a spell of callers, at least, so that all spells together have a 99th percentile."""


def serve_requests(session: Session, rate: float) -> None:
    """Spells of arrivals at a rate, the artifacts in turns; each spell the same for all."""
    for spell in range(SPELLS):
        for lane in session.working():
            with failing(lane):
                expected = ARRIVALS * max(1 / rate, lane.call)
                patience = max(MIN_TURN_TIMEOUT, TURN_TIMEOUT_FACTOR * expected)
                served = lane.running().serve(rate, ARRIVALS, session.seed + spell, patience)
                lane.spells.setdefault(rate, []).append(served)


def rest_between(lanes: Sequence[Lane], rests: Sequence[float] | None, cap: float) -> None:
    """Spells of calls after rests, the artifacts in turns.

    Args:
        rests: seconds of rest; None for those of `RESTS` that fit into a tenth of the cap for each
            artifact, the shortest first.
        cap: seconds of measuring.
    """
    for lane in lanes:
        lane.rested.clear()
    counts = affordable(cap) if rests is None else dict.fromkeys(rests, ASKED_RESTED)
    for gap, count in counts.items():
        for _ in range(REST_SPELLS):
            for lane in (each for each in lanes if not each.reason):
                with failing(lane):
                    some = -(-count // REST_SPELLS)
                    patience = max(MIN_TURN_TIMEOUT, TURN_TIMEOUT_FACTOR * some * gap)
                    taken = lane.running().idle(gap, some, patience + lane.patience(some))
                    lane.rested.setdefault(gap, []).append(taken)


def affordable(cap: float) -> dict[float, int]:
    """How many calls after which rests a tenth of the cap has room for."""
    left, found = REST_SHARE * cap, {}
    for gap in RESTS:
        count = min(RESTED, int(left / gap))
        if count >= LEAST_RESTED:
            found[gap] = count
            left -= count * gap
    return found


def serve_callers(session: Session, place: Site, threads: int, callers: int, cap: float) -> None:
    """Spells of callers that never pause, the artifacts in turns.

    A call keeps `threads` CPUs busy, so that the callers get as many times more, as far as there
    are any. A spell has at least `LEAST_SHARED` calls, fewer only where all would take over `cap`
    seconds.
    """
    cpus = tuple(place.cpus[-threads * callers :]) if place.cpus is not None else ()
    counts = {id(lane): _shared(lane, callers, cap) for lane in session.working()}
    for _ in range(SPELLS):
        for lane in session.working():
            with failing(lane):
                count = counts[id(lane)]
                held = lane.running().call(callers, count, cpus, lane.patience(count))
                lane.called.setdefault(callers, []).append(replace(held, cpus=len(cpus)))


def _shared(lane: Lane, callers: int, cap: float) -> int:
    """Calls of one spell."""
    call = max(lane.call, 1e-9)
    wanted = np.clip(SPELL_SECONDS * callers / call, LEAST_SHARED, MAX_CALLS)
    affordable = cap / (SPELLS * call)
    return int(max(MIN_CALLS * callers, min(wanted, affordable)))


def time_operators(
    session: Session, place: Site, job: Job, target: TargetSpec, observer: Observer
) -> None:
    """A pass under the runtime's profiler for each artifact, in a process of its own.

    The profiler slows the calls that it watches down, so that none of them is a sample of latency.
    """
    for lane in session.working():
        path = str(lane.subject.path.resolve())
        try:
            with contextlib.ExitStack() as stack:
                worker = stack.enter_context(place.start(replace(job, path=path, operators=True)))
                lane.operators = shares(worker.operators(START_TIMEOUT))
        except DeviceError:
            raise
        except LeptonError as error:
            name = lane.subject.candidate
            observer.note(f"{target.name}: no time by operator of {name}: {error}")


def shares(rows: list[list[object]]) -> tuple[OperatorTime, ...]:
    """What a worker tells of operators, the slowest first."""
    times = [
        OperatorTime(str(kind), str(dtype), int(str(nodes)), float(str(seconds)), 0.0)
        for kind, dtype, nodes, seconds in rows
    ]
    total = sum(each.seconds for each in times)
    ranked = sorted(times, key=lambda each: (-each.seconds, each.operator, each.dtype))
    return tuple(replace(e, share=e.seconds / total if total else 0.0) for e in ranked)
