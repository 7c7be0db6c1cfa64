"""What `explain` gives back: an artifact node by node as it was measured, and what follows from it.

    Account (NodeAccount, WeightAccount, RangeAccount, InputAccount, KernelAccount) -> Finding
    both of them -> Explanation

Noise is told as signal to quantisation noise (SQNR) in decibels: 10 log10 of the float values'
energy over that of their difference. 6 dB are one bit. None stands where it was not measured or
there is no difference at all.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

Range = tuple[float, float]

INT8, FOLDED = "int8", "folded"
"""Precisions beside the element types' own names: computed in integers; not there when it runs."""


@dataclass(frozen=True)
class WeightAccount:
    """The weight of one node.

    Attributes:
        name: of the tensor in the file.
        dtype: on disk.
        bytes: that it takes there.
        range: smallest and largest value, dequantised.
        per_channel: whether each output channel has a scale of its own.
        channels: how many output channels there are.
        spread: the largest magnitude of all over that of the median output channel.
        dead: output channels whose weights are as good as zero, by the float graph if it is known.
        sqnr_db: against the float weights.
        worst_channel_db: the same of the worst output channel that is not dead.
        poor_channels: output channels below `POOR_DB`.
        peak: the largest magnitude of the stored integers, zero point taken off.
    """

    name: str
    dtype: str
    bytes: int
    range: Range
    per_channel: bool = False
    channels: int = 1
    spread: float = 1.0
    dead: int = 0
    sqnr_db: float | None = None
    worst_channel_db: float | None = None
    poor_channels: int = 0
    peak: int = 0


POOR_DB = 20.0
"""Below this, a tenth of the amplitude is noise."""


@dataclass(frozen=True)
class RangeAccount:
    """One quantised activation: what its scale can hold, and what really comes.

    Attributes:
        tensor: the float tensor that is rounded.
        dtype: that it is rounded to.
        range: the values that it can hold.
        seen: smallest and largest value on the evaluation samples, in the float reference.
        beyond: share of those values that lie outside the range by more than one step.
        calibrated: smallest and largest value on the calibration samples, where those are known.
        beyond_calibrated: share of the calibration values outside the range.
        sqnr_db: of this rounding alone.
        clipping: share of its noise that comes from values outside the range.
        channels: how many; 1 where the tensor has no channel axis.
        spread: the largest magnitude of all over that of the median channel.
        median_channel_db: SQNR of the median channel by this rounding alone.
        constant: channels that never vary.
        largest_channel: the one with the largest magnitude.
        is_input: whether it is an input of the model.
    """

    tensor: str
    dtype: str
    range: Range
    seen: Range
    beyond: float
    calibrated: Range | None = None
    beyond_calibrated: float | None = None
    sqnr_db: float | None = None
    clipping: float = 0.0
    channels: int = 1
    spread: float = 1.0
    median_channel_db: float | None = None
    constant: int = 0
    largest_channel: int = 0
    is_input: bool = False

    @property
    def overshoot(self) -> float:
        """How many times the reach of the range the values reach, on the worse side; at least 1."""
        reach = max(abs(self.range[0]), abs(self.range[1])) or 1e-30
        past = max(self.range[0] - self.seen[0], self.seen[1] - self.range[1], 0.0)
        return 1 + past / reach


@dataclass(frozen=True)
class NodeAccount:
    """One computing node of the file (quantise and dequantise nodes are borders, not nodes).

    Attributes:
        precision: that it runs in: "int8", an element type such as "float32", or "folded".
        runs_as: the runtime's operator; empty where it is folded.
        why_not: why it does not run in int8; empty where it does.
        follows: operators that give it its data inputs, borders skipped.
        split: it runs in float between integers that come in and integers that go out.
        attributes: what the diagnosis needs of its form, such as "depthwise".
        weight, activation: its weight, and the range of its output where that is quantised.
        sqnr_db: of its output, all noise before it included.
        saturating: share of sums of two products beyond 16 bits, on real activations.
        seconds, share: of one call, and of all kernels' time.
        border_seconds: of the quantise and dequantise kernels right around it.
    """

    name: str
    operator: str
    output: str
    precision: str
    runs_as: str
    why_not: str = ""
    follows: tuple[str, ...] = ()
    split: bool = False
    attributes: tuple[str, ...] = ()
    weight: WeightAccount | None = None
    activation: RangeAccount | None = None
    sqnr_db: float | None = None
    saturating: float | None = None
    seconds: float | None = None
    share: float | None = None
    border_seconds: float = 0.0


@dataclass(frozen=True)
class KernelAccount:
    """One kind of kernel that the runtime really ran.

    Attributes:
        dtype: element types of its first input and output, such as "uint8" or "uint8>float32".
        calls: in one run of the model.
        seconds, share: of one run.
    """

    operator: str
    dtype: str
    calls: int
    seconds: float
    share: float


@dataclass(frozen=True)
class ChannelStatistics:
    """Of one channel of an input over all samples: mean and standard deviation."""

    mean: float
    deviation: float


