"""The step `sparsify`: single weights are set to zero; shapes stay as they are."""

from __future__ import annotations

import re
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from lepton_compress.artifacts import Model, StepContext, StepOutcome
from lepton_compress.compress.params import Training
from lepton_compress.registry import Params, plugin
from lepton_compress.units import Percent

UNSTRUCTURED = "unstructured"
_GROUPS = re.compile(r"([1-9]\d?):([1-9]\d?)")


class Gradual(Training):
    """Training in which weights go by and by, along a cubic curve (Zhu and Gupta, 2017)."""

    updates: Annotated[int, Field(ge=1, le=1000)] = Field(
        10, description="How often more weights are set to zero."
    )
    until: Percent = Field(
        0.7, description="The share of the training in which that happens; the rest recovers."
    )


class Sparsify(Params):
    """How many weights to set to zero, and how to choose them."""

    sparsity: Percent | None = Field(
        None, description="Share of each layer's weights; 50 % by default. N:M patterns say theirs."
    )
    pattern: str = Field(
        UNSTRUCTURED,
        pattern=rf"^(?:{UNSTRUCTURED}|{_GROUPS.pattern})$",
        description="`unstructured`, or N:M such as `2:4`: of every M weights in a row over the "
        "input channels at most N are left.",
    )
    method: Literal["magnitude", "wanda", "sparsegpt"] = Field(
        "magnitude",
        description="`magnitude`: the smallest go. `wanda`: the smallest times the size of their "
        "inputs. `sparsegpt`: those whose loss the others can best make up for, and they do.",
    )
    samples: Annotated[int, Field(ge=1, le=65536)] = Field(
        128, description="Calibration samples that inputs are seen on, for wanda and sparsegpt."
    )
    schedule: Gradual | None = Field(
        None, description="Train meanwhile, as `distil` does from the original; else all at once."
    )
    keep: list[str] = Field([], description="Names of layers that stay dense.")

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.groups is not None:
            left, of = self.groups
            if left >= of:
                raise ValueError(f"pattern: {self.pattern} would leave every weight")
            if self.sparsity is not None and abs(self.sparsity - (1 - left / of)) > 1e-9:
                raise ValueError(f"sparsity: {self.pattern} is {100 * (1 - left / of):g} %")
        if self.sparsity is not None and not 0 < self.sparsity < 1:
            raise ValueError("sparsity: must be above 0 % and below 100 %")
        if self.schedule is not None and (self.groups or self.method != "magnitude"):
            raise ValueError("schedule: goes with the unstructured pattern and method magnitude")
        return self

    @property
    def groups(self) -> tuple[int, int] | None:
        """N and M, or None where weights are chosen freely."""
        found = _GROUPS.fullmatch(self.pattern)
        return (int(found[1]), int(found[2])) if found else None

    @property
    def share(self) -> float:
        """Of the weights that become zero."""
        if self.groups is not None:
            return 1 - self.groups[0] / self.groups[1]
        return 0.5 if self.sparsity is None else self.sparsity


@plugin("step", "sparsify", Sparsify, form="module", prunes=True)
def sparsify(model: Model, params: Sparsify, context: StepContext) -> StepOutcome:
    """Sets single weights to zero, which makes files compress better and, here, nothing faster.

    By magnitude in each layer, by Wanda in each row (Sun et al., 2023), or by SparseGPT (Frantar
    and Alistarh, 2023), freely or N of every M. Later steps that train keep zeros at zero, and
    quantisation does. The statistics tell the zeros layer by layer.
    """
    from lepton_compress.compress import sparsity

    return sparsity.sparsify(model, params, context)
