"""An artifact on its way through a measurement: its worker, and what that has told so far."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lepton_compress import registry
from lepton_compress.artifacts import Json, OperatorTime
from lepton_compress.errors import DeviceError, LeptonError
from lepton_compress.profile.places import Running, Site
from lepton_compress.profile.process import Called, Job
from lepton_compress.recipe import TargetSpec

TURN_SECONDS = 0.005
MIN_CALLS, MAX_CALLS = 3, 2000
STEADY = 0.03
MAX_WARM_UP_BURSTS = 20
MAX_WARM_UP_SECONDS = 3.0

START_TIMEOUT = 300.0
MIN_TURN_TIMEOUT = 30.0
TURN_TIMEOUT_FACTOR = 20


@dataclass(frozen=True)
class Subject:
    """An artifact to measure, with settings of its session other than the runtime's own."""

    candidate: str
    format: str
    path: Path
    settings: Mapping[str, Json] = field(default_factory=dict)


@dataclass
class Lane:
    """A subject with its worker, and what has been measured so far.

    Attributes:
        burst: calls in one turn.
        call: seconds of one, as last seen.
        sets: for each set of processes a list of turns, each (calls,) nanoseconds.
        spells: of requests that arrived, by rate.
        rested: of calls after rests, by the seconds of one.
        called: of callers at the same time, by their number.
        reason: why it failed; empty while it has not.
    """

    subject: Subject
    worker: Running | None = None
    burst: int = MIN_CALLS
    call: float = 0.0
    sets: list[list[NDArray[np.int64]]] = field(default_factory=lambda: [[]])
    spells: dict[float, list[NDArray[np.int64]]] = field(default_factory=dict)
    rested: dict[float, list[NDArray[np.int64]]] = field(default_factory=dict)
    called: dict[int, list[Called]] = field(default_factory=dict)
    operators: tuple[OperatorTime, ...] = ()
    cold_start: float | None = None
    peak_memory: int | None = None
    reason: str = ""

    @property
    def turns(self) -> list[NDArray[np.int64]]:
        """Of all sets of processes."""
        return [turn for turns in self.sets for turn in turns]

    def medians(self, number: int = -1) -> NDArray[np.float64]:
        """(rounds,) median nanoseconds of each turn of a set."""
        return np.array([np.median(turn) for turn in self.sets[number]])

    def time(self, count: int) -> NDArray[np.int64]:
        """(count,) nanoseconds of calls made now; a call's length so far sets the patience."""
        times = self.running().run(count, self.patience(count))
        self.call = float(np.median(times)) * 1e-9
        return times

    def patience(self, calls: float) -> float:
        """Seconds to wait for so many calls."""
        return max(MIN_TURN_TIMEOUT, TURN_TIMEOUT_FACTOR * calls * self.call)

    def running(self) -> Running:
        """The worker of a lane that has started."""
        assert self.worker is not None  # noqa: S101 - only lanes that started are asked
        return self.worker

    def start(self, place: Site, job: Job, stack: contextlib.ExitStack) -> None:
        """Start a worker and wait for its first result; `stack` ends it.

        Raises:
            LeptonError: it fails, or takes too long.
        """
        path, settings = str(self.subject.path.resolve()), dict(self.subject.settings)
        self.worker = stack.enter_context(place.start(replace(job, path=path, settings=settings)))
        ready = self.worker.ready(START_TIMEOUT)
        self.call = ready.first_call
        if self.cold_start is None:
            self.cold_start, self.peak_memory = ready.cold_start, ready.peak_memory

    def warm_up(self) -> None:
        """Run bursts until two in a row have nearly the same median; find how many fill a turn."""
        end = time.monotonic() + MAX_WARM_UP_SECONDS
        before = float(np.median(self.time(self.burst)))
        for _ in range(MAX_WARM_UP_BURSTS):
            self.burst = int(np.clip(TURN_SECONDS / max(self.call, 1e-9), MIN_CALLS, MAX_CALLS))
            now = float(np.median(self.time(self.burst)))
            if abs(now - before) <= STEADY * before or time.monotonic() > end:
                return
            before = now


@contextlib.contextmanager
def failing(lane: Lane) -> Iterator[None]:
    """A worker's failure is the reason of its lane; what it has measured so far does not count."""
    try:
        yield
    except DeviceError:
        raise  # it is nobody's own
    except LeptonError as error:
        lane.reason = str(error)
        lane.sets = [[]]
        if lane.worker is not None:
            lane.worker.close()


def choose_cpus(place: Site, threads: int) -> tuple[int, ...]:
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


def job_of(
    target: TargetSpec, cpus: tuple[int, ...], inputs: Mapping[str, NDArray[Any]], folder: Path
) -> Job:
    """What all workers have in common, the inputs written to a file in `folder`."""
    file = folder / "inputs.npz"
    # By position: an input's name may be any text, even one that np.savez takes for an argument.
    np.savez(file, *(np.asarray(array, order="C") for array in inputs.values()))
    return Job(target.runtime, "", target.threads, cpus, str(file), tuple(inputs))


def session_settings(target: TargetSpec) -> dict[str, Json]:
    """How the target's runtime opens a session, where it tells."""
    module = sys.modules[registry.get("runtime", target.runtime).function.__module__]
    tell = getattr(module, "settings", None)
    return dict(tell(target.threads)) if tell else {}
