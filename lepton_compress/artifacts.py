"""The values that flow between the stages: frozen, and free of any framework.

    Dataset -> Model -> (steps) -> Candidate -> Artifact -> Parity, Score, Profile -> Verdict
                                                                    all of them -> RunResult

Arrays and models are typed loosely here on purpose, so that reading a result needs no framework.
"""

from __future__ import annotations

import dataclasses
import enum
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

SCHEMA_VERSION = 2
"""Of `result.json`. Raised when a reader of the former would misread the new; `report/migrate.py`
brings the former up to it."""

Json = Any
"""What `json.dumps` takes."""

STATE = re.compile(r"state_\d+")
"""Names of the inputs of a step model that its runner keeps from frame to frame."""

QUANTILES = (*(each / 20 for each in range(20)), 0.96, 0.97, 0.98, 0.99, 0.995, 0.999, 1.0)
"""Shares of the calls at or below which `Profile.quantiles` tells their time."""


@dataclass(frozen=True)
class Split:
    """One part of a dataset, held as arrays (memory-mapped ones included).

    Attributes:
        inputs: name to array, each (samples, ...).
        targets: (samples, ...), or None where the samples are unlabelled.
        slices: name to a column (samples,) of booleans, whole numbers or texts, by which to look
            at parts of the data.
    """

    inputs: Mapping[str, Any]
    targets: Any | None = None
    slices: Mapping[str, Any] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(next(iter(self.inputs.values()))) if self.inputs else 0

    def named(self, names: Sequence[str]) -> Split:
        """The same samples with the inputs named and ordered as a model wants them. No sample has
        the states of a step model, which are left out.

        Raises:
            ValueError: the names differ (a single input may have any name on either side).
        """
        names = [each for each in names if each in self.inputs or not STATE.fullmatch(each)]
        if set(names) == set(self.inputs):
            held = {name: self.inputs[name] for name in names}
            return dataclasses.replace(self, inputs=held)
        if len(names) == 1 == len(self.inputs):
            return dataclasses.replace(self, inputs={names[0]: next(iter(self.inputs.values()))})
        raise ValueError(
            f"the data has the inputs {', '.join(self.inputs)}, "
            f"but the model takes {', '.join(names)}"
        )

    def batches(self, size: int, limit: int | None = None) -> Iterator[dict[str, Any]]:
        """The inputs in order, `size` samples at a time, up to `limit` samples."""
        count = len(self) if limit is None else min(limit, len(self))
        for start in range(0, count, size):
            stop = min(start + size, count)
            yield {name: array[start:stop] for name, array in self.inputs.items()}


@dataclass(frozen=True)
class Dataset:
    """Three disjoint splits. `fingerprint` covers every byte of them; `notes` are what the loader
    has to tell, such as samples that it dropped."""

    train: Split
    calibration: Split
    evaluation: Split
    fingerprint: str
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class TensorSpec:
    """A named input or output. `shape` holds ints and names; the batch is named `batch`."""

    name: str
    dtype: str
    shape: tuple[int | str, ...]


Form = Literal["module", "program", "graph"]


@dataclass(frozen=True)
class Model:
    """A model in one of its forms.

    Attributes:
        form: "module" (a torch.nn.Module that steps may train and prune), "program" (an exported
            program, which can only be lowered) or "graph" (an ONNX ModelProto).
        value: that object. It belongs to the pipeline: steps change a copy, never this one.
        inputs: what it takes, in order.
        outputs: the names of what it gives, in order.
        folder: of a large graph, where the files lie that its tensors stay in; else None.
        built: of a module that a step has put in the recipe's place, what builds it, as the `model`
            of a recipe says it; else None.
    """

    form: Form
    value: Any
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[str, ...]
    folder: Path | None = None
    built: Mapping[str, Json] | None = None

    def replace(self, **changes: Any) -> Model:
        """A copy with some fields changed."""
        return dataclasses.replace(self, **changes)


class Progress(Protocol):
    """Where long work tells how far it is. Made by `Observer.work`."""

    def advance(self, steps: int = 1, note: str = "") -> None:
        """Some more of the total is done."""


