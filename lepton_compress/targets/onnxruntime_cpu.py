"""The runtime `onnxruntime-cpu`: ONNX Runtime on this machine's processor."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lepton_compress.artifacts import TensorSpec
from lepton_compress.errors import InputError
from lepton_compress.registry import Params, plugin
from lepton_compress.targets.runner import Runner

if TYPE_CHECKING:
    from numpy.typing import NDArray

PACKAGES = ("numpy", "onnxruntime")

DTYPES = {
    "tensor(bool)": "bool",
    "tensor(float16)": "float16",
    "tensor(float)": "float32",
    "tensor(double)": "float64",
    **{f"tensor({name})": name for name in ("int8", "int16", "int32", "int64")},
    **{f"tensor({name})": name for name in ("uint8", "uint16", "uint32", "uint64")},
}
"""ONNX Runtime's name of a type to numpy's."""

SEVERITY_ERROR = 3
# Longer than any pause between back-to-back calls, short enough to be over before another session
# on the same CPUs takes its turn; ONNX Runtime's own value keeps them busy for some 60 ms.
SPIN_MICROSECONDS = 1000

# "[ONNXRuntimeError] : 7 : INVALID_PROTOBUF : ", "Load model from FILE failed:", and the place in
# ONNX Runtime's source with the signature of the function.
_NOISE = re.compile(
    r"\[ONNXRuntimeError\] : \d+ : \w+ : |Load model from .*? failed:|\S+\.(?:cc|h):\d+ \S+\(.*?\) "
)


class OnnxRuntimeCpu(Params):
    """No parameters: threads and batch belong to the target."""


@dataclass(frozen=True)
class _SessionRunner:
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    session: Any
    names: list[str]
    path: Path

    def run(self, feeds: Mapping[str, NDArray[Any]]) -> list[NDArray[Any]]:
        try:
            made: list[NDArray[Any]] = self.session.run(self.names, dict(feeds))
        except Exception as error:  # its exceptions share no base class
            said = _clean(error)
            raise InputError(f"ONNX Runtime cannot run it: {said}", where=str(self.path)) from error
        return made


@plugin("runtime", "onnxruntime-cpu", OnnxRuntimeCpu)
def onnxruntime_cpu(path: Path, threads: int) -> Runner:
    """ONNX Runtime on the processor, all graph optimisations on.

    Args:
        path: an .onnx file; external data stands beside it.
        threads: how many threads compute one call.

    Raises:
        InputError: ONNX Runtime cannot load the file, or it takes or gives something that is not
            a tensor of numbers.
    """
    import onnxruntime

    # Warnings about the machine come from the default logger, those about the model from its own.
    onnxruntime.set_default_logger_severity(SEVERITY_ERROR)
    try:
        session = onnxruntime.InferenceSession(
            str(path), _options(threads), providers=["CPUExecutionProvider"]
        )
    except Exception as error:  # its exceptions share no base class
        said = _clean(error)
        raise InputError(f"ONNX Runtime cannot load it: {said}", where=str(path)) from error
    outputs = _specs(session.get_outputs(), path)
    return _SessionRunner(
        inputs=_specs(session.get_inputs(), path),
        outputs=outputs,
        session=session,
        names=[spec.name for spec in outputs],
        path=path,
    )


def _options(threads: int) -> Any:
    """Session options: one call at a time, on exactly `threads` threads."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    options.log_severity_level = SEVERITY_ERROR
    # Threads that wait for the next call by spinning answer sooner than sleeping ones; this is
    # the default of a deployment too, said here so that a later default cannot change a number.
    options.add_session_config_entry("session.intra_op.allow_spinning", "1")
    options.add_session_config_entry("session.intra_op.spin_duration_us", str(SPIN_MICROSECONDS))
    return options


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


def _clean(error: Exception) -> str:
    """What ONNX Runtime said, without codes, paths and its source's signatures."""
    return _NOISE.sub("", str(error)).strip().rstrip(".") or type(error).__name__