@dataclass(frozen=True)
class InputAccount:
    """An input in the calibration and in the evaluation data.

    Attributes:
        calibration, evaluation: over all channels.
        channels: pairs of the two for each channel; empty where the input has no few channels.
        factor, offset: calibration = factor * evaluation + offset, fitted to mean and deviation.
        shape_distance: how far apart the two distributions stay after that fit: the largest
            difference of their cumulative distributions, from 0 to 1.
        certainty: the difference of the means, or of the deviations, in standard errors.
        order: the order of the evaluation's channels that fits the calibration data best; None
            where the order that they have does.
        order_gain: how many times closer that order fits.
    """

    name: str
    calibration: ChannelStatistics
    evaluation: ChannelStatistics
    channels: tuple[tuple[ChannelStatistics, ChannelStatistics], ...]
    factor: float
    offset: float
    shape_distance: float
    certainty: float
    order: tuple[int, ...] | None = None
    order_gain: float = 1.0


@dataclass(frozen=True)
class SharedWeight:
    """A float tensor on disk that several nodes use, or that stands there a second time as int8.

    Attributes:
        users: nodes that take it, or its int8 copy.
        copy: name of the quantised tensor with the same values; empty where there is none.
        share: of all the weights' bytes in the file.
    """

    tensor: str
    bytes: int
    share: float
    users: tuple[str, ...]
    copy: str = ""


@dataclass(frozen=True)
class Stored:
    """Tensors of one element type in the file."""

    tensors: int
    bytes: int


@dataclass(frozen=True)
class Account:
    """An artifact, measured.

    Attributes:
        artifact: its file.
        reference: the float graph that it was compared with, in words.
        exact: whether that is the graph it was quantised from; else its own, with the float values
            of its rounded weights, so that the weights' error does not show.
        samples: how many evaluation samples were run.
        calibration_samples: how many its ranges come from; None where that is not known.
        nodes: in the order of the file.
        ranges: every quantised activation, inputs included.
        stored: element type to the weights on disk.
        levels: optimisation level to operator to count in the graph that the runtime writes.
        kernels: what ran, by operator and type, the slowest first.
        output_db: of the outputs, from the artifact as it really runs.
        arithmetic_db: of the same outputs against the artifact's own graph computed without
            integer kernels: what these kernels' arithmetic adds.
        changed: share of samples whose largest output is another one; None for a single output.
        latency, reference_latency: of one call of one sample, in seconds, taken in turns; a quick
            look, not what gates judge.
        floor: seconds of a kernel that has next to nothing to do.
        shared: tied weights.
        inputs: calibration against evaluation data.
        extensions: vector extensions of the processor that is judged for.
        machine: its architecture.
        notes: what was left out, and why.
    """

    artifact: str
    reference: str
    exact: bool
    samples: int
    nodes: tuple[NodeAccount, ...]
    ranges: tuple[RangeAccount, ...]
    stored: dict[str, Stored]
    levels: dict[str, dict[str, int]]
    kernels: tuple[KernelAccount, ...]
    output_db: float | None
    arithmetic_db: float | None
    changed: float | None
    latency: float
    reference_latency: float
    floor: float
    extensions: tuple[str, ...]
    machine: str
    calibration_samples: int | None = None
    shared: tuple[SharedWeight, ...] = ()
    inputs: tuple[InputAccount, ...] = ()
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Finding:
    """A likely cause, with the numbers that speak for it.

    Attributes:
        cause: a short name, the same for the same cause.
        about: what it costs: accuracy, speed, accuracy on other processors, or size.
        title: the cause in words.
        evidence: the numbers.
        mend: what to do.
        confidence: from 0 to 1; findings are ranked by it.
    """

    cause: str
    about: Literal["accuracy", "speed", "portability", "size"]
    title: str
    evidence: str
    mend: str
    confidence: float


@dataclass(frozen=True)
class Explanation:
    """What `explain` prints. The likeliest finding stands first."""

    account: Account
    findings: tuple[Finding, ...] = field(default=())


@dataclass(frozen=True)
class LayerGap:
    """How far a LiteRT artifact is from its source at one layer.

    Attributes:
        layer: the node of the source graph, named by the layer it comes from.
        operator: that computes it in the artifact.
        value: of the source graph that is compared.
        tensor: that holds it in the artifact.
        unit: "steps" of the tensor's integers, or "relative" to the value's largest magnitude.
        alone: the largest error that the layer adds by itself, in that unit: both compute it from
            what the artifact gives the layer.
        together: the largest error with all layers before it, in that unit.
        limit: of `alone`, beyond which the layer computes something else.
        quantized: error of the source against its float counterpart, root mean square relative to
            the value's; None where that has no such value.
    """

    layer: str
    operator: str
    value: str
    tensor: str
    unit: Literal["steps", "relative"]
    alone: float
    together: float
    limit: float
    quantized: float | None = None

    @property
    def parts(self) -> bool:
        """Whether the layer computes something else; so does a NaN."""
        return not self.alone <= self.limit


@dataclass(frozen=True)
class Divergence:
    """A LiteRT artifact beside its source, layer by layer, in the order in which they run.

    Attributes:
        artifact, source: their files; `reference` that of the source's float counterpart.
        samples: that both were run on.
        first: the first layer that computes something else; empty where none does.
        delegate: the largest difference of the outputs between LiteRT's built-in kernels, which
            were compared, and XNNPACK, relative to their largest magnitude.
        notes: what was left out, and why.
    """

    artifact: str
    source: str
    reference: str
    samples: int
    layers: tuple[LayerGap, ...]
    first: str
    delegate: float
    notes: tuple[str, ...] = ()
