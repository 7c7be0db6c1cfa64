"""The runtime `litert-cpu`: LiteRT (formerly TensorFlow Lite) on the processor, with XNNPACK."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from lepton_compress.artifacts import Json, TensorSpec
from lepton_compress.errors import MissingExtraError
from lepton_compress.registry import Params, plugin
from lepton_compress.targets import litert_session, session_runner
from lepton_compress.targets.litert_session import Session, Tensor
from lepton_compress.targets.runner import Runner
from lepton_compress.targets.session_runner import Specs

PACKAGES = litert_session.PACKAGES
PROGRAM = Path(litert_session.__file__)
"""What loads and runs an artifact on a machine without this package."""

settings, alternatives = litert_session.settings, litert_session.alternatives


class LitertCpu(Params):
    """No parameters: threads and batch belong to the target."""


@plugin("runtime", "litert-cpu", LitertCpu, formats=("litert",))
def litert_cpu(path: Path, threads: int, changes: Mapping[str, Json] | None = None) -> Runner:
    """LiteRT on the processor, with XNNPACK where it has a kernel.

    A step model takes whole sequences, see `stepping`.

    Args:
        path: a .tflite file.
        threads: how many threads compute one call.
        changes: settings of the interpreter other than those of `settings(threads)`.

    Raises:
        InputError: LiteRT cannot load the file.
        MissingExtraError: the extra `litert` is not installed.
    """
    try:
        return session_runner.opened(litert_session, path, threads, changes, _sides)
    except ImportError as error:
        raise MissingExtraError(
            f"running LiteRT artifacts needs ai-edge-litert ({error})",
            mend="pip install 'lepton-compress[litert]'",
        ) from error


def _sides(session: Session) -> tuple[Specs, Specs]:
    return tuple(map(_spec, session.inputs)), tuple(map(_spec, session.outputs))


def _spec(tensor: Tensor) -> TensorSpec:
    """As the host sees it; the runner calls as often as it takes, so that any batch will do."""
    shape: list[int | str] = [*tensor.shape]
    if shape and (shape[tensor.batch] == 1 or tensor.filled):
        shape[tensor.batch] = "batch"
    return TensorSpec(tensor.name, tensor.dtype.name, tuple(shape))


def contents(path: Path) -> dict[str, dict[str, int]]:
    """Operator type to element type of its first output to count."""
    from ai_edge_litert import schema_py_generated as schema

    names = _named(schema.BuiltinOperator)
    types = _named(schema.TensorType)
    model = schema.Model.GetRootAs(path.read_bytes(), 0)
    found: dict[str, dict[str, int]] = {}
    for number in range(model.SubgraphsLength()):
        graph = model.Subgraphs(number)
        for index in range(graph.OperatorsLength()):
            operator = graph.Operators(index)
            code = model.OperatorCodes(operator.OpcodeIndex())
            kind = names[max(code.BuiltinCode(), code.DeprecatedBuiltinCode())]
            dtype = types[graph.Tensors(operator.Outputs(0)).Type()].lower()
            counts = found.setdefault(kind, {})
            counts[dtype] = counts.get(dtype, 0) + 1
    return found


def _named(kinds: type) -> dict[int, str]:
    """Value to name of the schema's enumerations, which are classes of plain numbers."""
    return {value: name for name, value in vars(kinds).items() if isinstance(value, int)}
