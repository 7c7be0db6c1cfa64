"""Where the time goes: ONNX Runtime's own profiler, a floor under its kernels, and calls taken
in turns. Quick looks, not the measurements that gates judge."""

from __future__ import annotations

import itertools
import json
import statistics
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from lepton_compress.explain.runtime_graph import RuntimeNode, read, session_options
from lepton_compress.targets.onnxruntime_session import faster_half, kernels

if TYPE_CHECKING:
    import numpy as np

    Feeds = Mapping[str, np.ndarray]

WARM_UP = 5
CAP = 3.0
"""Seconds after which no more runs are started."""
RUNS = 60


@dataclass(frozen=True)
class Kernel:
    """One node as it ran, see `onnxruntime_session.kernels`."""

    name: str
    operator: str
    takes: str
    gives: str
    seconds: float


@dataclass(frozen=True)
class Profiled:
    """A profile, and the graph that it is of."""

    nodes: tuple[RuntimeNode, ...]
    kernels: tuple[Kernel, ...]


def profile(path: Path, feeds: Feeds, *, runs: int = WARM_UP + RUNS) -> Profiled:
    """Run a file with the profiler on, all optimisations on, on one thread."""
    import onnxruntime

    with tempfile.TemporaryDirectory() as folder:
        options = session_options()
        options.enable_profiling = True
        options.profile_file_prefix = str(Path(folder) / "profile")
        written = Path(folder) / "optimised.onnx"
        options.optimized_model_filepath = str(written)
        session = onnxruntime.InferenceSession(
            str(path), options, providers=["CPUExecutionProvider"]
        )
        end = time.perf_counter() + CAP
        for run in range(runs):
            session.run(None, dict(feeds))
            if run > WARM_UP and time.perf_counter() > end:
                break
        events = json.loads(Path(session.end_profiling()).read_text(encoding="utf-8"))
        found = tuple(Kernel(*each) for each in kernels(events, WARM_UP))
        return Profiled(read(written), found)


def floor() -> float:
    """Seconds that the profiler tells of a kernel with one number to compute."""
    import numpy as np
    from onnx import TensorProto, helper, save

    names = [f"x{step}" for step in range(9)]
    nodes = [helper.make_node("Softsign", [a], [b], b) for a, b in itertools.pairwise(names)]
    ends = [helper.make_tensor_value_info(n, TensorProto.FLOAT, [1]) for n in (names[0], names[-1])]
    graph = helper.make_graph(nodes, "floor", ends[:1], ends[1:])
    opset = [helper.make_opsetid("", 17)]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "floor.onnx"
        save(helper.make_model(graph, opset_imports=opset, ir_version=8), path)
        ran = profile(path, {names[0]: np.ones(1, np.float32)}).kernels
    return statistics.median(kernel.seconds for kernel in ran)


def latencies(paths: Sequence[Path], feeds: Sequence[Feeds]) -> list[float]:
    """Seconds of one call of each file, taken in turns so that drift hits all alike; the mean of
    the faster half."""
    import onnxruntime

    sessions = [
        onnxruntime.InferenceSession(
            str(path), session_options(), providers=["CPUExecutionProvider"]
        )
        for path in paths
    ]
    taken: list[list[float]] = [[] for _ in paths]
    end = time.perf_counter() + CAP
    for run in range(WARM_UP + RUNS):
        for held, session, given in zip(taken, sessions, feeds, strict=True):
            start = time.perf_counter()
            session.run(None, dict(given))
            held.append(time.perf_counter() - start)
        if run > WARM_UP and time.perf_counter() > end:
            break
    return [statistics.fmean(faster_half(each[WARM_UP:] or each)) for each in taken]
