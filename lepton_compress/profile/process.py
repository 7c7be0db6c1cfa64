"""The parent's end of a worker: start it, give it turns, learn why it failed, end it."""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import IO, Any, Self, cast

import numpy as np
from numpy.typing import NDArray

from lepton_compress.artifacts import Json
from lepton_compress.errors import LeptonError

# -P: a file in the current folder must not stand in for a library's module.
COMMAND = (sys.executable, "-P", "-m", "lepton_compress.profile.worker")
END_SECONDS = 1.0
CHUNK = 1 << 16


@dataclass(frozen=True)
class Job:
    """What one worker runs.

    Attributes:
        runtime: name of the runtime plug-in.
        path: the artifact.
        threads: how many threads compute one call.
        cpus: the CPUs it may use; empty for any.
        inputs: an .npz file with one batch, its arrays in the order of `names`.
        names: of the inputs.
        settings: of the session, other than the runtime's own; for a runtime with `SETTINGS`.
        operators: run under the runtime's profiler and tell the time of each operator, once.
        program: a module with the `load` of the runtime, in place of its plug-in: a worker that
            does without the registry starts sooner.
    """

    runtime: str
    path: str
    threads: int
    cpus: tuple[int, ...]
    inputs: str
    names: tuple[str, ...]
    settings: dict[str, Json] = field(default_factory=dict)
    operators: bool = False
    program: str = ""


@dataclass(frozen=True)
class Called:
    """What callers at the same time have seen.

    Attributes:
        times: (calls,) nanoseconds of each call.
        seconds: from the first call's start to the last one's end.
        cpus: that the callers could use; 0 where that is not known.
    """

    times: NDArray[np.int64]
    seconds: float
    cpus: int = 0

    @classmethod
    def of(cls, answer: Mapping[str, Any]) -> Called:
        """As a worker answers."""
        return cls(np.asarray(answer["nanoseconds"], dtype=np.int64), float(answer["seconds"]))


@dataclass(frozen=True)
class Ready:
    """What a worker reports once it has its first result: seconds, seconds and bytes."""

    cold_start: float
    first_call: float
    peak_memory: int | None


class Worker:
    """A running worker. Leaving the `with` block ends it."""

    def __init__(self, job: Job) -> None:
        """Start the process; `ready` waits for it.

        Raises:
            LeptonError: the system refuses another process.
        """
        self._said = bytearray()
        # A plug-in's error names the file itself.
        self._where = job.path if job.program else ""
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - closed by `close`
        started = time.monotonic()  # one clock for all processes of a machine
        try:
            self._process = subprocess.Popen(
                COMMAND,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._errors,
                bufsize=0,
            )
        except OSError as error:
            self._errors.close()
            raise LeptonError(f"cannot start a process: {error}") from error
        # Pipes were asked for, so they are there.
        self._commands = cast(IO[bytes], self._process.stdin)
        self._answers = cast(IO[bytes], self._process.stdout)
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._answers, selectors.EVENT_READ)
        # Its search path is this process's, so that it finds the same plug-ins.
        self._send(
            json.dumps({**asdict(job), "started": started, "search": list(map(str, sys.path))})
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def pid(self) -> int:
        """Of the process."""
        return self._process.pid

    def ready(self, timeout: float) -> Ready:
        """Wait until the artifact is loaded and has given its first result.

        Raises:
            LeptonError: it failed, ended, or took longer than `timeout` seconds.
        """
        return Ready(**self._answer(timeout))

    def run(self, count: int, timeout: float) -> NDArray[np.int64]:
        """Time `count` calls.

        Returns:
            (count,) nanoseconds of each call.

        Raises:
            LeptonError: it failed, ended, or took longer than `timeout` seconds.
        """
        self._send(f"run {count}")
        return np.asarray(self._answer(timeout)["nanoseconds"], dtype=np.int64)

    def idle(self, gap: float, count: int, timeout: float) -> NDArray[np.int64]:
        """Time `count` calls, each after a rest of `gap` seconds; otherwise as `run`."""
        self._send(f"idle {gap!r} {count}")
        return np.asarray(self._answer(timeout)["nanoseconds"], dtype=np.int64)

    def call(self, callers: int, count: int, cpus: tuple[int, ...], timeout: float) -> Called:
        """Let so many callers share `count` calls; `cpus` are theirs meanwhile, empty for any.

        Raises:
            LeptonError: as `run`.
        """
        self._send(f"callers {callers} {count} {','.join(map(str, cpus))}".rstrip())
        return Called.of(self._answer(timeout))

    def operators(self, timeout: float) -> list[list[Json]]:
        """Of a job with `operators`: rows of type, element type, nodes, seconds of one call.

        Raises:
            LeptonError: as `ready`.
        """
        rows: list[list[Json]] = self._answer(timeout)["operators"]
        return rows

    def serve(self, rate: float, count: int, seed: int, timeout: float) -> NDArray[np.int64]:
        """Serve requests that arrive at a rate, see `arrivals.sojourns`.

        Returns:
            (count,) nanoseconds of each from its intended arrival to its end.

        Raises:
            LeptonError: as `run`.
        """
        self._send(f"serve {rate!r} {count} {seed}")
        return np.asarray(self._answer(timeout)["nanoseconds"], dtype=np.int64)

    def close(self) -> None:
        """End the process, by force if need be."""
        if self._errors.closed:
            return
        self._send("quit")
        try:
            self._process.wait(END_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        finally:
            self._selector.close()
            self._errors.close()
            self._commands.close()
            self._answers.close()

    def _send(self, line: str) -> None:
        # A dead worker is noticed, and explained, where its answer is read.
        with contextlib.suppress(BrokenPipeError):
            self._commands.write(line.encode() + b"\n")

    def _answer(self, timeout: float) -> dict[str, Any]:
        deadline = time.monotonic() + timeout
        while b"\n" not in self._said:
            if not self._selector.select(max(0.0, deadline - time.monotonic())):
                self._process.kill()
                raise LeptonError(f"gave no result within {timeout:.3g} s{self._last_words()}")
            chunk = os.read(self._answers.fileno(), CHUNK)
            if not chunk:
                raise LeptonError(self._why_ended() + self._last_words())
            self._said += chunk
        line, _, rest = self._said.partition(b"\n")
        self._said = rest
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise LeptonError(answer["error"], where=self._where)
        return answer

    def _why_ended(self) -> str:
        return why_ended(self._process.wait())

    def _last_words(self) -> str:
        """The last line it wrote to stderr."""
        size = self._errors.seek(0, os.SEEK_END)
        self._errors.seek(max(0, size - CHUNK))
        lines = self._errors.read().decode(errors="replace").split("\n")
        said = [line.strip() for line in lines if line.strip()]
        return told(said[-1][:300]) if said else ""


def why_ended(code: int) -> str:
    """What a process's exit code says; a negative one is a signal."""
    if code >= 0:
        return f"the process ended by itself with exit code {code}"
    hint = " (out of memory, perhaps)" if -code == signal.SIGKILL else ""
    return f"the process was ended by {signal.Signals(-code).name}{hint}"


def told(said: str) -> str:
    """A process's last words, behind the reason of its end."""
    return f"; it last said: {said}" if said else ""