class Observer(Protocol):
    """What the pipeline tells of itself while it runs. The command line draws bars with it."""

    def work(self, label: str, total: int | None = None) -> AbstractContextManager[Progress]:
        """Announce work of `total` steps (None: not known)."""

    def note(self, text: str) -> None:
        """Something the user should know, that also stands in the result."""


@dataclass(frozen=True)
class MetricOutcome:
    """What a metric gives back.

    Attributes:
        value: the metric over all samples; NaN says that it has none.
        higher_is_better: which way is up.
        outcomes: one number a sample whose mean is `value`, or None if it is not a mean.
        resamples: of a metric that is no mean, on how many bootstrap resamples of the samples to
            compute it again; 0 leaves it without intervals.
    """

    value: float
    higher_is_better: bool
    outcomes: Any | None = None
    resamples: int = 0


Measure = Callable[[Mapping[str, Any], Any], MetricOutcome]
"""A metric with its parameters bound: outputs by name and targets to the outcome."""


@dataclass(frozen=True)
class Place:
    """Where an artifact is to run: a target of the recipe, in what a measurement needs of it."""

    name: str
    runtime: str
    batch: int
    threads: int


Remember = Callable[[str, Mapping[str, Json], Callable[[], Json]], Json]


@dataclass(frozen=True)
class StepContext:
    """What a step may use beside the model and its parameters.

    Attributes:
        data: the dataset.
        original: gives the model as loaded, a fresh copy each time (a teacher, for example).
        seed: of every random choice.
        threads: how many threads to compute with; part of what makes results repeatable.
        observer: where to report progress.
        targets: the recipe's targets; for steps that measure.
        metric: the recipe's first metric; for steps that measure or train.
        folder: that files named in parameters are relative to.
        lower: gives the graph of a module as the pipeline lowers it, for a step that ends in a
            graph; raises InputError where it cannot be exported.
        scratch: where a step that works on large graphs writes the files of their tensors.
        untimed: names of the recipe's other targets, which run no graph on this machine.
        checkpoints: where a step that trains leaves its unfinished state, in folders of its own;
            the place is the same when the run was killed and is started again.
        metric_mark: changes when the metric does.
        remember: keeps a JSON value for the next run by a label and what determines it beside the
            model; made by `remembered`.
        multiple: of widths, what leaves nothing idle on any of the recipe's targets.
        open: gives another model, one of `Params.models()`, ready for inference and tried on the
            data; raises InputError where it cannot be used.
    """

    data: Dataset
    original: Callable[[], Model]
    seed: int
    threads: int
    observer: Observer
    targets: tuple[Place, ...] = ()
    metric: Measure | None = None
    folder: Path = Path()
    lower: Callable[[Model], Model] | None = None
    scratch: Path | None = None
    untimed: tuple[str, ...] = ()
    checkpoints: Path | None = None
    multiple: int = 8
    remember: Remember | None = None
    metric_mark: str = ""
    open: Callable[[Mapping[str, Json]], Model] | None = None

    def remembered(self, label: str, about: Mapping[str, Json], build: Callable[[], Json]) -> Json:
        """A JSON value that `build` gives, or has given before for the same model and `about`."""
        return self.remember(label, about, build) if self.remember else build()


@dataclass(frozen=True)
class StepOutcome:
    """What a step gives back.

    `changed` must be true exactly if the model differs; the pipeline checks it. A step that found
    nothing to do says False, which ends the run with `notes` as the reason, unless it has
    `declined`: then the model goes on as it is.

    Attributes:
        declined: why the step, having measured, leaves the model as it is; empty where it does not.
        unmet: what was asked of the step and is not met; the candidate fails by it.
    """

    model: Model
    changed: bool
    statistics: dict[str, Json] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    declined: str = ""
    unmet: str = ""


@dataclass(frozen=True)
class StepRecord:
    """A step as it was carried out; `declined` and `unmet` as in `StepOutcome`."""

    step: str
    parameters: dict[str, Json]
    seconds: float
    changed: bool
    cached: bool
    statistics: dict[str, Json] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    declined: str = ""
    unmet: str = ""


