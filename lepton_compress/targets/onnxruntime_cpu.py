"""The runtime `onnxruntime-cpu`: ONNX Runtime on the processor."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from lepton_compress.artifacts import Json, TensorSpec
from lepton_compress.errors import InputError
from lepton_compress.registry import Params, plugin
from lepton_compress.targets import onnxruntime_session, session_runner
from lepton_compress.targets.onnxruntime_session import Session
from lepton_compress.targets.runner import Runner
from lepton_compress.targets.session_runner import Specs

PACKAGES = onnxruntime_session.PACKAGES
PROGRAM = Path(onnxruntime_session.__file__)
"""What loads and runs an artifact on a machine without this package."""

settings, alternatives = onnxruntime_session.settings, onnxruntime_session.alternatives
operators = onnxruntime_session.operators

DTYPES = {
    "tensor(bool)": "bool",
    "tensor(float16)": "float16",
    "tensor(float)": "float32",
    "tensor(double)": "float64",
    **{f"tensor({name})": name for name in ("int8", "int16", "int32", "int64")},
    **{f"tensor({name})": name for name in ("uint8", "uint16", "uint32", "uint64")},
}
"""ONNX Runtime's name of a type to numpy's."""


class OnnxRuntimeCpu(Params):
    """No parameters: threads and batch belong to the target."""


@plugin("runtime", "onnxruntime-cpu", OnnxRuntimeCpu, formats=("onnx",))
def onnxruntime_cpu(path: Path, threads: int, changes: Mapping[str, Json] | None = None) -> Runner:
    """ONNX Runtime on the processor, all graph optimisations on.

    A step model takes whole sequences, see `stepping`.

    Args:
        path: an .onnx file; external data stands beside it.
        threads: how many threads compute one call.
        changes: settings of the session other than those of `settings(threads)`.

    Raises:
        InputError: ONNX Runtime cannot load the file, or it takes or gives something that is not
            a tensor of numbers.
    """

    def sides(session: Session) -> tuple[Specs, Specs]:
        held = session.session
        return _specs(held.get_inputs(), path), _specs(held.get_outputs(), path)

    return session_runner.opened(onnxruntime_session, path, threads, changes, sides)


def _specs(tensors: Iterable[Any], path: Path) -> tuple[TensorSpec, ...]:
    """What the session says of its inputs or outputs, in numpy's terms."""
    specs = []
    for tensor in tensors:
        if tensor.type not in DTYPES:
            raise InputError(
                f"{tensor.name!r} is a {tensor.type}; only tensors of numbers can be run",
                where=str(path),
            )
        # A dimension without a name gets one, so that a shape holds ints and names only.
        shape = tuple(
            f"{tensor.name}_{axis}" if size is None else size
            for axis, size in enumerate(tensor.shape)
        )
        specs.append(TensorSpec(tensor.name, DTYPES[tensor.type], shape))
    return tuple(specs)
