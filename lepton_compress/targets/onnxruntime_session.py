"""ONNX Runtime's session as every measurement opens it, on this machine and on others.

This file is copied to devices and imported there by `profile/worker.py`: it needs Python 3.8,
numpy and onnxruntime, and nothing of this package. `load` is what a worker calls.
"""

from __future__ import annotations

import re
from typing import Any

PACKAGES = ("numpy", "onnxruntime")

SEVERITY_ERROR = 3
# Longer than any pause between back-to-back calls, short enough to be over before another session
# on the same CPUs takes its turn; ONNX Runtime's own value keeps them busy for some 60 ms.
SPIN_MICROSECONDS = 1000

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

    def __init__(self, path: str, threads: int) -> None:
        import onnxruntime

        # Warnings about the machine come from the default logger, those about the model from its
        # own.
        onnxruntime.set_default_logger_severity(SEVERITY_ERROR)
        try:
            self.session: Any = onnxruntime.InferenceSession(
                path, _options(threads), providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # its exceptions share no base class
            raise SessionError(f"ONNX Runtime cannot load it: {_clean(error)}") from error
        self._names = [each.name for each in self.session.get_outputs()]

    def run(self, feeds: Any) -> list[Any]:
        """The outputs, in the artifact's order, of inputs by name.

        Raises:
            SessionError: the runtime refuses the arrays, or fails on them.
        """
        try:
            made: list[Any] = self.session.run(self._names, dict(feeds))
        except Exception as error:  # its exceptions share no base class
            raise SessionError(f"ONNX Runtime cannot run it: {_clean(error)}") from error
        return made


def load(path: Any, threads: int) -> Session:
    """Open an artifact on exactly `threads` threads.

    Raises:
        SessionError: ONNX Runtime cannot load the file.
    """
    return Session(str(path), threads)


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


def _clean(error: Exception) -> str:
    """What ONNX Runtime said, without codes, paths and its source's signatures."""
    return _NOISE.sub("", str(error)).strip().rstrip(".") or type(error).__name__