@dataclass(frozen=True)
class Candidate:
    """A variant of the model, the baseline included.

    `parameters` and `macs` (multiply-accumulates of one sample) are counted on the lowered graph;
    `macs` is None where a shape is not known.
    """

    id: str
    key: str
    parent: str | None
    history: tuple[StepRecord, ...]
    parameters: int
    macs: int | None


@dataclass(frozen=True)
class Artifact:
    """A file that a runtime loads."""

    candidate: str
    format: str
    path: str
    sha256: str
    bytes: int
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    operators: dict[str, dict[str, int]]
    """Operator type to element type of its first output to count."""
    beside: tuple[str, ...] = ()
    """Paths of the files that travel with it: those that a large artifact keeps its tensors in, and
    what its preprocessing needs on the host. `bytes` and `sha256` count them."""
    deflated: int | None = None
    """Bytes of its files after deflate (zlib, level 6); None where no variant of the run prunes."""


@dataclass(frozen=True)
class Parity:
    """How far an artifact's outputs are from those of what it was made from.

    `value` must not exceed `limit`; both are in the unit that `metric` names. `layer` is, where
    that is exceeded, the first one that computes something else; empty where that is not known.
    """

    candidate: str
    format: str
    against: str
    metric: str
    value: float
    limit: float
    batch: int
    samples: int
    layer: str = ""

    @property
    def holds(self) -> bool:
        """Whether the artifact may be used. A NaN never holds."""
        return self.value <= self.limit


@dataclass(frozen=True)
class Score:
    """A metric of an artifact over the evaluation split.

    Attributes:
        higher_is_better: which way is up.
        value: the metric.
        interval: 95 % confidence interval of `value`.
        outcomes: one number a sample, whose mean is `value`; None if the metric is not a mean.
        replicates: of a metric that is no mean, its value on bootstrap resamples of the samples;
            the n-th resample is the same for every artifact.
        drop: how much worse than the baseline (positive is worse), or None for the baseline.
        drop_interval: 95 % interval of `drop`, paired by sample.
    """

    candidate: str
    format: str
    metric: str
    higher_is_better: bool
    value: float
    interval: tuple[float, float]
    samples: int
    outcomes: tuple[float, ...] | None = None
    drop: float | None = None
    drop_interval: tuple[float, float] | None = None
    replicates: tuple[float, ...] | None = None

    @property
    def is_share(self) -> bool:
        """Whether it is read as a share of one, in per cent, as an accuracy is and an error not."""
        return self.higher_is_better and abs(self.value) <= 1


@dataclass(frozen=True)
class Answered:
    """The class scores that an artifact gives each evaluation sample, in a file beside the result.

    The file is an .npz with `scores`, (samples, classes) float32: logits, or logarithms of
    probabilities; and `targets`, (samples,) int64, the true classes.
    """

    candidate: str
    format: str
    path: str
    sha256: str
    samples: int
    classes: int


@dataclass(frozen=True)
class Control:
    """The unpruned model with the same training as a pruned variant, whose score stands beside the
    variant's so that it is seen what pruning costs.

    Attributes:
        candidate: the pruned variant.
        steps: that the control went through.
        variant: the variant of the recipe that is the control; empty where it was made for this
            alone.
        value, interval: its score, as in `Score`.
        drop: how much worse the pruned variant is than it (positive is worse).
        drop_interval: 95 % interval of `drop`, paired by sample; None where there is none.
    """

    candidate: str
    format: str
    metric: str
    steps: tuple[str, ...]
    variant: str
    value: float
    interval: tuple[float, float]
    drop: float
    drop_interval: tuple[float, float] | None = None


@dataclass(frozen=True)
class Group:
    """A part of the evaluation data, and how an artifact does on it.

    Attributes:
        name: the class's number, or the slice's name.
        value: mean outcome of the metric over the part's samples.
        drop: how much worse than the baseline's artifact on the same samples.
        drop_interval: its 95 % interval, paired by sample, of this part alone: a reader of many
            parts corrects for their number.
    """

    kind: Literal["class", "slice"]
    name: str
    metric: str
    samples: int
    value: float
    drop: float
    drop_interval: tuple[float, float]


