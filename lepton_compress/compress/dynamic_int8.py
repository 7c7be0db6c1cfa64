"""Dynamic int8 quantisation of an ONNX graph: each node with weights is rewritten into the pattern
that ONNX Runtime computes with one integer kernel."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from lepton_compress.artifacts import Model, Split, StepContext, StepOutcome
from lepton_compress.compress import account, large, processor
from lepton_compress.compress.block_graph import drop_unused
from lepton_compress.compress.prepare import Prepared, prepare
from lepton_compress.compress.session import optimised
from lepton_compress.load.external import TensorFile, array_of
from lepton_compress.load.forms import duplicate, signature
from lepton_compress.provenance import cpu

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from lepton_compress.compress.quantize_dynamic import QuantizeDynamic

DOMAIN = "com.microsoft"

_SLAB = 2**22
_CONVOLUTION = "dynamic int8 convolutions are slower than float ones"
_NO_KERNEL = "ONNX Runtime has no int8 kernel for {}"
_FLOAT_ALL_THE_SAME = "ONNX Runtime has no integer kernel for it here"
_NOT_CONSTANT = "it has no constant weight"


def quantize(model: Model, calibration: Split, params: QuantizeDynamic) -> StepOutcome:
    """The graph with integer matrix products; changed is False if it has none to quantise.

    Args:
        model: a graph in float32.
        calibration: inputs (samples, ...); only the noise of the outputs is measured on it.

    Raises:
        InputError: `keep` names no node, the graph is quantised already, or the data do not fit.
    """
    ready = _folded(prepare(model, calibration, params.keep, "quantize_dynamic"))
    writer = _Writer(ready.model, params)
    found, reasons = writer.candidates()
    if not found:
        return _nothing(model, reasons)
    saturating = processor.saturates(params.saturating, cpu())
    bits = processor.weight_bits(params.weight_bits, saturating=saturating.value)
    outcome = writer.write(found, 64 if bits.value == 7 else 127)
    weighted = account.account(ready.model, outcome, reasons, lambda _: _FLOAT_ALL_THE_SAME)
    held = account.held_in_float(ready.model, weighted["float"])
    statistics = {
        "weight_bits": bits.told(),
        "saturating": saturating.told(),
        "weighted": weighted,
        "embeddings": [node.name for node in found if node.op_type == "Gather"],
        "held_in_float": held,
        "output_sqnr_db": account.output_noise(ready.model, outcome, ready.split),
    }
    told = account.told_of_held(held)
    notes = (*ready.notes, *account.left_in_float(weighted["float"]), *told)
    return StepOutcome(outcome, changed=True, statistics=statistics, notes=notes)


def _folded(ready: Prepared) -> Prepared:
    """ONNX Runtime quantises only weights that are stored: fold those that are computed."""
    graph = ready.model.value.graph
    stored = {tensor.name for tensor in graph.initializer}
    recurrent = [node for node in graph.node if node.op_type in account.RECURRENT]
    if all(set(node.input[1:3]) <= stored for node in recurrent):
        return ready
    made = optimised(ready.model.value, fused=False)
    note = "constants were folded, so that the weights of recurrent layers are stored"
    return Prepared(Model("graph", made, *signature(made)), ready.split, (*ready.notes, note))


def quantize_large(model: Model, params: QuantizeDynamic, context: StepContext) -> StepOutcome:
    """As `quantize`, one tensor at a time from the model's files to one in `context.scratch`.

    Raises:
        InputError: as `quantize`.
    """
    large.check(model, params.keep, context.data.calibration, "quantize_dynamic")
    found, reasons = _Writer(model, params).candidates()
    if not found:
        return _nothing(model, reasons)
    saturating = processor.saturates(params.saturating, cpu())
    bits = processor.weight_bits(params.weight_bits, saturating=saturating.value)
    with large.new_file(context) as file:
        made = _Writer(model, params, file).write(found, 64 if bits.value == 7 else 127)
        large.carry(made.value.graph, model, file)
    statistics = {
        "weight_bits": bits.told(),
        "saturating": saturating.told(),
        "weighted": {
            "integer": {node.name: "as written" for node in found if node.op_type != "Gather"},
            "float": reasons,
        },
        "embeddings": [node.name for node in found if node.op_type == "Gather"],
    }
    notes = (*account.left_in_float(reasons), large.UNMEASURED)
    outcome = made.replace(folder=context.scratch)
    return StepOutcome(outcome, changed=True, statistics=statistics, notes=notes)


def _nothing(model: Model, reasons: Mapping[str, str]) -> StepOutcome:
    lines = account.left_in_float(reasons) or ["the graph multiplies no matrices"]
    return StepOutcome(model, changed=False, notes=("nothing to quantise", *lines))


class _Writer:
    """Rewrites the nodes of one graph; the tensors it makes go into `file`, if there is one."""

    def __init__(
        self, model: Model, params: QuantizeDynamic, file: TensorFile | None = None
    ) -> None:
        self.model = duplicate(model)
        self.file = file
        self.graph = self.model.value.graph
        self.params = params
        self.held = {tensor.name: tensor for tensor in self.graph.initializer}
        self.nodes: list[onnx.NodeProto] = []
        self.rounded: dict[str, tuple[str, str, str]] = {}
        self.most = 127

    def candidates(self) -> tuple[list[onnx.NodeProto], dict[str, str]]:
        """The nodes to quantise, and by name why the others with weights are not."""
        found, reasons = [], {}
        for node in self.graph.node:
            if node.op_type not in (*account.WEIGHTED, "Gather"):
                continue
            why = "named in `keep`" if node.name in self.params.keep else self._obstacle(node)
            if why is None:
                found.append(node)
            elif node.op_type != "Gather":
                reasons[node.name] = why
        return found, reasons

    def _obstacle(self, node: onnx.NodeProto) -> str | None:
        """Why a node cannot be quantised, or None."""
        if node.op_type in ("Conv", "ConvTranspose"):
            return _CONVOLUTION
        if node.op_type == "Gather":
            wanted = self.params.embeddings and self._is_weight(node.input[0])
            return None if wanted and not _attributes(node).get("axis") else _NOT_CONSTANT
        if node.op_type in ("GRU", "RNN") or (node.op_type, node.domain) == ("Attention", ""):
            return _NO_KERNEL.format(node.op_type)
        given = _attributes(node)
        if node.op_type == "LSTM":
            if not all(self._is_weight(name, 3) for name in node.input[1:3]):
                return _NOT_CONSTANT
            return "its int8 kernel knows no layout=1" if given.get("layout") else None
        if not self._is_weight(node.input[1]):
            return _NOT_CONSTANT
        if node.op_type == "Attention":
            # The integer operator splits the projection into three equal parts.
            return None if len(set(given.get("qkv_hidden_sizes", []))) < 2 else "q, k and v differ"
        plain = given.get("alpha", 1.0) == 1.0 == given.get("beta", 1.0) and not given.get("transA")
        return None if node.op_type == "MatMul" or plain else "alpha, beta or transA are set"

    def _is_weight(self, name: str, rank: int = 2) -> bool:
        tensor = self.held.get(name)
        return tensor is not None and (len(tensor.dims), tensor.data_type) == (rank, tensor.FLOAT)

    def _weight(self, name: str) -> NDArray[np.float32]:
        return array_of(self.held[name], self.model.folder)

    def write(self, found: list[onnx.NodeProto], most: int) -> Model:
        """The rewritten graph; `most` is the largest integer a weight may become."""
        self.most = most
        chosen = {node.output[0] for node in found}
        makers = {
            "Attention": self._attention,
            "Gather": self._gather,
            "Gemm": self._product,
            "LSTM": self._lstm,
            "MatMul": self._product,
        }
        for node in list(self.graph.node):
            if node.output[0] in chosen:
                self.nodes.extend(makers[node.op_type](node))
            else:
                self.nodes.append(node)
        del self.graph.node[:]
        self.graph.node.extend(self.nodes)
        drop_unused(self.graph)
        made = self.model.value
        if not any(each.domain == DOMAIN for each in made.opset_import):
            made.opset_import.append(helper.make_opsetid(DOMAIN, 1))
        if self.file is None:
            onnx.checker.check_model(made)
        return Model("graph", made, *signature(made))

    def _store(self, name: str, array: NDArray[Any]) -> str:
        if name not in self.held:
            self.held[name] = (
                self.file.write(name, array)
                if self.file
                else numpy_helper.from_array(np.ascontiguousarray(array), name)
            )
            self.graph.initializer.append(self.held[name])
        return name

    def _round(self, weight: NDArray[np.float32], axis: int | None) -> tuple[Any, Any]:
        """Symmetric integers, and scales along `axis` (None: one for all)."""
        # By slabs of rows: a weight that is mapped from its file is never whole in memory.
        others = None if axis is None else 0
        slabs = _slabs(weight)
        largest = np.max([np.abs(weight[slab]).max(axis=others) for slab in slabs], axis=0)
        # A channel of zeros has no scale of its own.
        scales = np.where(largest > 0, largest / self.most, 1.0).astype(np.float32)
        integers = np.empty(weight.shape, np.int8)
        for slab in slabs:
            rounded = np.round(weight[slab] / scales)
            integers[slab] = np.clip(rounded, -self.most, self.most)
        return integers, scales

    def _stored(self, name: str, *, turned: bool = False) -> tuple[str, str]:
        """Names of a matrix's integers, (inner, columns), and of its scales."""
        stem = f"{name}_turned" if turned else name
        weight = self._weight(name)
        integers, scales = self._round(
            weight.T if turned else weight, 1 if self.params.per_channel else None
        )
        return self._store(f"{stem}_int8", integers), self._store(f"{stem}_scale", scales)

    def _activation(self, name: str) -> tuple[str, str, str]:
        """Names of a value's integers, scale and zero point; quantised once for all its users."""
        if name not in self.rounded:
            parts = (f"{name}_uint8", f"{name}_scale", f"{name}_zero")
            self.nodes.append(
                helper.make_node("DynamicQuantizeLinear", [name], parts, f"{name}_quantize")
            )
            self.rounded[name] = parts
        return self.rounded[name]

    def _product(self, node: onnx.NodeProto) -> Iterator[onnx.NodeProto]:
        turned = bool(_attributes(node).get("transB"))
        weight, steps = self._stored(node.input[1], turned=turned)
        integers, scale, zero = self._activation(node.input[0])
        bias = node.input[2] if len(node.input) > 2 else ""
        stem = node.output[0]
        product = f"{stem}_product" if bias else stem
        yield helper.make_node(
            "MatMulInteger", [integers, weight, zero], [f"{stem}_int32"], node.name
        )
        yield helper.make_node(
            "Cast", [f"{stem}_int32"], [f"{stem}_sum"], f"{stem}_cast", to=onnx.TensorProto.FLOAT
        )
        yield helper.make_node("Mul", [scale, steps], [f"{stem}_scales"], f"{stem}_scales_mul")
        yield helper.make_node(
            "Mul", [f"{stem}_sum", f"{stem}_scales"], [product], f"{stem}_rescale"
        )
        if bias:
            yield helper.make_node("Add", [product, bias], [stem], f"{stem}_bias")

    def _gather(self, node: onnx.NodeProto) -> Iterator[onnx.NodeProto]:
        name = node.input[0]
        integers, scales = self._round(self._weight(name), None)
        rows = f"{node.output[0]}_int8"
        made = helper.make_node(
            "Gather",
            [self._store(f"{name}_int8", integers), node.input[1]],
            [rows],
            node.name,
            **_attributes(node),
        )
        yield made
        scale = self._store(f"{name}_scale", scales)
        zero = self._store(f"{name}_zero", np.zeros((), np.int8))
        yield helper.make_node(
            "DequantizeLinear", [rows, scale, zero], [node.output[0]], f"{node.name}_dequantize"
        )

    def _lstm(self, node: onnx.NodeProto) -> Iterator[onnx.NodeProto]:
        inputs = [*node.input, *[""] * (8 - len(node.input))]
        scales = []
        for place in (1, 2):
            name = inputs[place]
            # Each direction by itself, its gates' outputs along the last axis.
            axis = 1 if self.params.per_channel else None
            each = [self._round(one.T, axis) for one in self._weight(name)]
            steps = np.stack([scale for _, scale in each])
            inputs[place] = self._store(f"{name}_int8", np.stack([made for made, _ in each]))
            scales.append(self._store(f"{name}_scale", steps))
            scales.append(self._store(f"{name}_zero", np.zeros(steps.shape, np.int8)))
        given = {k: v for k, v in _attributes(node).items() if k != "layout"}
        yield helper.make_node(
            "DynamicQuantizeLSTM",
            [*inputs, *scales],
            node.output,
            node.name,
            domain=DOMAIN,
            **given,
        )

    def _attention(self, node: onnx.NodeProto) -> Iterator[onnx.NodeProto]:
        weight, steps = self._stored(node.input[1])
        integers, scale, zero = self._activation(node.input[0])
        zeros = self._store(f"{weight}_zero", np.zeros(self._sizes(steps), np.int8))
        mask, past = (node.input[i] if len(node.input) > i else "" for i in (3, 4))
        given = {k: v for k, v in _attributes(node).items() if k != "qkv_hidden_sizes"}
        yield helper.make_node(
            "QAttention",
            [integers, weight, node.input[2], scale, steps, mask, zero, zeros, past],
            node.output,
            node.name,
            domain=DOMAIN,
            **given,
        )

    def _sizes(self, name: str) -> tuple[int, ...]:
        return tuple(self.held[name].dims)


def _slabs(weight: NDArray[np.float32]) -> list[slice]:
    """Rows that are rounded at once."""
    rows = max(1, _SLAB // max(1, weight[:1].size))
    return [slice(start, start + rows) for start in range(0, len(weight), rows)]


def _attributes(node: onnx.NodeProto) -> Mapping[str, Any]:
    return {each.name: helper.get_attribute_value(each) for each in node.attribute}
