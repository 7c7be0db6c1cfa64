"""The forms a model takes (module, program, graph): how each is copied, run, told apart from
another, saved as data and loaded again. Nothing is ever pickled.

A module is saved as its difference from the freshly built one: tensors as safetensors, and the
plain attributes that steps have changed (a pruned convolution's `out_channels`, say) as JSON, with
the class of those layers that one of the tool's own has taken the place of (`load/narrow.py`).
"""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lepton_compress.artifacts import Model, TensorSpec
from lepton_compress.errors import InputError, PluginError
from lepton_compress.load import external

if TYPE_CHECKING:
    import numpy as np
    import onnx
    import torch

    Feeds = Mapping[str, np.ndarray]

STRUCTURE = "structure.json"
WEIGHTS = "weights.safetensors"
GRAPH = "model.onnx"
BUILT = "built.json"

_CLASS = "class"  # no attribute can have this name

_PLAIN = (bool, int, float, str, type(None))


def duplicate(model: Model) -> Model:
    """An independent copy: what is done to one is not seen in the other."""
    if model.form == "graph":
        copied = type(model.value)()
        copied.CopyFrom(model.value)
        return model.replace(value=copied)
    return model.replace(value=copy.deepcopy(model.value)) if model.form == "module" else model


def fingerprint(model: Model) -> str:
    """SHA-256 of everything that the model computes with."""
    if model.form == "graph":
        if model.folder is not None:
            return external.fingerprint(model.value, model.folder)
        return hashlib.sha256(model.value.SerializeToString(deterministic=True)).hexdigest()
    module = model.value if model.form == "module" else model.value.module()
    code = model.value.graph_module.code if model.form == "program" else ""
    about = [_attributes(module), _classes(module), code]
    total = hashlib.sha256(json.dumps(about, sort_keys=True).encode())
    for name, tensor in sorted(_tensors(module).items()):
        total.update(f"{name}:{tensor.dtype}:{tuple(tensor.shape)};".encode())
        total.update(tensor_bytes(tensor))
    return total.hexdigest()


def call(model: Model, feeds: Feeds) -> dict[str, np.ndarray]:
    """The model's outputs by name for one batch, computed where the model is at home: torch for
    a module or program, ONNX Runtime for a graph.

    Raises:
        InputError: it cannot be run on these inputs.
    """
    if model.form == "graph":
        return dict(zip(model.outputs, _run_graph(model, feeds), strict=True))
    values = _run_torch(model, feeds)
    if model.outputs and len(model.outputs) != len(values):
        raise InputError(
            f"the model gives {len(values)} outputs, but {len(model.outputs)} are named",
            where="model.outputs",
            mend=f"name {len(values)}",
        )
    return dict(zip(model.outputs or output_names(len(values)), values, strict=True))


def output_names(count: int) -> tuple[str, ...]:
    """Names for outputs that nobody named."""
    return ("output",) if count == 1 else tuple(f"output_{index}" for index in range(count))


def save(model: Model, original: Model, folder: Path) -> None:
    """Write a module (as its difference from `original`, as built) or a graph into a folder. Of a
    module with `built`, `original` is what that builds.

    Raises:
        PluginError: a module's layers are of other kinds than the original's, which cannot be
            told as a difference.
    """
    if model.form == "graph":
        if model.folder is not None:
            external.keep(model.value, model.folder, folder / GRAPH)
            return
        data = model.value.SerializeToString(deterministic=True)
        (folder / GRAPH).write_bytes(data)
        return
    from safetensors.torch import save as as_safetensors

    if model.built is not None:
        (folder / BUILT).write_text(json.dumps(model.built, indent=1, sort_keys=True))
    _check_alike(original.value, model.value)
    before, after = _attributes(original.value), _attributes(model.value)
    changed = {
        name: {key: value for key, value in after[name].items() if before[name].get(key) != value}
        for name in after
        if after[name] != before[name]
    }
    was = _classes(original.value)
    for name, kind in _classes(model.value).items():
        if kind != was[name]:
            changed.setdefault(name, {})[_CLASS] = kind
    (folder / STRUCTURE).write_text(json.dumps(changed, indent=1, sort_keys=True))
    # Tied tensors are written once a name: safetensors refuses shared memory.
    state = {name: tensor.contiguous().clone() for name, tensor in _tensors(model.value).items()}
    # Not `save_file`, whose errors are none of the system's: a full disk must be known as one.
    (folder / WEIGHTS).write_bytes(as_safetensors(state))


