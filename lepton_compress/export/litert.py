"""The exporter `litert`: a file that LiteRT (formerly TensorFlow Lite), its version for
microcontrollers and the compilers of NPUs load."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from lepton_compress import layers
from lepton_compress.artifacts import Model
from lepton_compress.errors import MissingExtraError
from lepton_compress.findings import Finding, FindingsError
from lepton_compress.registry import Params, plugin


class Litert(Params):
    """How to write the file."""

    batch: Annotated[int, Field(ge=1, le=1024)] = Field(
        1, description="Samples that the file computes at once; its shapes are fixed."
    )
    signatures: list[Annotated[int, Field(ge=1, le=1024)]] = Field(
        [],
        description="Further batches that the file can be called with, as `[8, 32]`: signatures "
        "`batch_8` and `batch_32` beside `serving_default`. Weights stand once.",
    )
    layout: Literal["nhwc", "nchw"] = Field(
        "nhwc",
        description="Order of the axes of images at the border. `nhwc`: channels last, as LiteRT's "
        "kernels compute; the file's metadata tells what was permuted. `nchw`: as the model has "
        "them, at the price of a transposition.",
    )
    borders: Literal["float32", "int8"] = Field(
        "float32",
        description="`float32`: inputs and outputs as the ONNX artifact has them. `int8`: those of "
        "a quantised model are integers, without a conversion inside.",
    )
    recurrent: Literal["sequence", "step"] = Field(
        "sequence",
        description="`step`: of a recurrent model, one frame a call: the states are inputs and "
        "outputs, so that a device computes each frame once.",
    )
    weights: Literal["float32", "float16", "dynamic", "int8"] = Field(
        "float32",
        description="Of layers that no step has quantised. `float16` and `int8` are made float "
        "when the file is loaded; `dynamic` is int8, with activations quantised while it runs. "
        "Microcontrollers compute with none of the three. The original's file stays float32, so "
        "that what this costs is seen; of the unchanged model a variant without steps has it.",
    )

    @property
    def narrows(self) -> bool:
        return self.weights != "float32"

    @property
    def plain(self) -> Self:
        return self.model_copy(update={"weights": "float32"})

    @property
    def batches(self) -> tuple[int, ...]:
        return (self.batch, *self.signatures)

    @model_validator(mode="after")
    def _once(self) -> Self:
        for index, each in enumerate(self.signatures):
            if each in self.signatures[:index]:
                mend = "remove one of the two"
                raise FindingsError([Finding(("signatures", index), f"{each} stands twice", mend)])
            if each == self.batch:
                mend = "remove it: `serving_default` takes that batch"
                problem = f"{each} is the file's own batch"
                raise FindingsError([Finding(("signatures", index), problem, mend)])
        return self


@plugin("exporter", "litert", Litert, evaluates="litert-cpu")
def export_litert(model: Model, params: Litert, folder: Path) -> Path:
    """One LiteRT file for a fixed batch, weights and scales as the graph has them.

    Beside it a JSON is left that tells what its operators stand for (`layers.py`).

    Raises:
        InputError: an operator has no counterpart in LiteRT, or a size besides the batch is open.
        MissingExtraError: ai-edge-litert, whose schema is used, is not installed.
    """
    if importlib.util.find_spec("ai_edge_litert") is None:
        raise MissingExtraError(
            "ai-edge-litert is not installed",
            where="exporter litert",
            mend="pip install 'lepton-compress[litert]'",
        )
    from lepton_compress.export.flatbuffer.convert import convert

    if params.recurrent == "step":
        from lepton_compress.export.stepwise import stepwise

        model = stepwise(model)
    path = folder / "model.tflite"
    data, held = convert(model, params)
    path.write_bytes(data)
    layers.beside(path).write_text(layers.to_json(held), encoding="utf-8")
    return path
