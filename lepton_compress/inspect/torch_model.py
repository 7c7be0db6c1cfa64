"""Facts of a torch model: an exported program, or a module that a factory makes."""

from __future__ import annotations

import contextlib
import re
import warnings
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lepton_compress.artifacts import TensorSpec
from lepton_compress.errors import InputError, RecipeError
from lepton_compress.inspect.weights_file import add
from lepton_compress.load.forms import flatten, output_names
from lepton_compress.load.references import resolve
from lepton_compress.load.weights import load_weights
from lepton_compress.overviews import Held, Inspection, ModuleRow

if TYPE_CHECKING:
    import torch

_SHAPE = re.compile(r"(\w+)=(\w+)\[(\d+(?:,\d+)*)\]")
_EXAMPLE = "image=float32[1,3,224,224]"
Operators = dict[str, dict[str, int]]


@dataclass(frozen=True)
class Factory:
    """A torch model as the command line names it.

    Attributes:
        reference: `path/to/file.py:name` or `package.module:name`.
        args: keyword arguments of the factory.
        weights: a file to load into what it makes.
        inputs: shapes to try it with, the batch first; without them nothing is computed.
    """

    reference: str
    args: Mapping[str, Any]
    weights: Path | None
    inputs: tuple[TensorSpec, ...]
    trust_pickle: bool = False


def read_shape(text: str) -> TensorSpec:
    """An input written as `name=dtype[batch,dim,...]`.

    Raises:
        RecipeError: it is written otherwise, or a dimension is zero.
    """
    found = _SHAPE.fullmatch(text.replace(" ", ""))
    shape = tuple(int(each) for each in found[3].split(",")) if found else ()
    if found is None or 0 in shape:
        raise RecipeError(
            f"{text!r} is not an input with its shape",
            where="--shape",
            mend=f"write for example '{_EXAMPLE}'",
        )
    return TensorSpec(found[1], found[2], shape)


def inspect_factory(factory: Factory, folder: Path) -> Inspection:
    """What a factory makes. Runs the user's code.

    Raises:
        InputError: it cannot be made, its weights do not fit, or it does not take the inputs.
    """
    module = _make(factory, folder)
    feeds = _feeds(factory.inputs)
    ran = _try(lambda: module(**feeds), module, factory.reference) if feeds else None
    batch = int(factory.inputs[0].shape[0]) if factory.inputs else 1
    _refuse_lazy(module, factory.reference)
    notes = () if feeds else (f"MACs and outputs: give the inputs, as in --shape '{_EXAMPLE}'",)
    return Inspection(
        subject=factory.reference,
        kind="factory",
        bytes=factory.weights.stat().st_size if factory.weights else None,
        about={"form": "torch module", "type": type(module).__qualname__},
        inputs=factory.inputs,
        outputs=ran.outputs if ran else (),
        operators=ran.operators if ran else {},
        weights=_weights(module.state_dict()),
        parameters=sum(each.numel() for each in module.parameters()),
        macs=ran.macs.get("", 0) // batch if ran else None,
        modules=tuple(_rows(module, ran.macs if ran else None, batch)),
        notes=notes,
    )


def inspect_program(path: Path) -> Inspection:
    """What an exported program (.pt2) holds and computes.

    Raises:
        InputError: it is not an exported program.
    """
    import torch

    with _quiet():
        try:
            program = torch.export.load(path)
        except Exception as error:  # zip, JSON and schema errors alike
            said = str(error).split("\n")[0]
            raise InputError(
                f"not an exported program ({said})", where=str(path), mend="use torch.export.save"
            ) from error
        signature = program.graph_signature
        values = {node.name: node.meta.get("val") for node in program.graph.nodes}
        inputs = tuple(_spec(str(name), values) for name in signature.user_inputs)
        module = torch.export.unflatten(program)
        ran, batch = None, 1
        if program.example_inputs is not None:
            args, kwargs = program.example_inputs
            batch = next((int(e.shape[0]) for e in [*args, *kwargs.values()] if _batched(e)), 1)
            ran = _try(lambda: module(*args, **kwargs), module, str(path))
    notes = () if ran else ("MACs are unknown: it was saved without example inputs",)
    return Inspection(
        subject=str(path),
        kind="program",
        bytes=path.stat().st_size,
        about={"format": f"exported program, torch {torch.__version__} reads it"},
        inputs=inputs,
        outputs=tuple(_spec(str(name), values) for name in signature.user_outputs),
        operators=_graph_operators(program.graph),
        weights=_weights(program.state_dict),
        parameters=sum(each.numel() for each in program.parameters()),
        macs=ran.macs.get("", 0) // batch if ran else None,
        modules=tuple(_rows(module, ran.macs if ran else None, batch)),
        notes=notes,
    )


@dataclass(frozen=True)
class _Ran:
    """One call: multiply-accumulates by module name (the whole is ``), and what was seen."""

    macs: dict[str, int]
    operators: Operators
    outputs: tuple[TensorSpec, ...]


def _make(factory: Factory, folder: Path) -> torch.nn.Module:
    import torch

    place = factory.reference.rpartition(":")[0]
    if place.endswith(".py") and not (folder / place).is_file():
        raise InputError("no such file", where=place, mend="paths are relative to this folder")
    if factory.weights is not None and not factory.weights.is_file():
        raise InputError("no such file", where=str(factory.weights))
    made = resolve(factory.reference, folder)
    try:
        module = made(**factory.args)
    except Exception as error:
        raise InputError(
            f"the factory raised {type(error).__name__}: {error}",
            where=factory.reference,
            mend="check --args",
        ) from error
    if not isinstance(module, torch.nn.Module):
        raise InputError(
            f"the factory returned {type(module).__name__}, not a torch.nn.Module",
            where=factory.reference,
        )
    if factory.weights is not None:
        load_weights(module, factory.weights, trust_pickle=factory.trust_pickle)
    return module.eval()


