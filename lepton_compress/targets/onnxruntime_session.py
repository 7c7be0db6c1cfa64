"""ONNX Runtime's session as every measurement opens it, on this machine and on others.

This file is copied to devices and imported there by `profile/worker.py`: it needs Python 3.8,
numpy and onnxruntime, and nothing of this package but `frames.py`, which lies beside it. `load` is
what a worker calls, or `operators` for the time by operator; `settings` says what may be tuned.
"""

from __future__ import annotations

import importlib
import json
import re
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

PACKAGES = ("numpy", "onnxruntime")

SEVERITY_ERROR = 3
# Longer than any pause between back-to-back calls, short enough to be over before another session
# on the same CPUs takes its turn; ONNX Runtime's own value keeps them busy for some 60 ms.
SPIN_MICROSECONDS = 1000

PROFILED_CALLS, PROFILED_SECONDS, WARM_UP = 40, 0.1, 3
_KERNEL = "_kernel_time"
_SHORT = {"float": "float32", "double": "float64"}

# "[ONNXRuntimeError] : 7 : INVALID_PROTOBUF : ", "Load model from FILE failed:", and the place in
# ONNX Runtime's source with the signature of the function.
_NOISE = re.compile(
    r"\[ONNXRuntimeError\] : \d+ : \w+ : |Load model from .*? failed:|\S+\.(?:cc|h):\d+ \S+\(.*?\) "
)


class SessionError(Exception):
    """ONNX Runtime refuses a file or an input. `problem` is one clause, fit for a user."""

    def __init__(self, problem: str) -> None:
        super().__init__(problem)
        self.problem = problem


