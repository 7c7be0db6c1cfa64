"""The account of an artifact: its nodes, joined with what the runtime made of them, with the time
they took and with the noise that they add."""

from __future__ import annotations

import tempfile
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lepton_compress.accounts import (
    FOLDED,
    INT8,
    Account,
    KernelAccount,
    NodeAccount,
    RangeAccount,
)
from lepton_compress.artifacts import Observer, Split
from lepton_compress.errors import InputError
from lepton_compress.explain import data, error, runtime_graph, saturation, time, weights
from lepton_compress.explain.reasons import is_integer, why_not
from lepton_compress.explain.runtime_graph import RuntimeNode
from lepton_compress.explain.time import Kernel, Profiled
from lepton_compress.explain.wiring import (
    BORDERS,
    DEQUANTIZE,
    QUANTIZE,
    WEIGHTED,
    Wiring,
    is_depthwise,
    output_of,
    title,
)

if TYPE_CHECKING:
    import onnx

OWN_GRAPH = "its own graph without Q/DQ pairs, with dequantised weights"
_COVERED = 0.5
"""Share of the artifact's roundings that a reference must name to be its counterpart."""


@dataclass(frozen=True)
class Request:
    """What to explain.

    Attributes:
        artifact: an .onnx file.
        reference: the float graph that it was quantised from, or None if there is none at hand.
        evaluation: samples to measure on; inputs (samples, ...).
        calibration: samples that its ranges come from, where they are known.
        samples: at most this many evaluation samples.
        calibration_samples: how many it was calibrated on, where a run tells.
        extensions, machine: of the processor to judge for.
        notes: what the reader should know of the above.
    """

    artifact: Path
    reference: Path | None
    evaluation: Split
    calibration: Split | None
    samples: int
    extensions: tuple[str, ...]
    machine: str
    calibration_samples: int | None = None
    notes: tuple[str, ...] = ()


def make(
    request: Request,
    artifact: onnx.ModelProto,
    reference: onnx.ModelProto | None,
    observer: Observer,
) -> Account:
    """Measure an artifact.

    Args:
        artifact, reference: the graphs in the files of the request.

    Raises:
        InputError: the runtime cannot run one of them, or they do not accept the data.
    """
    with tempfile.TemporaryDirectory() as folder:
        wiring = Wiring(artifact)
        plain, exact, notes = _reference(wiring, reference)
        file = request.reference if exact and request.reference else Path(folder) / "float.onnx"
        if file != request.reference:
            file.write_bytes(plain.model.SerializeToString())
        with observer.work("comparing layers"):
            compared = error.compare(
                wiring,
                plain,
                _runner(request.artifact),
                request.evaluation,
                request.calibration,
                request.samples,
            )
        with observer.work("profiling"):
            one = _one(artifact, request.evaluation)
            floors = [time.floor()]
            profiled = time.profile(request.artifact, one)
            floors.append(time.floor())  # before and after, as other work comes and goes
            latency, float_latency = time.latencies([request.artifact, file], [one, one])
    ranges = _ranges(wiring, compared)
    join = _Join(wiring, profiled, compared, {each.tensor: each for each in ranges}, plain, exact)
    levels = {
        level: runtime_graph.counted(runtime_graph.optimised(request.artifact, level))
        for level in ("basic", "extended")
    }
    inputs = data.compare(request.calibration, request.evaluation) if request.calibration else ()
    return Account(
        artifact=str(request.artifact),
        reference=str(request.reference) if exact else OWN_GRAPH,
        exact=exact,
        samples=compared.samples,
        nodes=tuple(join.node(node) for node in wiring.computing()),
        ranges=ranges,
        stored=weights.stored(wiring),
        levels={**levels, "all": runtime_graph.counted(profiled.nodes)},
        kernels=_kernels(profiled.kernels),
        output_db=compared.outputs,
        arithmetic_db=compared.arithmetic,
        changed=compared.changed,
        latency=latency,
        reference_latency=float_latency,
        floor=max(floors),
        extensions=request.extensions,
        machine=request.machine,
        calibration_samples=request.calibration_samples,
        shared=weights.shared(wiring),
        inputs=inputs,
        notes=(*request.notes, *notes),
    )


