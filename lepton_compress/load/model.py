"""The user's model: where it comes from, and how to get a fresh copy of it.

Opening a model only fingerprints files and code, so that a run whose results are all in the store
never imports a framework; `Origin.build` makes it.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from lepton_compress.artifacts import Dataset, Form, Model
from lepton_compress.errors import InputError
from lepton_compress.load import external, forms
from lepton_compress.load.memory import identity
from lepton_compress.load.references import reference_digest, resolve
from lepton_compress.load.weights import load_weights
from lepton_compress.provenance import digest, file_digest

if TYPE_CHECKING:
    import onnx
    import torch

    from lepton_compress.recipe import ModelSpec

_SAMPLES = 2
"""A batch of two shows whether the model keeps the batch dimension."""


@dataclass(frozen=True)
class Origin:
    """Where a model comes from.

    Attributes:
        form: that it has when built.
        fingerprint: of every file and line of code that determines it.
        build: gives a fresh model each time, ready for inference.
        where: what to name in errors.
    """

    form: Form
    fingerprint: str
    build: Callable[[], Model]
    where: str


def open_model(
    spec: ModelSpec, folder: Path, data: Dataset, *, trust_pickle: bool = False
) -> Origin:
    """The origin of a recipe's model.

    Raises:
        InputError: a file is missing. Everything else shows when it is built.
    """
    names = tuple(spec.outputs)
    if spec.factory is not None:
        return _from_factory(spec, folder, data, names, trust_pickle=trust_pickle)
    if spec.program is not None:
        path = _existing(folder / spec.program)
        return Origin(
            "program",
            digest(["program", file_digest(path), names]),
            lambda: _checked(_read_program(path, data, names), data, str(path)),
            str(path),
        )
    path = _existing(folder / str(spec.onnx))
    return Origin(
        "graph",
        digest(["onnx", [file_digest(file) for file in [path, *external_files(path)]], names]),
        lambda: _checked(_read_onnx(path), data, str(path)),
        str(path),
    )


def open_module(module: torch.nn.Module, data: Dataset, outputs: tuple[str, ...] = ()) -> Origin:
    """The origin of a module that is already in memory. It is copied now and never touched."""
    import copy

    where = type(module).__name__
    try:
        kept = copy.deepcopy(module).cpu().eval()
    except Exception as error:  # what the user's attributes raise
        raise InputError(
            f"cannot be copied: {type(error).__name__}: {error}",
            where=where,
            mend="detach the tensors that it keeps as attributes",
        ) from error

    def build() -> Model:
        return _checked(_as_module(copy.deepcopy(kept), data, outputs, where), data, where)

    return Origin("module", digest(["memory", identity(kept), outputs]), build, where)


def read_onnx_file(path: Path) -> onnx.ModelProto:
    """Read an ONNX file with its external data, which must lie in the file's own folder. Of a large
    one (see `load.external`) the tensors stay there.

    Raises:
        InputError: it is corrupt, or its external data lies elsewhere or is missing.
    """
    import onnx
    from google.protobuf.message import DecodeError

    beside = external_files(path)  # before anything is read from them
    try:
        if sum(file.stat().st_size for file in beside) > external.LARGE:
            graph = external.read_graph(path)
        else:
            graph = onnx.load(path)
            onnx.checker.check_model(graph)
    except (DecodeError, onnx.checker.ValidationError, OSError, ValueError) as error:
        said = str(error).strip().split("\n")[0]
        raise InputError(
            f"not a valid ONNX model ({said or 'the file is truncated'})",
            where=str(path),
            mend="export it again",
        ) from error
    if not graph.graph.node:
        raise InputError("has no operators", where=str(path), mend="export it again")
    return graph


def external_files(path: Path) -> list[Path]:
    """Files beside an ONNX file that hold its tensors.

    Raises:
        InputError: one lies outside the ONNX file's folder, or does not exist.
    """
    import onnx
    from google.protobuf.message import DecodeError
    from onnx.external_data_helper import ExternalDataInfo, uses_external_data

    try:
        graph = onnx.load(path, load_external_data=False)
    except (DecodeError, ValueError) as error:
        raise InputError(
            "not a valid ONNX model (corrupt or truncated)", where=str(path), mend="export it again"
        ) from error
    folder = path.parent.resolve()
    found = set()
    for tensor in external.tensors(graph.graph):
        if not uses_external_data(tensor):
            continue
        named = ExternalDataInfo(tensor).location
        file = (folder / named).resolve()
        if not file.is_relative_to(folder):
            raise InputError(
                f"keeps the tensor {tensor.name!r} outside its folder, in {named!r}",
                where=str(path),
                mend="put the data beside the model; a model may not reach other files",
            )
        if not file.is_file():
            raise InputError(f"its external data {named!r} is missing", where=str(path))
        found.add(file)
    return sorted(found)


def _existing(path: Path) -> Path:
    if not path.is_file():
        raise InputError("no such file", where=str(path), mend="paths are relative to the recipe")
    return path


def _from_factory(
    spec: ModelSpec, folder: Path, data: Dataset, outputs: tuple[str, ...], *, trust_pickle: bool
) -> Origin:
    reference = str(spec.factory)
    weights = _existing(folder / spec.weights) if spec.weights else None
    held = file_digest(weights) if weights else None
    code = reference_digest(reference, folder)

    def build() -> Model:
        import torch

        factory = resolve(reference, folder)
        try:
            with torch.random.fork_rng():
                torch.manual_seed(0)  # a factory without weights gives the same model each time
                module = factory(**spec.args)
        except (Exception, SystemExit) as error:
            raise InputError(
                f"the factory raised {type(error).__name__}: {error}",
                where=reference,
                mend="check model.args",
            ) from error
        if not isinstance(module, torch.nn.Module):
            raise InputError(
                f"the factory returned {type(module).__name__}, not a torch.nn.Module",
                where=reference,
            )
        if weights is not None:
            load_weights(module, weights, trust_pickle=trust_pickle)
        return _checked(_as_module(module.eval(), data, outputs, reference), data, reference)

    mark = digest(["factory", code, spec.args, held, outputs])
    return Origin("module", mark, build, reference)


def _as_module(
    module: torch.nn.Module, data: Dataset, outputs: tuple[str, ...], where: str
) -> Model:
    accepted = [
        name
        for name, parameter in inspect.signature(module.forward).parameters.items()
        if parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY)
    ]
    given = list(data.calibration.inputs)
    names = given if set(given) <= set(accepted) or len(given) > 1 else accepted[:1]
    strangers = [name for name in names if name not in accepted]
    if strangers or not names:
        raise InputError(
            f"forward() takes {', '.join(accepted) or 'nothing'}, but the data has "
            f"{', '.join(given)}",
            where=where,
            mend="name the inputs in the loader as forward() does",
        )
    # Kept in forward()'s order, whatever order the loader has.
    names = [name for name in accepted if name in names]
    sample = data.calibration.named(names).inputs
    return Model("module", module, forms.input_specs(sample, names), outputs)


def _read_program(path: Path, data: Dataset, outputs: tuple[str, ...]) -> Model:
    import torch

    try:
        program = torch.export.load(path)
    except Exception as error:  # zip, JSON and schema errors alike
        said = str(error).split("\n")[0]
        raise InputError(
            f"not an exported program ({said})", where=str(path), mend="use torch.export.save"
        ) from error
    if any(
        not each.is_leaf()
        for part in program.call_spec.in_spec.children()
        for each in part.children()
    ):
        raise InputError(
            "takes its inputs inside a tuple, list or mapping",
            where=str(path),
            mend="export a forward() whose arguments are tensors",
        )
    names = [str(name) for name in program.graph_signature.user_inputs]
    try:
        sample = data.calibration.named(names).inputs
    except ValueError as error:
        raise InputError(str(error), where=str(path)) from error
    return Model("program", program, forms.input_specs(sample, names), outputs)


def _read_onnx(path: Path) -> Model:
    graph = read_onnx_file(path)
    inputs, outputs = forms.signature(graph)
    for spec in inputs:
        if not spec.shape or isinstance(spec.shape[0], int):
            raise InputError(
                f"the input {spec.name!r} has the fixed shape {list(spec.shape)}",
                where=str(path),
                mend="export it with a dynamic first dimension, the batch",
            )
    folder = path.parent.resolve() if external.is_large(graph) else None
    return Model("graph", graph, inputs, outputs, folder)


def _checked(model: Model, data: Dataset, where: str) -> Model:
    """Run the model on two samples: it must take the data and give finite numbers."""
    import numpy as np

    names = [spec.name for spec in model.inputs]
    try:
        feeds = next(data.calibration.named(names).batches(_SAMPLES))
    except ValueError as error:
        raise InputError(str(error), where=where) from error
    try:
        outputs = forms.call(model, feeds)
    except InputError as error:
        raise InputError(error.problem, where=where, mend=error.mend) from error
    for name, array in outputs.items():
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            raise InputError(
                f"gives NaN or infinity in {name} on the first calibration samples",
                where=where,
                mend="check the weights and how the data is scaled",
            )
        if array.shape[:1] != (len(next(iter(feeds.values()))),):
            raise InputError(
                f"its output {name} is {list(array.shape)} for two samples: the first dimension "
                "is not the batch",
                where=where,
            )
    return model.replace(outputs=tuple(outputs))