def load(
    folder: Path,
    original: Callable[[], Model],
    other: Callable[[Mapping[str, Any]], Model] | None = None,
) -> Model:
    """Read back what `save` wrote. `original` builds the model as loaded from the user, `other` one
    that a step has put in its place, from its `Model.built`.

    Raises:
        PluginError: a step has put another in its place, and there is no `other`.
    """
    if (folder / GRAPH).is_file():
        import onnx

        graph = onnx.load(folder / GRAPH, load_external_data=False)
        return Model(
            "graph", graph, *signature(graph), folder if external.is_large(graph) else None
        )
    import torch
    from safetensors.torch import load_file

    from lepton_compress.load import narrow

    model = _built(folder, other) if (folder / BUILT).is_file() else original()
    modules = dict(model.value.named_modules(remove_duplicate=False))
    keep: list[Any] = []  # an object that is gone could lend its id to another
    for name, values in json.loads((folder / STRUCTURE).read_text()).items():
        if _CLASS in values:
            modules[name].__class__ = narrow.CLASSES[values.pop(_CLASS)]
        for key, value in values.items():
            setattr(modules[name], key, tuple(value) if isinstance(value, list) else value)
    tied: dict[int, torch.nn.Parameter] = {}
    for name, tensor in load_file(folder / WEIGHTS).items():
        owner, _, leaf = name.rpartition(".")
        held = getattr(modules[owner], leaf)
        if (held.shape, held.dtype) == (tensor.shape, tensor.dtype):
            held.data.copy_(tensor)
        elif isinstance(held, torch.nn.Parameter):
            # One parameter under two names stays one.
            made = torch.nn.Parameter(tensor, held.requires_grad)
            setattr(modules[owner], leaf, tied.setdefault(id(held), made))
            keep.append(held)
        else:
            setattr(modules[owner], leaf, tensor)
    return model


def _built(folder: Path, other: Callable[[Mapping[str, Any]], Model] | None) -> Model:
    if other is None:
        raise PluginError("nothing was given to build the model with that a step has put in")
    held = json.loads((folder / BUILT).read_text())
    return other(held).replace(built=held)


def signature(graph: onnx.ModelProto) -> tuple[tuple[TensorSpec, ...], tuple[str, ...]]:
    """Inputs and output names of an ONNX model; initialisers listed as inputs do not count."""
    constant = {tensor.name for tensor in graph.graph.initializer}
    inputs = tuple(spec(value) for value in graph.graph.input if value.name not in constant)
    return inputs, tuple(value.name for value in graph.graph.output)


def spec(value: onnx.ValueInfoProto) -> TensorSpec:
    """Name, numpy dtype and shape of an ONNX value; an unknown dimension is `?`."""
    import onnx

    tensor = value.type.tensor_type
    shape = tuple(
        dim.dim_value if dim.HasField("dim_value") else (dim.dim_param or "?")
        for dim in tensor.shape.dim
    )
    dtype = onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type).name
    return TensorSpec(value.name, dtype, shape)