def _reference(
    wiring: Wiring, given: onnx.ModelProto | None
) -> tuple[Wiring, bool, tuple[str, ...]]:
    """The float graph to compare with, whether it is the one that was given, and notes."""
    own = Wiring(error.without_pairs(wiring.model))
    if given is None:
        return own, False, (f"no float graph at hand: compared with {OWN_GRAPH}",)
    plain = Wiring(given)
    wanted = [*wiring.pairs] or [name for node in wiring.computing() for name in node.output]
    if wiring.outputs <= {*plain.producer} and error.coverage(wiring, plain, wanted) >= _COVERED:
        return plain, True, ()
    note = f"the float graph given names other tensors: compared with {OWN_GRAPH}"
    return own, False, (note,)


def _runner(path: Path) -> Any:
    """The artifact as it is deployed: feeds to outputs by name."""
    import onnxruntime

    try:
        session = onnxruntime.InferenceSession(
            str(path), runtime_graph.session_options(), providers=["CPUExecutionProvider"]
        )
    except Exception as failure:  # its exceptions share no base class
        raise InputError(f"ONNX Runtime cannot load it: {failure}", where=str(path)) from failure
    names = [each.name for each in session.get_outputs()]
    inputs = [each.name for each in session.get_inputs()]

    def run(feeds: Mapping[str, Any]) -> dict[str, Any]:
        made = session.run(names, {name: feeds[name] for name in inputs})
        return {
            name: each for name, each in zip(names, made, strict=True) if each.dtype.kind == "f"
        }

    return run


def _one(model: onnx.ModelProto, split: Split) -> dict[str, Any]:
    """One sample, or one batch of the size that the model fixes."""
    from lepton_compress.load.forms import signature

    specs, _ = signature(model)
    first = specs[0].shape[0] if specs and specs[0].shape else 1
    size = first if isinstance(first, int) else 1
    return dict(next(split.named([spec.name for spec in specs]).batches(size)))


def _ranges(wiring: Wiring, compared: error.Compared) -> tuple[RangeAccount, ...]:
    found = (each.account(wiring.inputs) for each in compared.roundings.values())
    return tuple(each for each in found if each is not None)


def _kernels(kernels: Sequence[Kernel]) -> tuple[KernelAccount, ...]:
    """By operator and element types, the slowest first."""
    total = sum(kernel.seconds for kernel in kernels) or 1.0
    grouped: defaultdict[tuple[str, str], list[float]] = defaultdict(list)
    for kernel in kernels:
        types = dict.fromkeys(each for each in (kernel.takes, kernel.gives) if each)
        grouped[kernel.operator, ">".join(types)].append(kernel.seconds)
    found = [
        KernelAccount(operator, dtype, len(seconds), sum(seconds), sum(seconds) / total)
        for (operator, dtype), seconds in grouped.items()
    ]
    return tuple(sorted(found, key=lambda each: -each.seconds))


