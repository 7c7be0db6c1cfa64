"""A torch module as a graph of operators, and which of its values are which tensors of the ONNX
graph that it is lowered to.

The exporter renames, folds and splits, so that names tell little. Values do: both graphs compute
one batch, and a tensor is the value that holds the same numbers, whatever its shape. Weights are
varied a little for it, so that no two values are equal by chance, as the branches of a residual
network are that start at zero.
"""

from __future__ import annotations

import warnings
from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, fx, nn

from lepton_compress.artifacts import Model, Split
from lepton_compress.compress.session import observing
from lepton_compress.errors import InputError
from lepton_compress.load.forms import duplicate

if TYPE_CHECKING:
    from numpy.typing import NDArray

BATCH = 2
"""Of the traced example. A batch of one would be taken for a constant."""
_CLOSE = 1e-3
"""Difference that two ways of computing one value may have, as a share of its largest magnitude."""


@dataclass(frozen=True)
class Traced:
    """A module as torch.export sees it in inference.

    Attributes:
        graph: runs like the module, with its inputs by name.
        tensors: every parameter and buffer, by its name in the module.
    """

    graph: fx.GraphModule
    tensors: dict[str, Tensor]

    @torch.no_grad()
    def load(self, module: nn.Module) -> None:
        """Take the tensors' values from a module."""
        for name, held in _tensors(module).items():
            if name in self.tensors:
                self.tensors[name].copy_(held)

    def adopt(self, module: nn.Module) -> None:
        """Compute with the parameters and buffers of a module themselves, so that what trains the
        module trains this."""
        for name, held in _tensors(module).items():
            if name in self.tensors:
                owner, _, leaf = name.rpartition(".")
                setattr(self.graph.get_submodule(owner), leaf, held)
                self.tensors[name] = held

    @torch.no_grad()
    def store(self, module: nn.Module) -> None:
        """Put the tensors' values into a module."""
        for name, held in _tensors(module).items():
            if name in self.tensors:
                held.copy_(self.tensors[name])


def trace(model: Model, split: Split, where: str) -> Traced:
    """Trace a module with a dynamic batch.

    Args:
        split: at least two samples, named as the model's inputs.

    Raises:
        InputError: torch.export cannot follow its forward().
    """
    copy: nn.Module = duplicate(model).value.eval()
    given = _batch(split)
    batch = torch.export.Dim("batch")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of its own internals, and of recurrent layers
            program = torch.export.export(
                copy, (), kwargs=given, dynamic_shapes={name: {0: batch} for name in given}
            )
    except Exception as error:  # it raises errors of every kind
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        said = lines[0] if lines else "no message"
        raise InputError(
            f"torch.export cannot trace the model: {type(error).__name__}: {said}",
            where=where,
            mend="let forward() depend on the shapes of its inputs alone, or use quantize",
        ) from error
    held: Any = program.module()
    for node in list(held.graph.nodes):
        # The check of the inputs' shapes, which need not be those of the example.
        if node.op == "call_module" and not node.users:
            held.graph.erase_node(node)
        elif node.target == torch.ops.aten.silu.default:
            _take_apart(held.graph, node)
    # What torch.export gives cannot be switched to training; its operators can.
    graph = fx.GraphModule(held, held.graph)
    return Traced(graph, _tensors(graph))


def _take_apart(graph: fx.Graph, silu: fx.Node) -> None:
    """Write x * sigmoid(x) as the two operators that it is in ONNX, so that both are seen."""
    (given,) = silu.args
    with graph.inserting_before(silu):
        gate = graph.call_function(torch.ops.aten.sigmoid.default, (given,))
        made = graph.call_function(torch.ops.aten.mul.Tensor, (given, gate))
    silu.replace_all_uses_with(made)
    graph.erase_node(silu)


def varied(model: Model, seed: int) -> Model:
    """A copy whose parameters, and statistics of normalisation, differ a little from the
    model's."""
    copy = duplicate(model)
    draw = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, held in copy.value.named_buffers():
            # As fresh as they are built they normalise nothing.
            if name.rpartition(".")[2] == "running_var":
                held.mul_(torch.exp(0.2 * torch.randn(held.shape, generator=draw)))
        for held in copy.value.parameters():
            if held.is_floating_point():
                noise = torch.randn(held.shape, generator=draw)
                held.add_((0.02 * held.abs().mean() + 1e-3) * noise)
    return copy


def match(traced: Traced, lowered: Model, split: Split) -> dict[str, fx.Node]:
    """ONNX tensor to the value it is, of the float tensors that are one. Of equal values the first
    that is computed.

    Args:
        traced: with the very weights that `lowered` has.
        lowered: the module's graph.
    """
    values = _Recorder(traced.graph).record(_batch(split))
    by_size: defaultdict[int, list[tuple[fx.Node, NDArray[np.float32]]]] = defaultdict(list)
    for node, array in values.items():
        by_size[array.size].append((node, array))
    names = [name for node in lowered.value.graph.node for name in node.output if name]
    feeds = {name: array.numpy() for name, array in _batch(split).items()}
    session = observing(lowered.value, names, 1)
    made = dict(zip(names, session.run(names, feeds), strict=True))
    found: dict[str, fx.Node] = {}
    for name, array in {**feeds, **made}.items():
        # A tensor that never varies could be any other.
        if array.dtype == np.float32 and array.size and array.min() < array.max():
            flat = array.reshape(-1)
            same = [node for node, other in by_size[flat.size] if _same(flat, other)]
            if same:
                found[name] = same[0]
    return found


def _same(one: NDArray[np.float32], other: NDArray[np.float32]) -> bool:
    # Most are told apart by their beginnings.
    limit = _CLOSE * float(np.abs(one).max())
    return all(bool((np.abs(one[:end] - other[:end]) <= limit).all()) for end in (64, len(one)))


class _Recorder(fx.Interpreter):
    """Runs a graph and keeps each float value."""

    def record(self, given: dict[str, Tensor]) -> dict[fx.Node, NDArray[np.float32]]:
        self.kept: dict[fx.Node, NDArray[np.float32]] = {}
        places = [str(node.target) for node in self.module.graph.nodes if node.op == "placeholder"]  # type: ignore[union-attr]
        with torch.no_grad():
            self.run(*(given[name] for name in places), enable_io_processing=False)
        return self.kept

    def run_node(self, n: fx.Node) -> Any:
        made = super().run_node(n)
        of_data = n.op in ("placeholder", "call_function") and isinstance(made, Tensor)
        if of_data and made.dtype == torch.float32:
            self.kept[n] = made.detach().reshape(-1).numpy().copy()
        return made


def _batch(split: Split) -> dict[str, Tensor]:
    rows = np.arange(BATCH) % len(split)
    return {name: torch.from_numpy(array[rows].copy()) for name, array in split.inputs.items()}


def _tensors(module: nn.Module) -> dict[str, Tensor]:
    """Every parameter and buffer by every name it has."""
    return {
        **dict(module.named_parameters(remove_duplicate=False)),
        **dict(module.named_buffers(remove_duplicate=False)),
    }
