"""One artifact in one runtime, in a process of its own: `python -m lepton_compress.profile.worker`.

The parent writes lines to stdin and reads one line of JSON from stdout for each:

    {"runtime": ...}  -> {"cold_start": seconds, "first_call": seconds, "peak_memory": bytes|null}
    run N             -> {"nanoseconds": [N integers]}
    serve RATE N SEED -> {"nanoseconds": [N integers]}, each of a request that arrives by itself
    idle GAP N        -> {"nanoseconds": [N integers]}, each after a rest of GAP seconds
    callers K N CPUS  -> {"nanoseconds": [N integers], "seconds": all of it}, of K callers at once
    quit              -> nothing; the process ends, as it does when stdin ends

The first line holds the fields of `process.Job`, `started` (the parent's time.monotonic() just
before it started this process) and `search` (the parent's sys.path). On another machine there is
no such package: this file is copied there (it runs on Python 3.8), and `program` in the first line
names a file beside it that has the `PACKAGES` and the function `load(path, threads)` of a runtime.
With `operators` in it, the only answer is {"operators": [[type, element type, nodes, seconds]]}.

Whatever goes wrong is answered as {"error": "one line"}, and the process ends. Between commands it
does nothing at all, so that it cannot disturb the measurement of another.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import signal
import sys
import time
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

# No package is imported here: what an import takes belongs either to the runtime's cold start or
# to the tool's own share of it, and `_load` tells them apart.
if TYPE_CHECKING:
    from lepton_compress.targets.runner import Runner

LEAD_IN_SHARE = 5
LEAST_LEAD_IN = 2
SETTLE_SECONDS = 0.001
SETTLE_LIMIT_SECONDS = 0.25
PR_SET_PDEATHSIG = 1


def main() -> None:
    """Answer commands until `quit` or the end of stdin."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides when to end
    _end_with_parent()
    commands, answers = _private_streams()
    try:
        _serve(commands, answers)
    except Exception as error:
        traceback.print_exc()
        _answer(answers, {"error": _describe(error)})
    # Tearing down an interpreter with these libraries takes longer than a turn.
    os._exit(0)


def _serve(commands: TextIO, answers: TextIO) -> None:
    line = commands.readline()
    if not line:
        return
    job = json.loads(line)
    sys.path[:] = job.get("search", sys.path)
    if job["cpus"]:
        # Before any import, so that every library sizes its thread pools by what it may use.
        os.sched_setaffinity(0, job["cpus"])
    if job.get("operators"):
        _answer(answers, {"operators": _operators(job)})
        return
    runner, feeds, report = _load(job)
    _answer(answers, report)
    # What is alive now stays alive: the collector need not look at it again.
    gc.collect()
    gc.freeze()
    for line in commands:
        command, *given = line.split()
        if command == "run":
            times = _time_calls(runner, feeds, int(given[0]))
        elif command == "serve":
            sojourns = _beside("arrivals").sojourns
            gc.disable()
            rate, count, seed = float(given[0]), int(given[1]), int(given[2])
            times = sojourns(lambda: runner.run(feeds), rate, count, seed)
            gc.enable()
        elif command == "idle":
            times = _time_after_rests(runner, feeds, float(given[0]), int(given[1]))
        elif command == "callers":
            cpus = [int(each) for each in given[2].split(",")] if given[2:] else []
            share = _beside("callers").share
            gc.disable()
            times, seconds = share(lambda: runner.run(feeds), int(given[0]), int(given[1]), cpus)
            gc.enable()
            _answer(answers, {"nanoseconds": times, "seconds": seconds})
            continue
        else:
            return
        if job["threads"] > 1:
            _settle()
        _answer(answers, {"nanoseconds": times})


def _load(job: dict[str, Any]) -> tuple[Runner, dict[str, Any], dict[str, Any]]:
    """Load the artifact and run it once.

    `cold_start` leaves out what only the tool needs: its own imports and reading the inputs.
    """
    before_tool = time.monotonic()
    function = _runtime(job)
    after_tool = time.monotonic()
    packages = getattr(sys.modules[function.__module__], "PACKAGES", None)
    for name in packages or ():
        importlib.import_module(name)
    before_inputs = time.monotonic()
    feeds = _read_inputs(Path(job["inputs"]), job["names"])
    memory = _high_water()
    after_inputs = time.monotonic()
    settings = [job["settings"]] if job.get("settings") else []
    runner: Runner = function(Path(job["path"]), job["threads"], *settings)
    loaded = time.monotonic()
    runner.run(feeds)
    end = time.monotonic()
    tool = (after_tool - before_tool) + (after_inputs - before_inputs)
    report = {
        "cold_start": end - job["started"] - tool,
        "first_call": end - loaded,
        # Unknown where the runtime's imports cannot be told from the model.
        "peak_memory": None if packages is None else _high_water() - memory,
    }
    return runner, feeds, report