class _Join:
    """Everything known of the nodes of one file."""

    def __init__(
        self,
        wiring: Wiring,
        profiled: Profiled,
        compared: error.Compared,
        ranges: Mapping[str, RangeAccount],
        plain: Wiring,
        exact: bool,
    ) -> None:
        self.wiring, self.compared, self.ranges = wiring, compared, ranges
        self.plain = plain if exact else None
        self.runtime = profiled.nodes
        self.kernels = {kernel.name: kernel for kernel in profiled.kernels}
        self.total = sum(kernel.seconds for kernel in profiled.kernels) or 1.0
        self.placed = runtime_graph.place(wiring, profiled.nodes)
        self.producer = {name: node for node in self.runtime for name in node.outputs if name}
        self.users: defaultdict[str, list[RuntimeNode]] = defaultdict(list)
        for node in self.runtime:
            for name in filter(None, node.inputs):
                self.users[name].append(node)
        self.main = self._main()

    def _main(self) -> dict[int, str]:
        """Runtime node to the one node of the file that its time is told of."""
        found: dict[int, str] = {}
        for node in self.wiring.computing():
            index = self.placed[title(node)]
            if index is not None and (index not in found or node.op_type in WEIGHTED):
                found[index] = title(node)
        return found

    def node(self, node: onnx.NodeProto) -> NodeAccount:
        name, index = title(node), self.placed[title(node)]
        runs = self.runtime[index] if index is not None else None
        kernel = self.kernels.get(runs.name) if runs else None
        precision = self._precision(runs, kernel)
        main = index is None or self.main[index] == name
        weight = weights.account(self.wiring, node, self.plain)
        timed = kernel.seconds if kernel and main else None
        return NodeAccount(
            name=name,
            operator=node.op_type,
            output=output_of(node),
            precision=precision,
            runs_as=runs.operator
            if runs and main
            else f"in {self.main[index or 0]}"
            if runs
            else "",
            why_not=why_not(self.wiring, node, precision, weight),
            follows=self._follows(node),
            split=bool(runs and precision not in (INT8, FOLDED) and self._between(runs)),
            attributes=self._attributes(node),
            weight=weight,
            activation=self.ranges.get(output_of(node)),
            sqnr_db=self.compared.layers.get(output_of(node)),
            saturating=self._saturating(node),
            seconds=timed,
            share=timed / self.total if timed is not None else None,
            border_seconds=self._borders(runs) if runs and main else 0.0,
        )

    def _precision(self, runs: RuntimeNode | None, kernel: Kernel | None) -> str:
        if runs is None:
            return FOLDED
        if is_integer(runs.operator, kernel.takes if kernel else ""):
            return INT8
        return (kernel.gives or kernel.takes) if kernel else "float32"

    def _follows(self, node: onnx.NodeProto) -> tuple[str, ...]:
        made = (self.wiring.producer.get(self.wiring.origin(name)) for name in node.input)
        return tuple(each.op_type for each in made if each is not None)

    def _attributes(self, node: onnx.NodeProto) -> tuple[str, ...]:
        held = weights.weight_of(self.wiring, node)
        if held is not None and is_depthwise(node, held.values.shape):
            return ("depthwise",)
        return ()

    def _saturating(self, node: onnx.NodeProto) -> float | None:
        if node.op_type not in WEIGHTED:
            return None
        held = weights.weight_of(self.wiring, node)
        pair = saturation.activation_of(self.wiring, node)
        values = self.compared.first.get(pair.tensor) if pair else None
        if held is None or pair is None or values is None:
            return None
        return saturation.saturating_share(node, held, pair, values)

    def _borders(self, runs: RuntimeNode) -> float:
        """Seconds of the borders that give to, and take from, a runtime node."""
        before = [self.producer[name] for name in runs.inputs if name in self.producer]
        after = [user for name in runs.outputs for user in self.users[name]]
        around = {each.name for each in (*before, *after) if each.operator in BORDERS}
        return sum(self.kernels[name].seconds for name in around if name in self.kernels)

    def _between(self, runs: RuntimeNode) -> bool:
        """Whether integers come in and go out, other float nodes perhaps in between."""
        return self._reaches(runs, DEQUANTIZE, up=True) and self._reaches(runs, QUANTIZE, up=False)

    def _reaches(self, start: RuntimeNode, operator: str, *, up: bool) -> bool:
        waiting, seen = [start], {start.name}
        while waiting:
            node = waiting.pop()
            for each in self._next(node, up=up):
                if each.operator == operator and self._is_activation(each):
                    return True
                if each.operator not in BORDERS and each.name not in seen:
                    if self._integer(each):
                        continue
                    seen.add(each.name)
                    waiting.append(each)
        return False

    def _next(self, node: RuntimeNode, *, up: bool) -> list[RuntimeNode]:
        if up:
            return [self.producer[name] for name in node.inputs if name in self.producer]
        return [user for name in node.outputs for user in self.users[name]]

    def _is_activation(self, border: RuntimeNode) -> bool:
        """Whether a border's values come from a node; those of weights come from the file, those
        of the model's inputs from outside."""
        return border.operator == QUANTIZE or border.inputs[0] in self.producer

    def _integer(self, node: RuntimeNode) -> bool:
        kernel = self.kernels.get(node.name)
        return is_integer(node.operator, kernel.takes if kernel else "")
