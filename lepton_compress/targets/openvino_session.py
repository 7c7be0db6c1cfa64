"""OpenVINO's compiled model as every measurement opens it, on this machine and on others.

This file is copied to devices and imported there by `profile/worker.py`: it needs Python 3.8,
numpy and openvino, and nothing of this package but `frames.py`, which lies beside it. `load` is
what a worker calls, or `operators` for the time by operator; `settings` says what may be tuned.

On a processor with bfloat16 instructions OpenVINO computes float graphs in it unless told
otherwise, which gives other answers: `settings` asks for float32. It also takes arrays of another
shape or element type than the file says, or none, and computes something; here they are refused.
"""

from __future__ import annotations

import importlib
import re
import statistics
import sys
import threading
import time
from pathlib import Path
from typing import Any

PACKAGES = ("numpy", "openvino")

# OpenVINO reports that it was imported over the network; without this package it has nothing to
# do so with, and says nothing of it.
sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]

PROFILED_CALLS, PROFILED_SECONDS, WARM_UP = 40, 0.1, 3
_TYPES = {
    **{
        f"{kind}{bits}": f"{name}{bits}"
        for kind, name in (("i", "int"), ("u", "uint"))
        for bits in (8, 16, 32, 64)
    },
    **{f"f{bits}": f"float{bits}" for bits in (16, 32, 64)},
    "bf16": "bfloat16",
    "boolean": "bool",
}
"""OpenVINO's short name of a type to numpy's."""

# "Exception from FILE:LINE:" and "Check 'CONDITION' failed at FILE:LINE:".
_NOISE = re.compile(
    r"Exception from \S+:\d+:|Check '.*?' failed at \S+:\d+:|FrontEnd API failed with \w+:|"
    r"While validating (?:ONNX )?node '.*?':?(?=\s)|\[ONNX Frontend\]"
)


class SessionError(Exception):
    """OpenVINO refuses a file or an input. `problem` is one clause, fit for a user."""

    def __init__(self, problem: str) -> None:
        super().__init__(problem)
        self.problem = problem


class Tensor:
    """An input or output: its name, numpy's element type, and its shape with None for a size that
    the file leaves open."""

    def __init__(self, port: Any) -> None:
        import numpy as np

        self.name: str = port.any_name
        kind = str(port.element_type.get_type_name())
        if kind not in _TYPES or kind == "bf16":
            raise ValueError(f"{self.name} is {kind}, and only numpy's types can be given")
        self.dtype = np.dtype(_TYPES[kind])
        self.shape = tuple(
            None if size.is_dynamic else size.get_length() for size in port.partial_shape
        )

    def refuses(self, array: Any) -> str:
        """What is wrong with an array for it; empty where it fits."""
        if array.dtype != self.dtype:
            return f"{self.name} is {self.dtype}, and is given {array.dtype}"
        shape = array.shape
        if len(shape) == len(self.shape) and all(
            size is None or size == given
            for size, given in zip(self.shape, shape)  # noqa: B905 - Python 3.8 knows no `strict`
        ):
            return ""
        held = ", ".join("?" if size is None else str(size) for size in self.shape)
        return f"{self.name} has the shape ({held}), and is given {shape}"


