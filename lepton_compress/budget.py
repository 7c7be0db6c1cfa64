"""What an artifact must satisfy: the gates of a recipe, which also stand alone as a budget file.

A budget is the recipe's `gates` with one key more, `regression`, which says how far a result may
be worse than an earlier one.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    Field,
    GetJsonSchemaHandler,
    ValidationError,
    ValidationInfo,
    model_validator,
)
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema

from lepton_compress.document import Document, read_document, show
from lepton_compress.errors import RecipeError
from lepton_compress.findings import NAME_PATTERN, TARGET_PATTERN, Finding, FindingsError, explain
from lepton_compress.registry import Params
from lepton_compress.units import Duration, Factor, Percent, Rate, Share, Size
from lepton_compress.use import FROM_FILE

Name = Annotated[str, Field(pattern=NAME_PATTERN)]
TargetName = Annotated[str, Field(pattern=TARGET_PATTERN)]
Truth = Annotated[bool, Field(strict=True)]

PARITY_LIMIT = 1e-4
"""What an artifact may always differ by from its source; a gate can only ask for less."""


class Section(Params):
    """Some keys of which need not be given, but must not be left empty."""

    @model_validator(mode="before")
    @classmethod
    def _filled(cls, given: Any, info: ValidationInfo) -> Any:
        if info.context == FROM_FILE and isinstance(given, dict):
            mend = "write a value, or remove the key"
            empty = [Finding((key,), "is empty", mend) for key in given if given[key] is None]
            if empty:
                raise FindingsError(empty)
        return given


class Gate(Params):
    """A limit. Short form: the limit alone."""

    strict: Truth = Field(
        False,
        description="Judge by the whole confidence interval instead of the measured point. A time "
        "beyond the limit by the point alone is inconclusive without it too.",
    )
    targets: list[TargetName] = Field([], description="Only on these targets; empty means on each.")

    @model_validator(mode="before")
    @classmethod
    def _short(cls, given: Any) -> Any:
        if isinstance(given, list):
            raise ValueError("must be a limit, or a mapping with the key 'limit', not a list")  # noqa: TRY004
        return {"limit": given} if isinstance(given, (str, int, float)) else given

    @classmethod
    def __get_pydantic_json_schema__(
        cls, core: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        full = handler(core)
        return {"anyOf": [handler.resolve_ref_schema(full)["properties"]["limit"], full]}

    def holds_on(self, target: str) -> bool:
        """Whether it is about that target."""
        return not self.targets or any(covers(name, target) for name in self.targets)


def covers(name: str, target: str) -> bool:
    """Whether a name that a gate gives means a target: it, or the list that it is one of."""
    return target == name or target.startswith(f"{name}/")


_LIMIT = "The limit, with its unit."


class ScoreGate(Gate):
    """Of a metric: its value, or its drop against the baseline, in the metric's own unit."""

    limit: Share = Field(description="The limit, a number or a percentage.")
    metric: str | None = Field(None, description="Which metric; the recipe's first by default.")


class GroupGate(ScoreGate):
    """Of the worst among many parts of the data, so that one of them is bad by luck alone.

    It fails only where a part is proven to be beyond the limit, with Holm's correction for the
    number of parts; a part beyond the limit by its point alone is inconclusive.
    """

    samples: Annotated[int, Field(strict=True, ge=1)] = Field(
        20, description="A part with fewer samples than this is inconclusive."
    )


class ShareGate(Gate):
    limit: Percent = Field(description=_LIMIT)


class NumberGate(Gate):
    limit: Annotated[float, Field(gt=0, le=PARITY_LIMIT)] = Field(
        description=f"The limit, a number up to {PARITY_LIMIT:g}."
    )


class SizeGate(Gate):
    limit: Size = Field(description=_LIMIT)


class FactorGate(Gate):
    limit: Factor = Field(description=_LIMIT)


class LatencyGate(Gate):
    limit: Duration = Field(description=_LIMIT)
    percentile: Literal["p50", "p90", "p99"] = Field("p50", description="Of the times of calls.")


class RateGate(Gate):
    limit: Rate = Field(description=_LIMIT)


class LoadGate(LatencyGate):
    percentile: Literal["p50", "p90", "p99"] = Field("p99", description="Of the requests' times.")
    rate: Rate | None = Field(
        None, description="Arrivals a second; the highest that was measured by default."
    )


class DurationGate(Gate):
    limit: Duration = Field(description=_LIMIT)


