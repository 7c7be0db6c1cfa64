"""What is done to a model while it trains, and when: shares of the training's updates."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Self, TypeVar, cast

from pydantic import BaseModel, Field, ValidationError, model_validator

from lepton_compress.errors import RecipeError
from lepton_compress.findings import Finding, explain
from lepton_compress.recipe import StepUse
from lepton_compress.registry import Params
from lepton_compress.units import Percent

if TYPE_CHECKING:
    from lepton_compress.compress.prune import Prune
    from lepton_compress.compress.quantize_aware import QuantizeAware

WHERE = "TrainingSession"
_Own = TypeVar("_Own", bound=BaseModel)


class Gradual(Params):
    """When channels go: little by little, the most at first (Zhu and Gupta, 2017)."""

    begin: Percent = Field(0.1, description="Share of the updates before the first goes.")
    end: Percent = Field(0.5, description="Share of the updates after which all have gone.")
    times: Annotated[int, Field(ge=1, le=1000)] = Field(5, description="In how many portions.")

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if not self.begin <= self.end < 1:
            raise ValueError("begin must not come after end, and end must leave some updates")
        return self

    def portions(self, updates: int) -> dict[int, float]:
        """Update to the share of all that shall have gone before the next."""
        found = {}
        for number in range(1, self.times + 1):
            part = number / self.times
            at = round(updates * (self.begin + (self.end - self.begin) * part))
            found[max(1, at)] = 1 - (1 - part) ** 3
        return found


class Late(Params):
    """When rounding begins."""

    begin: Percent = Field(0.6, description="Share of the updates before it.")


@dataclass(frozen=True)
class Settings:
    """All of it.

    Attributes:
        portions: update to the share of the pruning that is done after it.
        round_at: the update after which the forward pass rounds.
        freeze_at: the update after which statistics and ranges stay as they are.
    """

    updates: int
    prune: Prune | None
    portions: Mapping[int, float]
    aware: QuantizeAware | None
    round_at: int
    freeze_at: int


def read(
    updates: int,
    prune: Mapping[str, Any] | None,
    quantize_aware: Mapping[str, Any] | None,
) -> Settings:
    """Check what a training script asks for.

    Raises:
        RecipeError: a key or value is wrong, nothing is asked for, or rounding would begin before
            the last channels have gone.
    """
    if prune is None and quantize_aware is None:
        raise RecipeError("give prune, quantize_aware or both", where=WHERE)
    if isinstance(updates, bool) or not isinstance(updates, int) or updates < 1:
        raise RecipeError(
            f"updates is {updates!r}", where=WHERE, mend="give how often the optimiser will step"
        )
    gradual, pruning = _divided(Gradual, "prune", prune)
    late, aware = _divided(Late, "quantize_aware", quantize_aware)
    if aware is not None and "ranges" not in aware:
        aware["ranges"] = "observed"
    held = None if pruning is None else cast("Prune", _bound("prune", pruning))
    trained = None if aware is None else cast("QuantizeAware", _bound("quantize_aware", aware))
    if trained is not None and trained.ranges != "observed":
        raise RecipeError(
            "learned ranges are parameters that your optimiser does not have",
            where=f"{WHERE}: quantize_aware.ranges",
            mend="use observed here, or the step quantize_aware of a run",
        )
    portions = gradual.portions(updates) if held else {}
    round_at = round(updates * late.begin)
    if trained and portions and max(portions) > round_at:
        raise RecipeError(
            f"rounding begins after {round_at} updates, and pruning ends after {max(portions)}",
            where=WHERE,
            mend="let quantize_aware.begin be no less than prune.end",
        )
    freeze_at = updates if trained is None else round(updates * (1 - trained.freeze))
    return Settings(updates, held, portions, trained, round_at, max(freeze_at, round_at + 1))


def _divided(
    own: type[_Own], step: str, given: Mapping[str, Any] | None
) -> tuple[_Own, dict[str, Any] | None]:
    """What says when, and the parameters of the step."""
    if given is None:
        return own(), None
    if not isinstance(given, Mapping):
        raise RecipeError(
            f"is {type(given).__name__}", where=f"{WHERE}: {step}", mend="give a mapping"
        )
    when = {name: value for name, value in given.items() if name in own.model_fields}
    try:
        made = own.model_validate(when)
    except ValidationError as error:
        raise _wrong(step, explain(error, own, when)[0]) from error
    return made, {name: value for name, value in given.items() if name not in when}


def _bound(step: str, parameters: dict[str, Any]) -> Params:
    use = StepUse(name=step, parameters=parameters)
    for finding in use.problems():
        raise _wrong(step, finding)
    return use.bound()


def _wrong(step: str, finding: Finding) -> RecipeError:
    key = ".".join([step, *(str(part) for part in finding.key if part not in (step, "parameters"))])
    return RecipeError(finding.problem, where=f"{WHERE}: {key}", mend=finding.mend)