class Session:
    """A loaded artifact; `compiled` is OpenVINO's own."""

    def __init__(self, path: str, settings: Any) -> None:
        import openvino

        if not Path(path).is_file():
            raise SessionError("no such file" if not Path(path).exists() else "is no file")
        try:
            # Any other reader would try the file too, and print what it thinks of it.
            reader = openvino.frontend.FrontEndManager().load_by_framework("onnx")
            model = reader.convert(reader.load(path))
            self.compiled: Any = openvino.Core().compile_model(model, "CPU", dict(settings))
            self.inputs = [Tensor(each) for each in self.compiled.inputs]
            self.outputs = [Tensor(each) for each in self.compiled.outputs]
        except Exception as error:  # its exceptions share no base class
            raise SessionError(f"OpenVINO cannot load it: {_clean(error)}") from error
        if not self.outputs:
            raise SessionError("is no ONNX model")
        self.names = [each.name for each in self.outputs]
        about = model.get_rt_info()
        held = about["framework"] if "framework" in about else {}  # noqa: SIM401 - not a dict
        self._metadata = {key: each.value for key, each in dict(held).items()}
        # A request computes one call at a time: callers at the same time have one each.
        self._requests = threading.local()

    @property
    def steps(self) -> Any:
        """What the file says of its steps, see `frames`; None unless it is a step model.

        Raises:
            SessionError: what it says is damaged.
        """
        try:
            return frames().read(self._metadata)
        except (ValueError, KeyError, TypeError) as error:
            raise SessionError(f"what it says of its steps cannot be read ({error})") from error

    @property
    def request(self) -> Any:
        """This thread's own."""
        made = getattr(self._requests, "made", None)
        if made is None:
            made = self._requests.made = self.compiled.create_infer_request()
        return made

    def run(self, feeds: Any) -> list[Any]:
        """The outputs, in the artifact's order, of inputs by name.

        Raises:
            SessionError: the arrays do not fit, or the runtime fails on them.
        """
        names = [each.name for each in self.inputs]
        if feeds.keys() != set(names):
            given = ", ".join(feeds) or "nothing"
            raise SessionError(f"it takes {', '.join(names)}, and is given {given}")
        for each in self.inputs:
            wrong = each.refuses(feeds[each.name])
            if wrong:
                raise SessionError(wrong)
        open_ended = [each for each in self.inputs if each.shape[:1] == (None,)]
        if len({len(feeds[each.name]) for each in open_ended}) > 1:
            raise SessionError("its inputs are given for different numbers of samples")
        try:
            # What is given is only read, and lives as long as the call; what comes out is the
            # request's own memory, which the next call writes to.
            made = self.request.infer(dict(feeds), share_inputs=True, share_outputs=False)
            return list(made.values())  # by the output's index it would look through all of them
        except Exception as error:  # its exceptions share no base class
            raise SessionError(f"OpenVINO cannot run it: {_clean(error)}") from error


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
        SessionError: OpenVINO cannot load the file.
    """
    return Session(str(path), {**settings(threads), **(changes or {})})


def settings(threads: int) -> dict[str, Any]:
    """How a model is compiled, in OpenVINO's names. What pins threads is who measures; OpenVINO
    would pin them to processors that it may not use."""
    return {
        "INFERENCE_NUM_THREADS": threads,
        "NUM_STREAMS": 1,
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_PRECISION_HINT": "f32",
        "ENABLE_CPU_PINNING": False,
    }


def alternatives(threads: int) -> list[dict[str, Any]]:
    """Changes to `settings` that may be faster, none with more than `threads` threads. Another
    precision is none of them: it is another model; nor is CPU_DENORMALS_OPTIMIZATION, which flushes
    denormals to zero in the whole thread that compiles, and leaves it so."""
    found: list[dict[str, Any]] = []
    fewer = 1
    while fewer < threads:
        found.append({"INFERENCE_NUM_THREADS": fewer})
        fewer *= 2
    return found


def operators(path: Any, threads: int, feeds: Any) -> list[list[Any]]:
    """Where the time of a call goes, by OpenVINO's own profiler; a step model's call takes a whole
    sequence, of which each frame takes as long as the first.

    Returns:
        Rows of operator type, element type computed in, nodes, and seconds of one call in all.

    Raises:
        SessionError: OpenVINO cannot load or run the file.
    """
    session = opened(path, threads, {"PERF_COUNT": True})
    about, calls = session.steps, 1
    if about is not None:
        calls = frames().count(feeds[about["frame"]["input"]], about["frame"])
        feeds = frames().first(feeds, about)
    taken: dict[tuple[str, str, str], list[float]] = {}
    end = time.perf_counter() + PROFILED_SECONDS
    for number in range(WARM_UP + PROFILED_CALLS):
        session.run(feeds)
        if number < WARM_UP:
            continue
        for each in session.request.profiling_info:
            if str(each.status).endswith(".EXECUTED"):
                kernel = each.exec_type.rpartition("_")[2].lower()
                key = (each.node_name, each.node_type, _TYPES.get(kernel, kernel))
                taken.setdefault(key, []).append(each.real_time.total_seconds())
        if time.perf_counter() > end:
            break
    found: dict[tuple[str, str], list[float]] = {}
    for (_, kind, dtype), seconds in taken.items():
        # In the slower half something else may have had the processor.
        usual = statistics.fmean(sorted(seconds)[: max(1, len(seconds) // 2)])
        found.setdefault((kind, dtype), []).append(usual)
    return [[kind, dtype, len(held), calls * sum(held)] for (kind, dtype), held in found.items()]


def _clean(error: Exception) -> str:
    """What OpenVINO said, on one line, without the places in its source."""
    said = " ".join(_NOISE.sub(" ", str(error)).split()).strip(" .:")
    return said or type(error).__name__
