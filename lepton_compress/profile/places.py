"""Where artifacts are measured: this machine, or a device behind a connection.

Both give workers that speak of the same things: a first result, then turns. What a worker on a
device says was timed there; the connection only carries it.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from lepton_compress import registry
from lepton_compress.artifacts import Json
from lepton_compress.errors import LeptonError
from lepton_compress.profile import address as addresses
from lepton_compress.profile import arrivals, callers, ssh, worker
from lepton_compress.profile.address import Address
from lepton_compress.profile.process import Called, Job, Ready, Worker, told, why_ended
from lepton_compress.profile.ssh import Connection
from lepton_compress.recipe import TargetSpec
from lepton_compress.targets import frames


class Running(Protocol):
    """An artifact, loaded and waiting for its turns."""

    def ready(self, timeout: float) -> Ready:
        """Wait for the first result."""

    def run(self, count: int, timeout: float) -> NDArray[np.int64]:
        """(count,) nanoseconds of calls made now."""

    def serve(self, rate: float, count: int, seed: int, timeout: float) -> NDArray[np.int64]:
        """(count,) nanoseconds of requests that arrive at a rate."""

    def idle(self, gap: float, count: int, timeout: float) -> NDArray[np.int64]:
        """(count,) nanoseconds of calls, each after so many seconds of rest."""

    def call(self, callers: int, count: int, cpus: tuple[int, ...], timeout: float) -> Called:
        """Let so many callers share `count` calls."""

    def operators(self, timeout: float) -> list[list[Json]]:
        """What a job with `operators` tells."""

    def close(self) -> None:
        """End it."""


class Site(Protocol):
    """A machine to measure on.

    Attributes:
        device: what it is, as a result's environment tells it; empty for this machine.
        cpus: those that can be used; None where a process cannot be pinned.
        cores: how many those are.
    """

    @property
    def device(self) -> dict[str, Json]: ...

    @property
    def cpus(self) -> Sequence[int] | None: ...

    @property
    def cores(self) -> int: ...

    def start(self, job: Job) -> contextlib.AbstractContextManager[Running]:
        """Start a worker; leaving the block ends it."""


class Here:
    """This machine."""

    def __init__(self) -> None:
        self.device: dict[str, Json] = {}
        pinned = hasattr(os, "sched_getaffinity")
        self.cpus = sorted(os.sched_getaffinity(0)) if pinned else None
        self.cores = len(self.cpus) if self.cpus is not None else os.cpu_count() or 1

    def start(self, job: Job) -> Worker:
        return Worker(replace(job, program=module_of(job.runtime)))


class There:
    """A device behind a connection."""

    def __init__(self, connection: Connection, program: Path) -> None:
        facts = connection.facts
        self.connection = connection
        self.device: dict[str, Json] = addresses.environment(connection.address.host, facts)
        self.cpus: list[int] | None = facts["cpus"]
        self.cores = len(self.cpus) if self.cpus is not None else facts["cores"] or 1
        self._program = program
        self._count = 0

    def start(self, job: Job) -> DeviceWorker:
        self._count += 1
        return DeviceWorker(self.connection, self._program, job, str(self._count))


class DeviceWorker:
    """A worker on a device. Leaving the `with` block ends it."""

    def __init__(self, connection: Connection, program: Path, job: Job, name: str) -> None:
        self._connection, self._name = connection, name
        script = Path(worker.__file__)
        for each in (script, Path(arrivals.__file__), Path(callers.__file__)):
            connection.put(each, each.name)
        connection.put(program, program.name)
        connection.put(Path(frames.__file__), Path(frames.__file__).name)
        self._message = {
            "do": "start",
            "worker": name,
            "script": script.name,
            "job": {
                "program": program.stem,
                "path": connection.put(Path(job.path)),
                "inputs": connection.put(Path(job.inputs)),
                "names": job.names,
                "threads": job.threads,
                "cpus": job.cpus,
                "settings": job.settings,
                "operators": job.operators,
            },
        }
        self._file = job.path

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def ready(self, timeout: float) -> Ready:
        """As `Worker.ready`.

        Raises:
            LeptonError: as there.
            DeviceError: the connection is lost.
        """
        return Ready(**self._ask(self._message, timeout))

    def run(self, count: int, timeout: float) -> NDArray[np.int64]:
        """As `Worker.run`.

        Raises:
            LeptonError: as there.
            DeviceError: the connection is lost.
        """
        answer = self._ask({"do": "run", "worker": self._name, "count": count}, timeout)
        return np.asarray(answer["nanoseconds"], dtype=np.int64)

    def serve(self, rate: float, count: int, seed: int, timeout: float) -> NDArray[np.int64]:
        """As `Worker.serve`.

        Raises:
            LeptonError: as there.
            DeviceError: the connection is lost.
        """
        asked = {"do": "serve", "worker": self._name, "rate": rate, "count": count, "seed": seed}
        return np.asarray(self._ask(asked, timeout)["nanoseconds"], dtype=np.int64)

    def idle(self, gap: float, count: int, timeout: float) -> NDArray[np.int64]:
        """As `Worker.idle`.

        Raises:
            LeptonError: as there.
            DeviceError: the connection is lost.
        """
        asked = {"do": "idle", "worker": self._name, "gap": gap, "count": count}
        return np.asarray(self._ask(asked, timeout)["nanoseconds"], dtype=np.int64)

    def call(self, callers: int, count: int, cpus: tuple[int, ...], timeout: float) -> Called:
        """As `Worker.call`.

        Raises:
            LeptonError: as there.
            DeviceError: the connection is lost.
        """
        asked = {"do": "call", "worker": self._name, "callers": callers, "count": count}
        return Called.of(self._ask({**asked, "cpus": cpus}, timeout))

    def operators(self, timeout: float) -> list[list[Json]]:
        """As `Worker.operators`.

        Raises:
            LeptonError: as there.
            DeviceError: the connection is lost.
        """
        rows: list[list[Json]] = self._ask(self._message, timeout)["operators"]
        return rows

    def close(self) -> None:
        """End the process there. Where the connection is lost, it has ended, and where a turn was
        interrupted, it ends with the connection."""
        if self._connection.waiting:
            return
        with contextlib.suppress(LeptonError, OSError, ValueError):
            self._connection.ask({"do": "stop", "worker": self._name}, ssh.MESSAGE_TIMEOUT)

    def _ask(self, message: Mapping[str, Any], timeout: float) -> dict[str, Any]:
        answer = self._connection.ask({**message, "timeout": timeout}, timeout)
        if "error" in answer:
            raise LeptonError(answer["error"], where=self._file)
        if "late" in answer:
            raise LeptonError(f"gave no result within {timeout:.3g} s{told(answer['said'])}")
        if "code" in answer:
            raise LeptonError(why_ended(answer["code"]) + told(answer["said"]))
        return answer


@contextlib.contextmanager
def site(target: TargetSpec, folder: Path, leftovers: list[str]) -> Iterator[Site]:
    """The machine of a target, for as long as the block lasts.

    Args:
        target: of the recipe.
        folder: that paths in it are relative to.
        leftovers: folders on the device that lost connections may have left; gets this one's.

    Raises:
        DeviceError: it cannot be reached, or lacks what the runtime needs.
    """
    if not target.host:
        yield Here()
        return
    program, packages = portable(target.runtime)
    with Connection(address(target, folder), packages, leftovers) as connection:
        for error in addresses.lacking(connection.address, connection.facts):
            raise error
        leftovers.append(connection.folder)
        yield There(connection, program)


def address(target: TargetSpec, folder: Path) -> Address:
    """How to reach the device of a target."""
    return Address(
        host=target.host,
        port=target.port,
        identity=folder / Path(target.identity).expanduser() if target.identity else None,
        config=folder / Path(target.ssh_config).expanduser() if target.ssh_config else None,
        python=target.python,
        directory=target.directory,
    )


def portable(runtime: str) -> tuple[Path, tuple[str, ...]]:
    """The file that stands for a runtime on a machine without this package, and what it imports.

    Raises:
        LeptonError: the runtime is unknown, or has no such file.
    """
    module = sys.modules[registry.get("runtime", runtime).function.__module__]
    program: Path | None = getattr(module, "PROGRAM", None)
    if program is None:
        raise LeptonError(f"the runtime {runtime} can only be measured on this machine")
    return program, tuple(getattr(module, "PACKAGES", ()))


def module_of(runtime: str) -> str:
    """The module that stands for a runtime where this package is; empty where the plug-in does,
    which also says what is wrong with its name."""
    with contextlib.suppress(LeptonError):
        function = registry.get("runtime", runtime).function
        module = sys.modules[function.__module__]
        program: Path | None = getattr(module, "PROGRAM", None)
        beside = f"{function.__module__.rpartition('.')[0]}.{program.stem}" if program else ""
        if program and getattr(sys.modules.get(beside), "__file__", "") == str(program):
            return beside
    return ""