def _feeds(inputs: tuple[TensorSpec, ...]) -> dict[str, torch.Tensor]:
    import torch

    feeds = {}
    for each in inputs:
        dtype = getattr(torch, each.dtype, None)
        if not isinstance(dtype, torch.dtype):
            raise RecipeError(
                f"unknown element type {each.dtype!r}", where="--shape", mend="write float32, ..."
            )
        feeds[each.name] = torch.zeros([int(dim) for dim in each.shape], dtype=dtype)
    return feeds


def _try(call: Callable[[], Any], module: torch.nn.Module, where: str) -> _Ran:
    """Call the model once, counting."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    with _quiet(), torch.no_grad(), FlopCounterMode(display=False) as flops:
        try:
            with _counting() as operators:
                returned = call()
        except Exception as error:
            raise InputError(
                f"cannot be called with these inputs: {type(error).__name__}: {error}",
                where=where,
                mend="name each input of forward() with its shape, batch first, in --shape",
            ) from error
    root = type(module).__name__
    # The counter names modules from the class of the root, and counts both halves of a MAC.
    macs = {
        name.removeprefix(root).removeprefix("."): sum(counts.values()) // 2
        for name, counts in flops.get_flop_counts().items()
        if name == root or name.startswith(root + ".")
    }
    tensors = flatten(returned)
    outputs = tuple(
        TensorSpec(name, _dtype(tensor), tuple(tensor.shape))
        for name, tensor in zip(output_names(len(tensors)), tensors, strict=True)
    )
    return _Ran(macs, operators, outputs)


@contextlib.contextmanager
def _counting() -> Iterator[Operators]:
    """Fills a table of the operators that run inside, by the element type of their first output."""
    import torch
    from torch.utils._python_dispatch import TorchDispatchMode

    counted: defaultdict[str, Counter[str]] = defaultdict(Counter)

    class Count(TorchDispatchMode):  # type: ignore[no-untyped-call]
        def __torch_dispatch__(
            self, function: Any, types: Any, args: Any = (), kwargs: Any = None
        ) -> Any:
            made = function(*args, **(kwargs or {}))
            first = made[0] if isinstance(made, (tuple, list)) and made else made
            # Room for a result is no operator.
            if isinstance(first, torch.Tensor) and not _name(function).startswith("empty"):
                counted[_name(function)][_dtype(first)] += 1
            return made

    table: Operators = {}
    with Count():  # type: ignore[no-untyped-call]
        yield table
    table |= {name: dict(sorted(counts.items())) for name, counts in sorted(counted.items())}


def _graph_operators(graph: torch.fx.Graph) -> Operators:
    counted: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for node in graph.nodes:
        if node.op == "call_function":
            value = node.meta.get("val")
            first = value[0] if isinstance(value, (tuple, list)) and value else value
            counted[_name(node.target)][_dtype(first)] += 1
    return {name: dict(sorted(counts.items())) for name, counts in sorted(counted.items())}


def _rows(
    module: torch.nn.Module, macs: Mapping[str, int] | None, batch: int
) -> Iterator[ModuleRow]:
    for name, each in module.named_modules():
        if not name:
            continue
        # Of an unflattened program, the class is known by name only.
        kind = getattr(each, "_ty", None) or type(each).__qualname__
        count = sum(parameter.numel() for parameter in each.parameters())
        held = macs.get(name, 0) // batch if macs is not None else None
        yield ModuleRow(name, str(kind).rpartition(".")[2], count, held)


def _refuse_lazy(module: torch.nn.Module, where: str) -> None:
    from torch.nn.parameter import is_lazy

    if any(is_lazy(each) for each in [*module.parameters(), *module.buffers()]):
        raise InputError(
            "has lazy parameters, whose shapes only a first call settles",
            where=where,
            mend=f"give the inputs, as in --shape '{_EXAMPLE}'",
        )


def _weights(state: Mapping[str, Any]) -> dict[str, Held]:
    found: dict[str, Held] = {}
    for tensor in state.values():
        if not hasattr(tensor, "numel"):
            continue
        dtype = _dtype(tensor)
        size = tensor.numel() * tensor.element_size()
        found[dtype] = add(found.get(dtype), tensor.numel(), size)
    return dict(sorted(found.items()))


def _spec(name: str, values: Mapping[str, Any]) -> TensorSpec:
    value = values.get(name)
    if value is None or not hasattr(value, "shape"):
        return TensorSpec(name, type(value).__name__, ())
    dims: list[int | str] = [dim if isinstance(dim, int) else str(dim) for dim in value.shape]
    if dims and isinstance(dims[0], str):
        dims[0] = "batch"
    return TensorSpec(name, _dtype(value), tuple(dims))


def _batched(value: Any) -> bool:
    return hasattr(value, "shape") and len(value.shape) > 0


def _dtype(tensor: Any) -> str:
    return str(getattr(tensor, "dtype", "?")).removeprefix("torch.")


def _name(function: Any) -> str:
    """`aten.conv2d.default` is `conv2d`; other libraries keep their name in front."""
    text = str(function).removeprefix("aten.")
    return text.removesuffix(".default")


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without torch's warnings, and without the fused attention that hides its products."""
    import torch
    from torch.nn.attention import SDPBackend, sdpa_kernel

    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with warnings.catch_warnings(), sdpa_kernel(SDPBackend.MATH):
            warnings.simplefilter("ignore")
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)
