"""What the commands that only look give back: frozen values, apart from whoever makes or shows
them.

    plan -> Plan        init -> Draft
    inspect -> Inspection, ResultOverview, EntryOverview, RangesOverview
    doctor -> Checkup   cache -> CacheListing, Pruned                  plugins -> PluginRow, ...
    targets -> TargetRow, TargetPage
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from lepton_compress.artifacts import Json, TensorSpec


@dataclass(frozen=True)
class PlannedStage:
    """One piece of work on the way of a variant.

    Attributes:
        key: of its result in the store; empty where that depends on a result not made yet.
        given: parameters as the recipe writes them.
        parameters: all of them, the defaults included, in base units.
        cached: whether the workspace has its result. Unchecked: a run compares every file with
            its digest, and makes again what is damaged.
        shared_with: the other variants on whose way it lies too.
        parameter_count, macs, bytes: of the model after it, where it is cached; else None.
    """

    kind: Literal["step", "lower", "export", "verify", "evaluate"]
    name: str
    key: str
    cached: bool
    given: dict[str, Json] = field(default_factory=dict)
    parameters: dict[str, Json] = field(default_factory=dict)
    shared_with: tuple[str, ...] = ()
    parameter_count: int | None = None
    macs: int | None = None
    bytes: int | None = None


@dataclass(frozen=True)
class PlannedVariant:
    """A variant and the stages on its way, in order."""

    name: str
    stages: tuple[PlannedStage, ...]


@dataclass(frozen=True)
class PlannedModel:
    """The model to start from.

    Attributes:
        reference: as the recipe names it.
        numbers: in its weights, buffers such as running means included; None if only a run tells.
        bytes: that they take in the file; of the whole file where its inside is not known.
    """

    form: str
    reference: str
    weights: str
    numbers: int | None
    bytes: int | None


@dataclass(frozen=True)
class PlannedTarget:
    """Where artifacts will be profiled."""

    name: str
    runtime: str
    threads: int
    batch: int
    host: str = ""
    device: str = ""
    """The target file that it comes from."""
    simulated: bool = False
    options: dict[str, Json] = field(default_factory=dict)


@dataclass(frozen=True)
class PlannedGate:
    """A gate: `limit` in base units, `written` as the recipe writes it."""

    name: str
    limit: float
    written: str
    strict: bool
    targets: tuple[str, ...]


@dataclass(frozen=True)
class Plan:
    """What running a recipe will do. `samples` counts each split; `notes` are what its author
    should know, though it runs; `controls` are the unpruned models beside pruned variants that are
    trained, named after them; `measure` is how long latency is measured and what beside it, in
    base units."""

    recipe: str
    recipe_digest: str
    workspace: str
    model: PlannedModel
    samples: dict[str, int]
    variants: tuple[PlannedVariant, ...]
    targets: tuple[PlannedTarget, ...]
    gates: tuple[PlannedGate, ...]
    select: str
    require: str
    notes: tuple[str, ...] = ()
    controls: tuple[PlannedVariant, ...] = ()
    measure: dict[str, Json] = field(default_factory=dict)


@dataclass(frozen=True)
class Held:
    """Tensors of one element type."""

    tensors: int
    numbers: int
    bytes: int


@dataclass(frozen=True)
class ModuleRow:
    """One module of a torch model, or one node of an ONNX graph that computes.

    Both counts include what is inside a module. `macs` is of one sample; None for nodes, and where
    the model was not called.
    """

    name: str
    type: str
    parameters: int
    macs: int | None


@dataclass(frozen=True)
class Inspection:
    """Facts of a model or of a file of weights.

    Attributes:
        bytes: of its file or files; None for a factory without weights.
        about: format facts, such as the opset and the producer of an ONNX file.
        operators: operator to element type of its first output to count.
        weights: element type to the tensors stored in it.
        parameters: numbers that training found; None where the file does not tell.
        macs: multiply-accumulates of one sample; None where a shape is not known.
    """

    subject: str
    kind: Literal["onnx", "program", "factory", "weights"]
    bytes: int | None = None
    about: dict[str, str] = field(default_factory=dict)
    inputs: tuple[TensorSpec, ...] = ()
    outputs: tuple[TensorSpec, ...] = ()
    operators: dict[str, dict[str, int]] = field(default_factory=dict)
    weights: dict[str, Held] = field(default_factory=dict)
    parameters: int | None = None
    macs: int | None = None
    modules: tuple[ModuleRow, ...] = ()
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class CandidateRow:
    """One artifact of a run, and the candidate it is of."""

    candidate: str
    steps: tuple[str, ...]
    parameters: int
    macs: int | None
    format: str
    path: str
    bytes: int
    operators: dict[str, dict[str, int]]
    chosen_on: tuple[str, ...]


@dataclass(frozen=True)
class ResultOverview:
    """A finished run in short."""

    subject: str
    recipe: str
    started: str
    passed: bool
    candidates: tuple[CandidateRow, ...]
    kind: str = "result"


@dataclass(frozen=True)
class EntryOverview:
    """A kept result, and the model in it if there is one."""

    subject: str
    label: str
    key: str
    bytes: int
    files: tuple[str, ...]
    details: dict[str, Json]
    model: Inspection | None
    kind: str = "entry"


@dataclass(frozen=True)
class RangesOverview:
    """Saved ranges: tensor to the range to quantise over, and to what calibration data held.

    `calibrator`, `samples`, `data`, `model` and `tool` are their provenance, as in `ranges.py`.
    """

    subject: str
    calibrator: str
    samples: int
    data: str
    model: str
    tool: str
    ranges: dict[str, tuple[float, float]]
    seen: dict[str, tuple[float, float]]
    kind: str = "ranges"


@dataclass(frozen=True)
class Draft:
    """A recipe to start from.

    Attributes:
        text: the YAML.
        form: of the model, "module", "program" or "graph".
        blanks: what the user must fill in before it can run.
        notes: what stands in the way of a run.
    """

    text: str
    form: str
    blanks: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class LibraryCheck:
    """A required package. `version` is empty where it is not installed."""

    name: str
    version: str
    wanted: str
    met: bool


@dataclass(frozen=True)
class ExtraCheck:
    """An optional group of packages."""

    name: str
    packages: tuple[LibraryCheck, ...]
    install: str

    @property
    def met(self) -> bool:
        """Whether all of it is there."""
        return all(each.met for each in self.packages)


@dataclass(frozen=True)
class Checkup:
    """The state of an installation and of the machine under it.

    Attributes:
        cpu: as in a result's environment: name, machine, cores, extensions.
        int8: what the processor's extensions mean for int8 models.
        threads: environment variables that limit threads.
        free: bytes on the disk of the workspace.
        problems: one line for each thing that must be mended before a run, with the mend.
        warnings: what only some runs will miss.
    """

    tool: str
    python: LibraryCheck
    libraries: tuple[LibraryCheck, ...]
    cpu: dict[str, Json]
    int8: str
    threads: dict[str, str]
    extras: tuple[ExtraCheck, ...]
    workspace: str
    free: int
    problems: tuple[str, ...]
    warnings: tuple[str, ...]


@dataclass(frozen=True)
class DeviceCheckup:
    """The state of another machine, as far as measuring there needs it.

    Attributes:
        reached: whether there was a connection; without one the rest is not known.
        device: as `Profile.device` tells it; empty where it was not reached.
        executable: the interpreter there.
        int8: what the processor's extensions mean for int8 models.
        folder: where its private folders are made.
        free: bytes on the disk of that.
        clock: seconds by which its clock is ahead of this machine's.
        round_trip: seconds that a message and its answer take.
        problems: one line for each thing that must be mended before a run, with the mend.
        warnings: what makes its figures doubtful, or hard to compare.
    """

    host: str
    runtime: str
    reached: bool
    problems: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    device: dict[str, Json] = field(default_factory=dict)
    executable: str = ""
    int8: str = ""
    folder: str = ""
    free: int = 0
    clock: float = 0.0
    round_trip: float = 0.0


@dataclass(frozen=True)
class CacheRow:
    """A kept result. `used` is when it was last asked for, in seconds since the epoch."""

    key: str
    label: str
    bytes: int
    used: float


@dataclass(frozen=True)
class CacheListing:
    """What a workspace keeps, most recently used first. `unfinished` counts results that are
    being made just now, or that a killed process left."""

    store: str
    entries: tuple[CacheRow, ...]
    bytes: int
    unfinished: int


@dataclass(frozen=True)
class Pruned:
    """What a prune removed (or would, in a dry run). `busy` were being made and stay."""

    store: str
    removed: tuple[CacheRow, ...]
    freed: int
    kept: int
    kept_bytes: int
    busy: int
    dry_run: bool


@dataclass(frozen=True)
class TargetRow:
    """A target that a recipe can name. `broken` says why its file cannot be used."""

    name: str
    about: str
    runtime: str
    origin: str
    ram: int | None = None
    flash: int | None = None
    broken: str = ""


@dataclass(frozen=True)
class TargetPage:
    """Everything that a target file says, and where it stands."""

    name: str
    about: str
    runtime: str
    origin: str
    file: str
    options: dict[str, Json]
    threads: int
    needs_host: bool
    simulated: bool
    dtypes: tuple[str, ...]
    operators: tuple[str, ...]
    channels_multiple: int | None
    ram: int | None
    flash: int | None
    source: str
    use: str
    """How a recipe takes it."""


@dataclass(frozen=True)
class PluginRow:
    """A plug-in. `broken` says why it cannot be used; empty if it can."""

    kind: str
    name: str
    origin: str
    summary: str
    broken: str = ""


@dataclass(frozen=True)
class ParameterRow:
    """A parameter of a plug-in; those of nested models are named `outer.inner`. `default` is
    None where the user must give a value."""

    name: str
    type: str
    default: str | None
    description: str


@dataclass(frozen=True)
class PluginPage:
    """Everything about one plug-in."""

    kind: str
    name: str
    origin: str
    summary: str
    about: str
    form: str
    parameters: tuple[ParameterRow, ...]


@dataclass(frozen=True)
class Written:
    """A recipe that `init` wrote, and the command that comes next."""

    path: Path
    draft: Draft
    next: str


@dataclass(frozen=True)
class GroupSensitivity:
    """What pruning one group alone loses.

    Attributes:
        layer: that makes its channels.
        width: how many there are.
        widths: that were tried, widest first.
        drops: what each loses, in what `Sensitivities.judged_by` names; positive is worse.
    """

    layer: str
    width: int
    widths: tuple[int, ...]
    drops: tuple[float, ...]


@dataclass(frozen=True)
class Sensitivities:
    """How much each group of a model matters.

    Attributes:
        variant: whose steps before `prune` were carried out; empty for the model as it is.
        metric: the recipe's name of what was evaluated.
        judged_by: what a drop is of.
        judged_on: which samples, never those of the evaluation split.
        reached: what the whole model reaches in the metric; None where the samples have no labels.
        share: whether drops are read in per cent.
        notes: on groups that cannot be pruned.
    """

    recipe: str
    variant: str
    metric: str
    judged_by: str
    judged_on: str
    reached: float | None
    share: bool
    groups: tuple[GroupSensitivity, ...]
    notes: tuple[str, ...] = ()
