"""Compiles one model for a Hexagon and runs it on the simulator; a program of its own.

    python hexagon_program.py MODEL ARCHITECTURE FOLDER RESULT

Both are C++ that may crash; what the execution provider says of nodes that it does not take is in
its verbose log, on standard error. The compiled context goes to FOLDER. RESULT is JSON: which nodes
are on the Hexagon, which on the processor, and the differences of the outputs from those of ONNX
Runtime on the processor, on draws of random inputs, in steps: of integers one, of floats a 255th of
the range that the output has there.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

PROVIDER = "QNNExecutionProvider"
DRAWS = 4
SEED = 0
LEVELS = 255
VERBOSE, ERROR = 0, 3
BATCH = "batch"
_WHOLE = 2
"""Whole numbers are drawn below this: they may be rows of a small table."""


def main(model: str, architecture: str, folder: str, result: str) -> None:
    """See above."""
    found: dict[str, Any] = {}
    try:
        hexagon = compiled(model, architecture, folder)
    except Exception as error:  # its exceptions share no base class
        found["refused"] = str(error)
    else:
        found["placed"] = placed(hexagon)
        found.update(compare(hexagon, on_processor(model)))
    Path(result).write_text(json.dumps(found), encoding="utf-8")


def compiled(model: str, architecture: str, folder: str) -> Any:
    """A session with all on the Hexagon that can be."""
    import onnxruntime
    import onnxruntime_qnn

    onnxruntime.register_execution_provider_library(PROVIDER, onnxruntime_qnn.get_library_path())
    devices = [each for each in onnxruntime.get_ep_devices() if each.ep_name == PROVIDER]
    options = _options(VERBOSE)
    for name, value in {
        "session.record_ep_graph_assignment_info": "1",
        "ep.context_enable": "1",
        "ep.context_file_path": str(Path(folder) / "context.onnx"),
        "ep.context_embed_mode": "0",
    }.items():
        options.add_session_config_entry(name, value)
    backend = onnxruntime_qnn.get_qnn_htp_path()
    given = {"backend_path": backend, "htp_arch": architecture.removeprefix("v")}
    options.add_provider_for_devices(devices, given)
    # Without this a provider that fails is left out in silence.
    return onnxruntime.InferenceSession(model, options, enable_fallback=0)


def on_processor(model: str) -> Any:
    """The same model in ONNX Runtime."""
    import onnxruntime

    providers = ["CPUExecutionProvider"]
    return onnxruntime.InferenceSession(model, _options(ERROR), providers=providers)


def placed(session: Any) -> list[list[Any]]:
    """Parts of the graph: the provider, and name and type of each node."""
    return [
        [part.ep_name, [[node.name, node.op_type] for node in part.get_nodes()]]
        for part in session.get_provider_graph_assignment_info()
    ]


def compare(hexagon: Any, processor: Any) -> dict[str, Any]:
    """The greatest difference of each output, in steps, over the draws."""
    import numpy as np

    draw = np.random.default_rng(SEED)
    names = [each.name for each in processor.get_outputs()]
    steps, levels = [0.0] * len(names), [LEVELS] * len(names)
    for _ in range(DRAWS):
        feeds = {each.name: sample(draw, each) for each in processor.get_inputs()}
        both = zip(hexagon.run(names, feeds), processor.run(names, feeds), strict=True)
        for index, (made, wanted) in enumerate(both):
            steps[index] = max(steps[index], apart(made, wanted))
            if np.issubdtype(wanted.dtype, np.integer):
                held = np.iinfo(wanted.dtype)
                levels[index] = int(held.max) - int(held.min)
    return {"steps": steps, "levels": levels, "outputs": names}


def sample(draw: Any, about: Any) -> Any:
    """A random input of one sample: of bytes over all their range."""
    import numpy as np

    shape = [size if isinstance(size, int) else 1 for size in about.shape]
    kind = about.type.removeprefix("tensor(").removesuffix(")")
    dtype = np.dtype({"float": "float32", "double": "float64"}.get(kind, kind))
    if dtype.kind == "f":
        return draw.normal(size=shape).astype(dtype)
    if dtype.itemsize == 1 and dtype.kind in "iu":
        held = np.iinfo(dtype)
        return draw.integers(held.min, held.max, size=shape, endpoint=True, dtype=dtype)
    return draw.integers(_WHOLE, size=shape).astype(dtype)


def apart(made: Any, wanted: Any) -> float:
    """The greatest difference in steps; values of which one alone is no number are as far apart as
    can be."""
    import numpy as np

    numbers = np.isfinite(wanted)
    if made.shape != wanted.shape or (np.isfinite(made) != numbers).any():
        return float(LEVELS)
    made, wanted = made[numbers], wanted[numbers]
    far = float(np.abs(made.astype(np.float64) - wanted).max(initial=0.0))
    if wanted.dtype.kind != "f":
        return far
    spread = float(wanted.max() - wanted.min()) if wanted.size else 0.0
    return min(far / (spread / LEVELS), 1e9) if spread else (0.0 if far == 0 else float(LEVELS))


def _options(severity: int) -> Any:
    """One thread, one sample a call, and so much said."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = severity
    options.intra_op_num_threads = 1
    options.add_free_dimension_override_by_name(BATCH, 1)
    return options


if __name__ == "__main__":
    main(*sys.argv[1:])
