"""The runtime `executorch-cpu`: ExecuTorch on the processor, with XNNPACK."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from lepton_compress.artifacts import Json, TensorSpec
from lepton_compress.errors import MissingExtraError
from lepton_compress.registry import Params, plugin
from lepton_compress.targets import executorch_contents, executorch_session, session_runner
from lepton_compress.targets.executorch_session import Session, Tensor
from lepton_compress.targets.installed import lacking
from lepton_compress.targets.runner import Runner
from lepton_compress.targets.session_runner import Specs

PACKAGES = executorch_session.PACKAGES
PROGRAM = Path(executorch_session.__file__)
"""What loads and runs an artifact on a machine without this package."""

contents = executorch_contents.contents
settings, alternatives = executorch_session.settings, executorch_session.alternatives


class ExecutorchCpu(Params):
    """No parameters: threads and batch belong to the target."""


def _requires(params: ExecutorchCpu, targets: tuple[str, ...]) -> list[str]:
    return lacking("executorch-cpu", ["executorch"], "executorch")


@plugin("runtime", "executorch-cpu", ExecutorchCpu, formats=("executorch",), requires=_requires)
def executorch_cpu(path: Path, threads: int, changes: Mapping[str, Json] | None = None) -> Runner:
    """ExecuTorch on the processor (extra `executorch`), with XNNPACK where the file says so.

    A step model takes whole sequences, see `stepping`.

    Args:
        path: a .pte file.
        threads: how many threads compute one call.
        changes: settings other than those of `settings(threads)`.

    Raises:
        InputError: ExecuTorch cannot load the file.
        MissingExtraError: the extra `executorch` is not installed.
    """
    try:
        return session_runner.opened(executorch_session, path, threads, changes, _sides)
    except ImportError as error:
        raise MissingExtraError(
            f"running .pte artifacts needs ExecuTorch ({error})",
            mend="pip install 'lepton-compress[executorch]'",
        ) from error


def _sides(session: Session) -> tuple[Specs, Specs]:
    return tuple(map(_spec, session.inputs)), tuple(map(_spec, session.outputs))


def _spec(tensor: Tensor) -> TensorSpec:
    """As the host sees it; the runner calls as often as it takes, so that any batch will do."""
    shape: list[int | str] = [*tensor.shape]
    return TensorSpec(tensor.name, tensor.dtype.name, ("batch", *shape[1:]) if shape else ())