@dataclass(frozen=True)
class Corrupted:
    """A metric on evaluation samples that were corrupted, at a severity from 1 to 5."""

    corruption: str
    severity: int
    metric: str
    samples: int
    value: float
    drop: float
    drop_interval: tuple[float, float] | None


@dataclass(frozen=True)
class Behaviour:
    """How an artifact's predictions compare with those of the baseline's artifact.

    Attributes:
        flips: samples whose predicted class is another one; None where no class is predicted.
        negative_flips: samples that the baseline had right and this has wrong.
        calibration_error: expected calibration error (Guo et al., ICML 2017, 15 equal bins).
        calibration_interval: its 95 % bootstrap interval.
        confusion: rows are the true classes, columns the predicted ones; None for many classes.
        reason: why there are no predictions to compare.
    """

    candidate: str
    format: str
    samples: int
    flips: int | None = None
    negative_flips: int | None = None
    calibration_error: float | None = None
    calibration_interval: tuple[float, float] | None = None
    confusion: tuple[tuple[int, ...], ...] | None = None
    groups: tuple[Group, ...] = ()
    corrupted: tuple[Corrupted, ...] = ()
    reason: str = ""


@dataclass(frozen=True)
class Coverage:
    """How much of an artifact its runtime computes in integers, as it really ran it.

    Attributes:
        nodes, integer_nodes: computing nodes; those folded when the model is loaded do not count.
        macs, integer_macs: multiply-accumulates of one sample; None where a shape is not known.
    """

    candidate: str
    format: str
    runtime: str
    nodes: int
    integer_nodes: int
    macs: int | None
    integer_macs: int | None


@dataclass(frozen=True)
class Load:
    """What requests took that arrive by themselves, as a Poisson process; one call serves one.

    Attributes:
        rate: arrivals a second, on average.
        arrivals: how many were served.
        latency: from the intended arrival to the end, waiting included, in seconds: percentile
            name to value; a percentile without enough arrivals behind it is absent.
        interval: percentile name to its 95 % bootstrap interval, in seconds.
    """

    rate: float
    arrivals: int
    latency: dict[str, float]
    interval: dict[str, tuple[float, float]]


@dataclass(frozen=True)
class Idle:
    """Calls that each came after the runtime had rested: caches and processors are cold by then.

    Attributes:
        gap: seconds of rest before each.
        calls: how many were timed.
        quantiles: of their times, in seconds, at the shares in `QUANTILES`.
    """

    gap: float
    calls: int
    quantiles: tuple[float, ...]


@dataclass(frozen=True)
class Callers:
    """Several callers of one loaded artifact at the same time, none of which ever pauses.

    Attributes:
        callers: how many.
        cpus: how many processors they could use; 0 where that is not known.
        calls: of all of them.
        throughput: samples a second of all of them.
        throughput_interval: its 95 % bootstrap interval.
        latency: of one call among the others, in seconds: percentile name to value; a percentile
            without enough calls behind it is absent.
        interval: percentile name to its 95 % bootstrap interval, in seconds.
    """

    callers: int
    cpus: int
    calls: int
    throughput: float
    throughput_interval: tuple[float, float]
    latency: dict[str, float]
    interval: dict[str, tuple[float, float]]


@dataclass(frozen=True)
class OperatorTime:
    """Operators of one type in a pass under the runtime's profiler.

    The profiler adds to every node, so that these times are for comparing with each other: they
    are no samples of `Profile.latency`, and do not sum up to it.

    Attributes:
        dtype: element types of the first input and output, as "uint8" or "float32>uint8".
        nodes: how many there are in the graph that the runtime made.
        seconds: that all of them take in one call.
        share: of the time of all operators.
    """

    operator: str
    dtype: str
    nodes: int
    seconds: float
    share: float


@dataclass(frozen=True)
class Trial:
    """Settings of a runtime's session beside its default, in rounds with it.

    Attributes:
        settings: what differs from the default, in the runtime's own names.
        number: 1 where each was tried alone, 2 where the best were measured again.
        ratio: median of the round-by-round ratios of latency to the default's.
        ratio_interval: its 95 % bootstrap interval.
        noise: the same ratio of the default against itself.
        faster: by more than that, with the whole interval.
        reason: why it does not count.
    """

    settings: dict[str, Json]
    number: int
    ratio: float | None
    ratio_interval: tuple[float, float] | None
    noise: float | None
    faster: bool
    reason: str = ""