class Gates(Section):
    """What an artifact must satisfy to be chosen. Each gate stands at most once."""

    score: ScoreGate | None = Field(None, description="At least this score (at most, for errors).")
    drop: ScoreGate | None = Field(None, description="At most this much worse than the baseline.")
    worst_class: GroupGate | None = Field(
        None, description="At most this much worse than the baseline in any class."
    )
    worst_slice: GroupGate | None = Field(
        None, description="At most this much worse than the baseline in any of the data's slices."
    )
    corrupted: ScoreGate | None = Field(
        None, description="At most this much worse than the baseline under any corruption."
    )
    flips: ShareGate | None = Field(
        None, description="At most this share of predictions that differ from the baseline's."
    )
    negative_flips: ShareGate | None = Field(
        None, description="At most this share of samples right before and wrong now."
    )
    calibration_error: ShareGate | None = Field(
        None, description="At most this expected calibration error of the predicted confidences."
    )
    parity: NumberGate | None = Field(
        None, description="At most this difference from what it was made from."
    )
    size: SizeGate | None = Field(None, description="At most this many bytes on disk.")
    size_ratio: FactorGate | None = Field(None, description="At most this share of the baseline.")
    integer_nodes: ShareGate | None = Field(
        None, description="At least this share of the nodes runs in integers."
    )
    integer_macs: ShareGate | None = Field(
        None, description="At least this share of the multiply-accumulates runs in integers."
    )
    latency: LatencyGate | None = Field(None, description="At most this long for one call.")
    latency_ratio: FactorGate | None = Field(
        None, description="Median time of a call, at most this share of the baseline's."
    )
    throughput: RateGate | None = Field(
        None, description="At least this many samples a second, calls back to back."
    )
    latency_at: LoadGate | None = Field(
        None, description="At most this long for a request, waiting included, at a `rate`."
    )
    cold_start: DurationGate | None = Field(
        None, description="From starting a process to its first result."
    )
    peak_memory: SizeGate | None = Field(
        None, description="Above what the runtime takes before it loads the model."
    )
    ram: SizeGate | None = Field(
        None, description="At most this much working memory, on a target that is simulated."
    )
    flash: SizeGate | None = Field(
        None, description="At most this much for the model itself, on a target that is simulated."
    )
    operator_coverage: ShareGate | None = Field(
        None,
        description="At least this share of the operators runs on the device's accelerator, on a "
        "target that is simulated.",
    )

    def items(self) -> Iterator[tuple[str, Gate]]:
        """Name and gate of those that are set."""
        for name in Gates.model_fields:
            gate = getattr(self, name)
            if gate is not None:
                yield name, gate


PER_TARGET = frozenset({"latency", "latency_ratio", "cold_start", "peak_memory"})
PER_TARGET |= {"throughput", "latency_at"}
PER_TARGET |= {"ram", "flash", "operator_coverage"}
"""Gates about what differs from target to target."""


class Regression(Section):
    """How far a result may be worse than an earlier one."""

    drop: ScoreGate = Field(
        default_factory=lambda: ScoreGate.model_validate("0.5 %"),
        description="At most this much worse than the earlier artifact; 0.5 % by default.",
    )
    negative_flips: ShareGate | None = Field(
        None, description="At most this share of samples right before and wrong now."
    )
    size: FactorGate = Field(
        default_factory=lambda: FactorGate.model_validate("1.02x"),
        description="At most this many times the earlier size; 1.02x by default.",
    )
    latency: FactorGate = Field(
        default_factory=lambda: FactorGate.model_validate("1.05x"),
        description="At most this many times the earlier latency, 1.05x by default: of the ratios "
        "to the same baseline where both runs have it, else of the medians on the same processor.",
    )

    def items(self) -> Iterator[tuple[str, Gate]]:
        """Name and gate of those that are set."""
        for name in type(self).model_fields:
            gate = getattr(self, name)
            if gate is not None:
                yield name, gate


class Budget(Gates):
    """Gates in a file of their own, and how far a result may be worse than an earlier one."""

    regression: Regression = Field(default_factory=Regression, description="Used with `--against`.")


@dataclass(frozen=True)
class BudgetFile:
    """A budget and where it stands."""

    budget: Budget = field(default_factory=Budget)
    document: Document | None = None

    def place(self, *key: str) -> tuple[str, int] | None:
        """File and line of a key; None if it is not written there."""
        lines = self.document.lines if self.document else {}
        return next(
            (
                (str(lines[key[:end]][0]), lines[key[:end]][1])
                for end in range(len(key), 0, -1)
                if key[:end] in lines
            ),
            None,
        )

    def where(self, *key: str | int) -> str:
        """How to name a key in an error."""
        return self.document.where(key) if self.document else show(key)


_START = "write for example `latency_ratio: 0.9x`"


def read_budget(path: Path) -> BudgetFile:
    """Read and check a budget file.

    Raises:
        RecipeError: with every finding, the first one in front.
    """
    document = read_document(path, start=_START)
    try:
        budget = Budget.model_validate(document.value, context=FROM_FILE)
    except ValidationError as error:
        first, *others = (
            RecipeError(problem, where=document.where(key), mend=mend)
            for key, problem, mend in explain(error, Budget, document.value)
        )
        raise RecipeError(
            first.problem, where=first.where, mend=first.mend, others=tuple(others)
        ) from error
    if not list(budget.items()) and "regression" not in document.value:
        raise RecipeError("sets no gate", where=str(path), mend=_START)
    return BudgetFile(budget, document)
