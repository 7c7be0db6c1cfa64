"""Runs one model in TensorFlow Lite Micro and in LiteRT's builtin kernels; a program of its own.

    python micro_program.py MODEL ARENA RESULT

Both are C++ that may crash, and what the first tells of its arena it prints. Draws of random inputs
and the differences of the outputs go to RESULT as JSON; the outputs are compared in steps, of
integers one and of floats a 255th of the range that LiteRT's output has.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

DRAWS = 4
SEED = 0
_LEVELS = 255
_WHOLE = 2
"""Whole numbers are drawn below this: they may be rows of a small table."""


def main(model: str, arena: str, result: str) -> None:
    """See above."""
    data = Path(model).read_bytes()
    found = compare(data, int(arena))
    Path(result).write_text(json.dumps(found), encoding="utf-8")


def compare(data: bytes, arena: int) -> dict[str, Any]:
    """The greatest difference of each output, in steps, over the draws."""
    import numpy as np
    from ai_edge_litert.interpreter import Interpreter, OpResolverType
    from tflite_micro.python.tflite_micro import runtime

    micro = runtime.Interpreter.from_bytes(data, arena_size=arena)
    lite = Interpreter(
        model_content=data,
        experimental_op_resolver_type=OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
        num_threads=1,
    )
    lite.allocate_tensors()
    takes, gives = lite.get_input_details(), lite.get_output_details()
    draw = np.random.default_rng(SEED)
    steps = [0.0] * len(gives)
    for _ in range(DRAWS):
        # A model with a state begins anew in both.
        micro.reset()
        lite.reset_all_variables()
        for index, about in enumerate(takes):
            value = sample(draw, about)
            micro.set_input(value, index)
            lite.set_tensor(about["index"], value)
        micro.invoke()
        lite.invoke()
        for index, about in enumerate(gives):
            made = np.asarray(micro.get_output(index), np.float64)
            wanted = np.asarray(lite.get_tensor(about["index"]), np.float64)
            steps[index] = max(steps[index], apart(made, wanted, about["dtype"]))
    sys.stderr.flush()
    micro.print_allocations()
    levels = [
        int(np.iinfo(each["dtype"]).max) - int(np.iinfo(each["dtype"]).min)
        if np.issubdtype(each["dtype"], np.integer)
        else _LEVELS
        for each in gives
    ]
    return {"steps": steps, "levels": levels, "outputs": [str(each["name"]) for each in gives]}


def sample(draw: Any, about: Any) -> Any:
    """A random input: of a quantised type over all its range."""
    import numpy as np

    kind, shape = np.dtype(about["dtype"]), tuple(about["shape"])
    if kind == np.bool_:
        return draw.integers(2, size=shape).astype(kind)
    if np.issubdtype(kind, np.floating):
        return draw.normal(size=shape).astype(kind)
    if about["quantization"][0]:
        held = np.iinfo(kind)
        return draw.integers(held.min, held.max, size=shape, endpoint=True, dtype=kind)
    return draw.integers(_WHOLE, size=shape, dtype=kind)


def apart(made: Any, wanted: Any, dtype: Any) -> float:
    """The greatest difference in steps; a value that is no number is as far as can be."""
    import numpy as np

    if made.shape != wanted.shape:
        return float(_LEVELS)
    if not np.isfinite(made).all():
        return 0.0 if np.array_equal(made, wanted, equal_nan=True) else float(_LEVELS)
    far = float(np.abs(made - wanted).max(initial=0.0))
    if np.issubdtype(dtype, np.integer) or dtype == np.bool_:
        return far
    spread = float(wanted.max(initial=0.0) - wanted.min(initial=0.0))
    return min(far / (spread / _LEVELS), 1e9) if spread else (0.0 if far == 0 else float(_LEVELS))


if __name__ == "__main__":
    main(*sys.argv[1:])
