"""Where a LiteRT artifact parts from the graph that it was written from.

Every layer is computed by both from the same inputs: those that the artifact itself gives the
layer. What a layer adds shows by itself then, whatever the layers before it have done. All that
takes is one run of the graph whose shared values are inputs, too.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lepton_compress.accounts import LayerGap
from lepton_compress.errors import InputError
from lepton_compress.explain.observe import Observed
from lepton_compress.explain.wiring import QUANTIZE, Wiring
from lepton_compress.layers import Layer, Layers, Value
from lepton_compress.targets import litert_session
from lepton_compress.targets.litert_session import SessionError

if TYPE_CHECKING:
    import onnx
    from numpy.typing import NDArray

    from lepton_compress.artifacts import Split

    Arrays = dict[str, NDArray[Any]]

STEPS = 2.0
"""Integer kernels scale by integers, and round twice where they compute in two parts."""
RELATIVE = 1e-4
"""As of two float artifacts."""
HALVES = 0.01
"""Of a graph that computes in 16 bits, which LiteRT does not."""
APPROXIMATE = 0.1
"""Where the artifact rounds weights or activations that its source does not round alike."""
_GIVEN = "/given"
_DYNAMIC = ("DynamicQuantizeLinear", "DynamicQuantizeLSTM")


@dataclass
class _Held:
    """A value that both have, with the largest errors so far.

    Attributes:
        alone, together: of the layer by itself, and with all before it.
        repeats: the layer whose tensor holds the value already, of one that only converts it.
        size: the largest magnitude in the source.
        scale: of the tensor's integers; 0 of a float tensor.
        noise, power: sums of squares of the source against its float counterpart.
    """

    layer: Layer
    value: Value
    repeats: Layer | None = None
    alone: float = 0.0
    together: float = 0.0
    size: float = 0.0
    scale: float = 0.0
    noise: float = 0.0
    power: float = 0.0

    def gap(self, limit: float, *, measured: bool) -> LayerGap:
        """What is told of it; `limit` is that of a float tensor."""
        unit = self.scale or max(self.size, 1e-12)
        return LayerGap(
            layer=self.layer.node or self.value.name,
            operator=self.layer.operator,
            value=self.value.name,
            tensor=self.layer.tensor,
            unit="steps" if self.scale else "relative",
            alone=self.alone / unit,
            together=self.together / unit,
            limit=STEPS if self.scale else limit,
            quantized=(self.noise / self.power) ** 0.5 if measured and self.power else None,
        )


def compare(
    artifact: Path,
    layers: Layers,
    source: onnx.ModelProto,
    samples: Split,
    limit: int,
    reference: onnx.ModelProto | None = None,
) -> tuple[tuple[LayerGap, ...], int, float]:
    """The layers in order, how many samples they were compared on, and the difference of the
    outputs that XNNPACK makes.

    Args:
        artifact: a .tflite file.
        layers: what its operators stand for.
        source: the graph that it was written from.
        samples: as the artifact takes them.
        limit: at most this many of them, and at least one call's.
        reference: the graph that `source` was quantised from.

    Raises:
        InputError: one of them cannot be run, or does not accept the data, or they share no layer.
    """
    wiring, running = Wiring(source), _Running(artifact)
    shared = [(each, value) for each in layers.operators for value in _eligible(each, wiring)]
    free = Observed(source, [value.name for _, value in shared])
    data, plain = _named(samples, free), _Plain(wiring, reference)
    alone: Observed | None = None
    held: list[_Held] = []
    count, delegate = 0, 0.0
    for feeds in data.batches(running.batch, max(limit, running.batch)):
        if len(next(iter(feeds.values()))) < running.batch:
            break
        far = running.run(feeds)
        wanted = free.run(feeds)
        if alone is None:
            shared = [pair for pair in shared if pair[1].name in wanted and running.holds(pair[0])]
            held = list(_compared(shared))
            alone = Observed(
                _opened(source, {v.name: wanted[v.name] for _, v in shared}), _all(shared)
            )
        given = {
            f"{value.name}{_GIVEN}": running.value(each, value).astype(wanted[value.name].dtype)
            for each, value in reversed(shared)
        }
        forced, whole = alone.run({**feeds, **given}), plain.run(feeds)
        for one in held:
            name = one.value.name
            _add(one, running, wanted[name], forced[name], whole.get(name))
        count, delegate = count + running.batch, max(delegate, far)
    if not held:
        raise InputError("holds no layer that can be compared", where=str(artifact))
    rough = layers.approximate or any(n.op_type in _DYNAMIC for n in source.graph.node)
    size = APPROXIMATE if rough else HALVES if _in_halves(source) else RELATIVE
    return tuple(each.gap(size, measured=plain.known) for each in held), count, delegate


def _compared(shared: Sequence[tuple[Layer, Value]]) -> Iterator[_Held]:
    """One value of each tensor, the one nearest to the operator that gives it."""
    known: dict[str, Layer] = {}
    seen: set[int] = set()
    for layer, value in shared:
        if layer.index not in seen:
            yield _Held(layer, value, known.get(value.name))
        seen.add(layer.index)
        known.setdefault(value.name, layer)


def _add(
    one: _Held, running: _Running, wanted: NDArray[Any], forced: NDArray[Any], whole: Any
) -> None:
    """Take the values of a batch in."""
    import numpy as np

    made = running.value(one.layer, one.value).astype(np.float64)
    one.scale, one.size = running.scale(one.layer), max(one.size, _largest(wanted))
    base = forced if one.repeats is None else running.value(one.repeats, one.value)
    one.alone = max(one.alone, _largest(made - base))
    one.together = max(one.together, _largest(made - wanted))
    if whole is not None and whole.shape == wanted.shape:
        one.noise += float(np.square(wanted - whole.astype(np.float64)).sum())
        one.power += float(np.square(whole.astype(np.float64)).sum())


def _largest(array: NDArray[Any]) -> float:
    """Its largest magnitude; infinite where a number is none."""
    import numpy as np

    found = float(np.abs(array).max(initial=0.0))
    return found if np.isfinite(found) else float("inf")


def _named(samples: Split, graph: Observed) -> Split:
    try:
        return samples.named([spec.name for spec in graph.inputs])
    except ValueError as error:
        raise InputError(str(error), where="data") from error


def _all(shared: Sequence[tuple[Layer, Value]]) -> list[str]:
    return list(dict.fromkeys(value.name for _, value in shared))


def _eligible(layer: Layer, wiring: Wiring) -> Iterator[Value]:
    """The values of a tensor that are what it holds: not what is only about to be rounded, and has
    its range in the graph alone."""
    known = {*wiring.producer} - {*wiring.constants}
    for value in layer.values:
        users = wiring.users.get(value.name, [])
        rounds = bool(users) and all(each.op_type == QUANTIZE for each in users)
        if value.name in known and (not rounds or value.name in wiring.outputs):
            yield value


def _opened(model: onnx.ModelProto, values: Mapping[str, NDArray[Any]]) -> onnx.ModelProto:
    """A copy whose nodes take these values from outside, under a name of their own, and still
    compute them."""
    import onnx

    made = onnx.ModelProto()
    made.CopyFrom(model)
    for node in made.graph.node:
        for place, name in enumerate(node.input):
            if name in values:
                node.input[place] = f"{name}{_GIVEN}"
    for name, array in values.items():
        value = onnx.ValueInfoProto(name=f"{name}{_GIVEN}")
        kind = onnx.helper.np_dtype_to_tensor_dtype(array.dtype)
        value.type.tensor_type.elem_type = kind
        made.graph.input.append(value)
    return made


def _in_halves(model: onnx.ModelProto) -> bool:
    import onnx

    kinds = (onnx.TensorProto.FLOAT16, onnx.TensorProto.BFLOAT16)
    return any(tensor.data_type in kinds for tensor in model.graph.initializer)


class _Plain:
    """The float counterpart; values are asked of it by their names in the source."""

    def __init__(self, wiring: Wiring, reference: onnx.ModelProto | None) -> None:
        self._names: dict[str, str] = {}
        self._graph: Observed | None = None
        if reference is not None:
            own = Wiring(reference)
            for name in wiring.producer:
                # An output keeps its name behind the rounding, and its origin gets another one.
                either = (wiring.origin(name), name)
                if known := [each for each in either if each in own.producer]:
                    self._names[name] = known[0]
            self._graph = Observed(reference, list(dict.fromkeys(self._names.values())))

    @property
    def known(self) -> bool:
        """Whether there is one."""
        return self._graph is not None

    def run(self, feeds: Arrays) -> Arrays:
        if self._graph is None:
            return {}
        made = self._graph.run(feeds)
        return {name: made[each] for name, each in self._names.items() if each in made}


class _Running:
    """The artifact with every tensor kept, by LiteRT's built-in kernels; XNNPACK keeps none."""

    def __init__(self, path: Path) -> None:
        from ai_edge_litert import interpreter

        try:
            self._delegated = litert_session.load(path, 1)
            self._interpreter: Any = interpreter.Interpreter(
                str(path),
                num_threads=1,
                experimental_op_resolver_type=(
                    interpreter.OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
                ),
                experimental_preserve_all_tensors=True,
            )
            self._interpreter.allocate_tensors()
        except SessionError as error:
            raise InputError(error.problem, where=str(path)) from error
        self._path = path
        self._details = {each["index"]: each for each in self._interpreter.get_tensor_details()}
        shapes = [each.shape for each in self._delegated.inputs if each.shape]
        self.batch: int = shapes[0][0] if shapes else 1

    def run(self, feeds: Arrays) -> float:
        """One call. How far XNNPACK's outputs are from it, relative to their largest magnitude."""
        try:
            wanted = self._delegated.run(feeds)
        except SessionError as error:
            raise InputError(error.problem, where=str(self._path)) from error
        for tensor in self._delegated.inputs:
            self._interpreter.set_tensor(tensor.index, tensor.inward(feeds[tensor.name]))
        self._interpreter.invoke()
        made = [each.outward(self._tensor(each.index)) for each in self._delegated.outputs]
        pairs = zip(wanted, made, strict=True)
        return max(
            _largest(one.astype(float) - other) / max(_largest(one), 1e-12) for one, other in pairs
        )

    def scale(self, layer: Layer) -> float:
        """What one step of a tensor's integers stands for; 0 of a float tensor."""
        return float(self._details[layer.index]["quantization"][0])

    def holds(self, layer: Layer) -> bool:
        """Whether a tensor stands for numbers, rounded or not."""
        known = self._details.get(layer.index)
        return known is not None and (known["dtype"]().dtype.kind == "f" or self.scale(layer) > 0)

    def value(self, layer: Layer, value: Value) -> NDArray[Any]:
        """A value of the graph, (its shape there), as the artifact has computed it."""
        import numpy as np

        array = self._tensor(layer.index)
        if self.scale(layer):
            zero = self._details[layer.index]["quantization"][1]
            array = (array.astype(np.float32) - zero) * np.float32(self.scale(layer))
        array = array.reshape([value.factors[place] for place in value.order])
        return array.transpose(np.argsort(value.order)).reshape(value.shape)

    def _tensor(self, index: int) -> NDArray[Any]:
        return self._interpreter.get_tensor(index)  # type: ignore[no-any-return]
