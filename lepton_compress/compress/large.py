"""What steps that work on large graphs share: graphs whose tensors stay in files."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING

from lepton_compress.artifacts import Model, Split, StepContext
from lepton_compress.compress.prepare import OPSET, check_keep, fitting, refuse_quantised
from lepton_compress.errors import InputError
from lepton_compress.load.external import TensorFile, array_of

if TYPE_CHECKING:
    import onnx

UNMEASURED = "the outputs' noise was not measured: that would hold both models in memory at once"
_FILE = "tensors-of-the-step.data"


def check(model: Model, keep: Collection[str], calibration: Split, where: str) -> None:
    """What `prepare` checks of a graph, without running it.

    Raises:
        InputError: `keep` names no node, the graph is quantised already or of an old operator set,
            or the data do not fit.
    """
    check_keep(model.value, keep, where)
    refuse_quantised(model.value, where)
    fitting(model, calibration, where)
    versions = {each.domain: each.version for each in model.value.opset_import}
    version = versions.get("", versions.get("ai.onnx", OPSET))
    if version < OPSET:
        raise InputError(
            f"opset {version} is too old, and a model this large is not upgraded here",
            where=where,
            mend=f"export the model with opset {OPSET} or later",
        )


def new_file(context: StepContext) -> TensorFile:
    """The file that a step writes its tensors to.

    Raises:
        ValueError: the context names no folder for it.
    """
    if context.scratch is None:
        raise ValueError("a large graph needs StepContext.scratch")
    return TensorFile(context.scratch / _FILE)


def carry(graph: onnx.GraphProto, model: Model, file: TensorFile) -> None:
    """Copy the tensors that a step has left as they were from the model's files to its own."""
    from onnx.external_data_helper import ExternalDataInfo, uses_external_data

    for tensor in graph.initializer:
        if uses_external_data(tensor) and ExternalDataInfo(tensor).location != file.path.name:
            tensor.CopyFrom(file.write(tensor.name, array_of(tensor, model.folder)))