class Session:
    """A loaded artifact; `session` is ONNX Runtime's own."""

    def __init__(self, path: str, options: Any) -> None:
        import onnxruntime

        # Warnings about the machine come from the default logger, those about the model from its
        # own.
        onnxruntime.set_default_logger_severity(SEVERITY_ERROR)
        try:
            self.session: Any = onnxruntime.InferenceSession(
                path, options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # its exceptions share no base class
            raise SessionError(f"ONNX Runtime cannot load it: {_clean(error)}") from error
        self.names = [each.name for each in self.session.get_outputs()]

    @property
    def steps(self) -> Any:
        """What the file says of its steps, see `frames`; None unless it is a step model.

        Raises:
            SessionError: what it says is damaged.
        """
        try:
            return frames().read(self.session.get_modelmeta().custom_metadata_map)
        except (ValueError, KeyError, TypeError) as error:
            raise SessionError(f"what it says of its steps cannot be read ({error})") from error

    def run(self, feeds: Any) -> list[Any]:
        """The outputs, in the artifact's order, of inputs by name.

        Raises:
            SessionError: the runtime refuses the arrays, or fails on them.
        """
        try:
            made: list[Any] = self.session.run(self.names, dict(feeds))
        except Exception as error:  # its exceptions share no base class
            raise SessionError(f"ONNX Runtime cannot run it: {_clean(error)}") from error
        return made


def frames() -> Any:
    """The module `frames`, which lies where this file does."""
    return importlib.import_module(f"{__package__}.frames" if __package__ else "frames")


def load(path: Any, threads: int, changes: Any = None) -> Any:
    """An artifact whose `run` takes whole sequences, a step model's too.

    Raises:
        SessionError: as `opened`.
    """
    session = opened(path, threads, changes)
    about = session.steps
    return session if about is None else frames().Stepped(session.run, session.names, about)


def opened(path: Any, threads: int, changes: Any = None) -> Session:
    """Open a file on exactly `threads` threads.

    Args:
        path: an .onnx file.
        threads: how many threads compute one call.
        changes: settings other than those of `settings(threads)`.

    Raises:
        SessionError: ONNX Runtime cannot load the file.
    """
    return Session(str(path), _options({**settings(threads), **(changes or {})}))


def settings(threads: int) -> dict[str, Any]:
    """How a session is opened, in ONNX Runtime's names: attributes of its `SessionOptions`, and
    with dots in their names its session configuration entries.

    Threads that wait for the next call by spinning answer sooner than sleeping ones; this is the
    default of a deployment too, said here so that a later default cannot change a number.
    """
    return {
        "intra_op_num_threads": threads,
        "inter_op_num_threads": 1,
        "execution_mode": "ORT_SEQUENTIAL",
        "graph_optimization_level": "ORT_ENABLE_ALL",
        "enable_cpu_mem_arena": True,
        "session.intra_op.allow_spinning": "1",
        "session.intra_op.spin_duration_us": str(SPIN_MICROSECONDS),
    }


def alternatives(threads: int) -> list[dict[str, Any]]:
    """Changes to `settings` that may be faster, none with more than `threads` threads."""
    found: list[dict[str, Any]] = [
        {"graph_optimization_level": "ORT_ENABLE_EXTENDED"},
        {"graph_optimization_level": "ORT_ENABLE_BASIC"},
        {"enable_cpu_mem_arena": False},
    ]
    if threads > 1:
        found.append({"session.intra_op.allow_spinning": "0"})
        found.append(
            {
                "execution_mode": "ORT_PARALLEL",
                "inter_op_num_threads": threads,
                "intra_op_num_threads": 1,
            }
        )
    fewer = 1
    while fewer < threads:
        found.append({"intra_op_num_threads": fewer})
        fewer *= 2
    return found


def operators(path: Any, threads: int, feeds: Any) -> list[list[Any]]:
    """Where the time of a call goes, by ONNX Runtime's own profiler; a step model's call takes a
    whole sequence, of which each frame takes as long as the first.

    Returns:
        Rows of operator type, element types, nodes, and seconds of one call in all of them.

    Raises:
        SessionError: ONNX Runtime cannot load or run the file.
    """
    with tempfile.TemporaryDirectory() as folder:
        options = _options(settings(threads))
        options.enable_profiling = True
        options.profile_file_prefix = str(Path(folder) / "profile")
        session = Session(str(path), options)
        about, calls = session.steps, 1
        if about is not None:
            calls = frames().count(feeds[about["frame"]["input"]], about["frame"])
            feeds = frames().first(feeds, about)
        end = time.perf_counter() + PROFILED_SECONDS
        for number in range(WARM_UP + PROFILED_CALLS):
            session.run(feeds)
            if number > WARM_UP and time.perf_counter() > end:
                break
        events = json.loads(Path(session.session.end_profiling()).read_text(encoding="utf-8"))
    found: dict[tuple[str, str], list[float]] = {}
    for _, kind, takes, gives, seconds in kernels(events, WARM_UP):
        types = ">".join(dict.fromkeys(each for each in (takes, gives) if each))
        found.setdefault((kind, types), []).append(seconds)
    return [[kind, types, len(held), calls * sum(held)] for (kind, types), held in found.items()]


def kernels(events: Any, warm_up: int) -> list[tuple[str, str, str, str, float]]:
    """Every node in a profile's events once: its name, operator type, the element types of its
    first input and output, and seconds of one run.

    Seconds are the mean over the faster half of the runs after `warm_up` of them: in the other,
    something else may have had the processor. Times come in whole microseconds, so that only a
    mean can tell short ones apart.
    """
    taken: dict[tuple[str, str], list[float]] = {}
    about: dict[tuple[str, str], Any] = {}
    for event in events:
        name = str(event.get("name", ""))
        if event.get("cat") == "Node" and name.endswith(_KERNEL):
            key = (name[: -len(_KERNEL)], str(event["args"].get("node_index", "")))
            taken.setdefault(key, []).append(event["dur"] * 1e-6)
            about[key] = event["args"]
    found = []
    for key, seconds in taken.items():
        args = about[key]
        types = _dtype(args.get("input_type_shape")), _dtype(args.get("output_type_shape"))
        usual = statistics.fmean(faster_half(seconds[warm_up:] or seconds))
        found.append((key[0], str(args["op_name"]), *types, usual))
    return found


def faster_half(seconds: list[float]) -> list[float]:
    """Without those in which something else may have had the processor."""
    return sorted(seconds)[: max(1, len(seconds) // 2)]


def _dtype(tensors: Any) -> str:
    """Element type of the first tensor in an event's list of `{type: shape}`."""
    first = next(iter(tensors[0]), "") if tensors else ""
    return _SHORT.get(first, first)


def _options(asked: dict[str, Any]) -> Any:
    """Session options that say what `settings` does: one call at a time, and no warnings."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = SEVERITY_ERROR
    kinds = {
        "execution_mode": onnxruntime.ExecutionMode,
        "graph_optimization_level": onnxruntime.GraphOptimizationLevel,
    }
    for name, value in asked.items():
        if "." in name:
            options.add_session_config_entry(name, value)
        else:
            setattr(options, name, getattr(kinds[name], value) if name in kinds else value)
    return options


def _clean(error: Exception) -> str:
    """What ONNX Runtime said, without codes, paths and its source's signatures."""
    return _NOISE.sub("", str(error)).strip().rstrip(".") or type(error).__name__