def _runtime(job: dict[str, Any]) -> Any:
    """The function that loads an artifact: of a file, or of the plug-in."""
    if job.get("program"):
        return importlib.import_module(job["program"]).load
    from lepton_compress import registry

    return registry.get("runtime", job["runtime"]).function


def _operators(job: dict[str, Any]) -> list[Any]:
    """Time by operator, of a runtime whose module can tell; else nothing."""
    function = _runtime(job)
    measured = getattr(sys.modules[function.__module__], "operators", None)
    if measured is None:
        return []
    feeds = _read_inputs(Path(job["inputs"]), job["names"])
    rows: list[Any] = measured(Path(job["path"]), job["threads"], feeds)
    return rows


def _beside(name: str) -> Any:
    """A module that lies where this file does."""
    return importlib.import_module(f"{__package__}.{name}" if __package__ else name)


def _read_inputs(path: Path, names: list[str]) -> dict[str, Any]:
    import numpy as np

    with np.load(path, allow_pickle=False) as file:
        return {name: file[f"arr_{index}"] for index, name in enumerate(names)}


def _time_calls(runner: Runner, feeds: dict[str, Any], count: int) -> list[int]:
    """Nanoseconds of each of `count` calls, after some untimed ones.

    Another process has used the caches since the last turn; without the lead-in its traces would
    be the slowest percents of this one's calls.
    """
    run, clock = runner.run, time.perf_counter_ns
    times = [0] * count
    gc.disable()
    try:
        for _ in range(max(LEAST_LEAD_IN, count // LEAD_IN_SHARE)):
            run(feeds)
        for index in range(count):
            start = clock()
            run(feeds)
            times[index] = clock() - start
    finally:
        gc.enable()
    return times


def _time_after_rests(runner: Runner, feeds: dict[str, Any], gap: float, count: int) -> list[int]:
    """Nanoseconds of each of `count` calls, with a rest of `gap` seconds before it."""
    run, clock = runner.run, time.perf_counter_ns
    times = [0] * count
    gc.disable()
    try:
        run(feeds)  # since the last turn it may have rested for longer
        for index in range(count):
            time.sleep(gap)
            start = clock()
            run(feeds)
            times[index] = clock() - start
    finally:
        gc.enable()
    return times


def _settle() -> None:
    """Wait until this process's threads rest: they spin for a while after a call."""
    limit = time.monotonic() + SETTLE_LIMIT_SECONDS
    while time.monotonic() < limit:
        used = time.process_time()
        time.sleep(SETTLE_SECONDS)
        if time.process_time() - used < SETTLE_SECONDS / 4:
            return


def _high_water() -> int:
    """The most memory this process has held so far, in bytes."""
    status = Path("/proc/self/status")
    if status.is_file():
        # Not ru_maxrss: on Linux a child begins with the high-water mark of its parent.
        for line in status.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    import resource

    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def _private_streams() -> tuple[TextIO, TextIO]:
    """stdin and stdout for the protocol alone: what libraries print goes to stderr."""
    commands = os.fdopen(os.dup(0), encoding="utf-8")
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.close(null)
    os.dup2(2, 1)
    return commands, answers


def _end_with_parent() -> None:
    """Ask Linux to end this process with its parent, even in a call that never returns."""
    if sys.platform == "linux":
        import ctypes

        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def _answer(answers: TextIO, value: dict[str, Any]) -> None:
    answers.write(json.dumps(value) + "\n")
    answers.flush()


def _describe(error: Exception) -> str:
    """One line; errors that have a `problem`, as the tool's own, say all there is to say."""
    text = " ".join(str(error).split())
    return text if hasattr(error, "problem") else f"{type(error).__name__}: {text}"


if __name__ == "__main__":
    main()