def opened(model: Model) -> Callable[[Feeds], list[np.ndarray]]:
    """A graph loaded once, for many calls: inputs by name to outputs in order.

    Raises:
        InputError: it cannot be loaded, or a call fails.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    if model.folder is not None:
        options.add_session_config_entry(external.FOLDER_OPTION, str(model.folder.resolve()))
    data = model.value.SerializeToString()

    def failed(error: Exception) -> InputError:
        return InputError(f"ONNX Runtime cannot run it: {error}", where="model")

    try:
        session = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # the runtime raises a class of its own for each status code
        raise failed(error) from error

    def run(feeds: Feeds) -> list[np.ndarray]:
        try:
            made: list[np.ndarray] = session.run(None, dict(feeds))
        except Exception as error:  # as above
            raise failed(error) from error
        return made

    return run


def _run_graph(model: Model, feeds: Feeds) -> list[np.ndarray]:
    return opened(model)(feeds)


def _run_torch(model: Model, feeds: Feeds) -> list[np.ndarray]:
    import torch

    try:
        with torch.no_grad():
            given = {name: torch.from_numpy(array.copy()) for name, array in feeds.items()}
            if model.form == "module":
                returned = model.value(**given)
            else:
                placed = _positional(model)
                first = [given.pop(name) for name in placed]
                returned = model.value.module()(*first, **given)
    except Exception as error:
        shapes = ", ".join(f"{name} {a.dtype}{list(a.shape)}" for name, a in feeds.items())
        raise InputError(
            f"the model does not accept the data ({shapes}): {type(error).__name__}: {error}",
            where="model",
            mend="check the shape and dtype that the loader gives against what forward() takes",
        ) from error
    try:
        return [tensor.detach().numpy() for tensor in flatten(returned)]
    except TypeError as error:  # of what numpy has no type for
        raise InputError(f"its outputs cannot be read: {error}", where="model") from error


def _positional(model: Model) -> list[str]:
    """The inputs that an exported program wants by position, as it was exported with them."""
    places, _ = model.value.call_spec.in_spec.children()
    return [spec.name for spec in model.inputs[: places.num_children]]


def flatten(returned: Any) -> list[torch.Tensor]:
    """The tensors in what a forward() returned, in the order the exporter sees them.

    Raises:
        InputError: there is none.
    """
    import torch
    from torch.utils import _pytree as pytree

    found = [leaf for leaf in pytree.tree_leaves(returned) if isinstance(leaf, torch.Tensor)]
    if not found:
        raise InputError(
            f"forward() returns no tensor but {type(returned).__name__}", where="model"
        )
    return found


def _attributes(module: torch.nn.Module) -> dict[str, dict[str, Any]]:
    """By module name: those of its own attributes that JSON can hold exactly."""

    def plain(value: Any) -> bool:
        if isinstance(value, tuple):
            return all(isinstance(item, _PLAIN) for item in value)
        return isinstance(value, _PLAIN)

    return {
        name: {
            key: list(value) if isinstance(value, tuple) else value
            for key, value in vars(each).items()
            if plain(value) and not key.startswith("_") and key != "training"
        }
        for name, each in module.named_modules()
    }


def _classes(module: torch.nn.Module) -> dict[str, str]:
    return {name: type(each).__qualname__ for name, each in module.named_modules()}


def _tensors(module: torch.nn.Module) -> dict[str, torch.Tensor]:
    """Every parameter and buffer by every name it has, those included that are not persistent."""
    return {
        **dict(module.named_parameters(remove_duplicate=False)),
        **dict(module.named_buffers(remove_duplicate=False)),
    }


def _check_alike(before: torch.nn.Module, after: torch.nn.Module) -> None:
    from lepton_compress.load.narrow import TAKES_PLACE_OF

    was, now = _classes(before), _classes(after)
    names = was.keys() | now.keys()
    taken = {name for name in names if TAKES_PLACE_OF.get(now.get(name, ""), "") == was.get(name)}
    changed = sorted(name for name in names - taken if was.get(name) != now.get(name))
    changed += sorted(_tensors(before).keys() ^ _tensors(after).keys())
    if changed:
        raise PluginError(
            f"exchanged, added or removed {changed[0] or 'the model'!r}; a step may change "
            "weights, widths and plain attributes of the layers that are there"
        )


def tensor_bytes(tensor: torch.Tensor) -> bytes:
    """A tensor's values as they lie in memory, whatever its type."""
    import torch

    flat = tensor.detach().cpu().contiguous().reshape(-1)
    data: bytes = flat.view(torch.uint8).numpy().tobytes() if flat.numel() else b""
    return data


def input_specs(feeds: Feeds, names: Sequence[str]) -> tuple[TensorSpec, ...]:
    """Specifications of inputs like these arrays, with the first dimension as the batch."""
    return tuple(
        TensorSpec(name, feeds[name].dtype.name, ("batch", *feeds[name].shape[1:]))
        for name in names
    )