@dataclass(frozen=True)
class Tuning:
    """The search for better settings of a runtime's session.

    Attributes:
        settings: what to change of the default; empty where nothing is faster beyond noise.
        ratio: latency with them over the default's, as measured the second time.
        ratio_interval: its 95 % bootstrap interval.
    """

    settings: dict[str, Json] = field(default_factory=dict)
    ratio: float | None = None
    ratio_interval: tuple[float, float] | None = None
    trials: tuple[Trial, ...] = ()
    reason: str = ""


@dataclass(frozen=True)
class Fallback:
    """An operator that a device's accelerator does not take, so that the host computes it.

    Attributes:
        operator: its type, in the artifact's format.
        name: its place: the layer in the user's model where that is known, else in the artifact.
        reason: why, in the compiler's words where it tells.
        remedy: what to change in the model or the recipe; empty where nothing is known.
    """

    operator: str
    name: str
    reason: str = ""
    remedy: str = ""


@dataclass(frozen=True)
class LayerCost:
    """A layer in a device's simulation.

    Attributes:
        place: "npu" or "cpu".
        figures: what the tool tells of it, in its own terms, as `{"cycles": 1200, "macs": 4096}`.
    """

    name: str
    operator: str
    place: str
    figures: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Fit:
    """Whether and how an artifact fits a device, as a compiler, simulator or interpreter tells.

    Attributes:
        tool: its name and version.
        configuration: what it was told of the device, so that the figures can be had again.
        seconds: of one call, as it estimates; None where it does not, or where the figure would
            mean nothing.
        ram: bytes of working memory; None where it is not told.
        flash: bytes of constants (and code, where the tool counts it).
        operators: how many there are, those that fall back included.
        fallbacks: of those, what the accelerator does not take.
        layers: where the time goes.
        figures: whatever else it tells, in its own terms.
        problem: why the artifact does not fit; empty where it does.
    """

    tool: str
    configuration: dict[str, Json] = field(default_factory=dict)
    seconds: float | None = None
    ram: int | None = None
    flash: int | None = None
    operators: int = 0
    fallbacks: tuple[Fallback, ...] = ()
    layers: tuple[LayerCost, ...] = ()
    figures: dict[str, Json] = field(default_factory=dict)
    problem: str = ""


@dataclass(frozen=True)
class Profile:
    """What an artifact costs on a target.

    Attributes:
        status: "measured", or "failed" with `reason`.
        provenance: "measured", "simulated" or "estimated".
        latency: of one call, in seconds: percentile name to value; a percentile without enough
            samples behind it is absent.
        interval: percentile name to its 95 % bootstrap interval, in seconds.
        ratio: median of the round-by-round ratios of latency to the baseline's.
        ratio_interval: its 95 % bootstrap interval.
        noise: the same ratio of the baseline against itself in this run, with its interval: what
            this machine takes for a difference where there is none.
        cold_start: seconds from starting a process to its first result.
        peak_memory: bytes above what the runtime itself takes before loading.
        throughput: samples a second of one caller that never pauses.
        throughput_interval: its 95 % bootstrap interval.
        loads: the times of requests that arrive at the rates that were asked for.
        idle: the times of calls after a rest, the shortest rest first.
        callers: what callers at the same time got, for the numbers of them that were asked for.
        operators: where the time goes, the slowest first, measured under the runtime's profiler;
            empty for a runtime without one.
        session: settings of the runtime's session under which everything here was measured.
        tuning: the search for better ones, where it was asked for.
        unreached: that it failed says nothing of the artifact: the device was not reached, or
            lacks something.
        device: the machine it ran on, as `RunResult.environment` tells one, with its `host`;
            empty where that is the machine of the run.
        fit: of a target that is simulated or compiled for; `latency` holds its estimate as "p50".
        quantiles: of the times of the calls, in seconds, at the shares in `QUANTILES`: their whole
            distribution, for whoever queues behind them; empty where no call was timed.
    """

    candidate: str
    format: str
    target: str
    runtime: str
    status: Literal["measured", "failed"]
    provenance: Literal["measured", "simulated", "estimated"]
    batch: int
    threads: int
    rounds: int = 0
    samples: int = 0
    latency: dict[str, float] = field(default_factory=dict)
    interval: dict[str, tuple[float, float]] = field(default_factory=dict)
    ratio: float | None = None
    ratio_interval: tuple[float, float] | None = None
    noise: float | None = None
    noise_interval: tuple[float, float] | None = None
    cold_start: float | None = None
    peak_memory: int | None = None
    reason: str = ""
    throughput: float | None = None
    throughput_interval: tuple[float, float] | None = None
    loads: tuple[Load, ...] = ()
    unreached: bool = False
    device: dict[str, Json] = field(default_factory=dict)
    callers: tuple[Callers, ...] = ()
    operators: tuple[OperatorTime, ...] = ()
    session: dict[str, Json] = field(default_factory=dict)
    tuning: Tuning | None = None
    fit: Fit | None = None
    quantiles: tuple[float, ...] = ()
    idle: tuple[Idle, ...] = ()


