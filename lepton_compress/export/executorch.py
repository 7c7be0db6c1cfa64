"""The exporter `executorch`: a .pte file that ExecuTorch loads, computed by XNNPACK."""

from __future__ import annotations

import importlib.util
import warnings
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from lepton_compress import layers
from lepton_compress.artifacts import Model
from lepton_compress.errors import MissingExtraError
from lepton_compress.registry import Params, plugin


class Executorch(Params):
    """How to write the file."""

    batch: Annotated[int, Field(ge=1, le=1024)] = Field(
        1, description="Samples that the file computes at once; its shapes are fixed."
    )
    recurrent: Literal["sequence", "step"] = Field(
        "sequence",
        description="`step`: of a recurrent model, one frame a call: the states are inputs and "
        "outputs, so that a device computes each frame once.",
    )

    @property
    def batches(self) -> tuple[int, ...]:
        return (self.batch,)


@plugin("exporter", "executorch", Executorch, evaluates="executorch-cpu")
def export_executorch(model: Model, params: Executorch, folder: Path) -> Path:
    """One .pte file for a fixed batch, weights and scales as the graph has them.

    XNNPACK computes what it has kernels for, in integers where the graph rounds on both sides of
    an operator; ExecuTorch's portable kernels compute the rest.

    Raises:
        InputError: an operator has no counterpart, or a size besides the batch is open.
        MissingExtraError: the extra `executorch` is not installed.
    """
    if importlib.util.find_spec("executorch") is None:
        raise MissingExtraError(
            "ExecuTorch is not installed",
            where="exporter executorch",
            mend="pip install 'lepton-compress[executorch]'",
        )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # its packages warn about their own past as they load
        from lepton_compress.export.aten.program import convert

    if params.recurrent == "step":
        from lepton_compress.export.stepwise import stepwise

        model = stepwise(model)
    path = folder / "model.pte"
    data, notes = convert(model, params.batch)
    path.write_bytes(data)
    if notes:
        held = layers.Layers((), notes=notes)
        layers.beside(path).write_text(layers.to_json(held), encoding="utf-8")
    return path
