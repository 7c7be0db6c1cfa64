"""Activations of a graph on real samples, batch by batch: the graph is run with its inner tensors
as further outputs, as its nodes stand in the file."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from lepton_compress.errors import InputError
from lepton_compress.load.forms import signature

if TYPE_CHECKING:
    import numpy as np
    import onnx
    from numpy.typing import NDArray

    from lepton_compress.artifacts import Split

    Values = dict[str, NDArray[Any]]

BATCH = 32
BYTES = 128 * 2**20
"""Activations held at once decide the batch size."""


class Observed:
    """A graph whose inner tensors can be read.

    Args:
        model: the graph.
        wanted: float tensors to read, the model's own outputs and inputs among them if need be.
        fused: let the runtime fuse what is not read, which is faster. A graph with integer kernels
            would then no longer compute as its nodes stand in the file.

    Raises:
        InputError: the runtime cannot load it.
    """

    def __init__(
        self, model: onnx.ModelProto, wanted: Sequence[str], *, fused: bool = False
    ) -> None:
        import onnx
        import onnxruntime

        copy = onnx.ModelProto()
        copy.CopyFrom(model)
        specs, outputs = signature(copy)
        self.inputs = specs
        held = {*outputs, *(spec.name for spec in specs)}
        # Without a type, which the runtime knows better than shape inference.
        copy.graph.output.extend(
            onnx.ValueInfoProto(name=name) for name in dict.fromkeys(wanted) if name not in held
        )
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4
        if not fused:
            level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
            options.graph_optimization_level = level
        try:
            self._session = onnxruntime.InferenceSession(
                copy.SerializeToString(), options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # its exceptions share no base class
            raise InputError(f"ONNX Runtime cannot run it layer by layer: {error}") from error
        self._names = [each.name for each in self._session.get_outputs()]

    def run(self, feeds: Mapping[str, NDArray[Any]]) -> Values:
        """Every float tensor wanted, and the inputs that are float.

        Raises:
            InputError: it does not accept the data.
        """
        given = {spec.name: feeds[spec.name] for spec in self.inputs}
        try:
            made = dict(zip(self._names, self._session.run(self._names, given), strict=True))
        except Exception as error:  # its exceptions share no base class
            shapes = ", ".join(f"{n} {a.dtype}{list(a.shape)}" for n, a in given.items())
            raise InputError(
                f"the model does not accept the data ({shapes}): {error}",
                where="data",
                mend="check the shape and dtype against what it takes",
            ) from error
        return {name: each for name, each in (made | given).items() if each.dtype.kind == "f"}


def batches(
    model: onnx.ModelProto, split: Split, limit: int, graphs: Sequence[Observed]
) -> Iterator[dict[str, np.ndarray]]:
    """Batches of up to `limit` samples, so small that the activations of `graphs` fit in memory.

    A batch size that the model fixes is kept, and what is left over in the end is dropped.

    Raises:
        InputError: the data has other inputs than the model, or fewer samples than one batch.
    """
    specs, _ = signature(model)
    try:
        data = split.named([spec.name for spec in specs])
    except ValueError as error:
        raise InputError(str(error), where="data") from error
    first = specs[0].shape[0] if specs and specs[0].shape else None
    if isinstance(first, int):
        if first > len(data):
            raise InputError(f"{len(data)} samples do not fill one batch of {first}", where="data")
        yield from (
            each
            for each in data.batches(first, max(first, limit))
            if len(next(iter(each.values()))) == first
        )
        return
    one = next(data.batches(1))
    size = sum(array.nbytes for graph in graphs for array in graph.run(one).values())
    yield from data.batches(max(1, min(BATCH, BYTES // max(1, size))), limit)