class Status(enum.StrEnum):
    """Of a verdict. Only PASS lets an artifact through."""

    PASS = "PASS"  # noqa: S105
    FAIL = "FAIL"
    INCONCLUSIVE = "INCONCLUSIVE"
    NOT_MEASURED = "NOT_MEASURED"


@dataclass(frozen=True)
class Verdict:
    """One gate on one artifact (on one target, where the gate is about a target).

    `needed` tells of an inconclusive one about how many samples (or rounds, for a latency) would
    decide it, if they go on as those measured; None where that cannot be told.
    """

    candidate: str
    format: str
    target: str | None
    gate: str
    status: Status
    observed: float | None
    interval: tuple[float, float] | None
    limit: float
    strict: bool
    reason: str
    needed: int | None = None


@dataclass(frozen=True)
class Choice:
    """The winner on one target, and why."""

    target: str
    candidate: str | None
    format: str | None
    reason: str
    met: bool
    """Whether the chosen artifact passes every gate."""


@dataclass(frozen=True)
class Front:
    """The artifacts of a target that no other one beats: at least as good in all, better in one.

    Attributes:
        measures: what counted: "score" (in the first metric), "latency" (p50), "size",
            "peak_memory"; one that was not measured at all is left out.
        members: candidate and format.
    """

    target: str
    measures: tuple[str, ...]
    members: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class RunResult:
    """Everything a run found. `result.json` is this, with `schema` in front.

    Attributes:
        fronts: the Pareto front of each target.
        controls: of each pruned variant that was trained, the unpruned model with that training.
        labels: the class of each evaluation sample, in the order of `Score.outcomes`; empty where
            the targets are no classes.
        answers: where the class scores of each artifact stand, sample by sample; empty where the
            outputs are no scores of classes.
        folder: where the run left its files; not written into them.
    """

    recipe: str
    recipe_digest: str
    data_fingerprint: str
    seed: int
    started: str
    seconds: float
    environment: dict[str, Json]
    baseline: str
    candidates: tuple[Candidate, ...]
    artifacts: tuple[Artifact, ...]
    parities: tuple[Parity, ...]
    scores: tuple[Score, ...]
    profiles: tuple[Profile, ...]
    verdicts: tuple[Verdict, ...]
    chosen: tuple[Choice, ...]
    passed: bool
    notes: tuple[str, ...] = ()
    behaviours: tuple[Behaviour, ...] = ()
    coverages: tuple[Coverage, ...] = ()
    fronts: tuple[Front, ...] = ()
    labels: tuple[int, ...] = ()
    answers: tuple[Answered, ...] = ()
    controls: tuple[Control, ...] = ()
    folder: Path | None = None

    def artifact(self, candidate: str, format: str = "onnx") -> Artifact:
        """The artifact of a candidate.

        Raises:
            KeyError: there is none.
        """
        for artifact in self.artifacts:
            if (artifact.candidate, artifact.format) == (candidate, format):
                return artifact
        raise KeyError((candidate, format))
