"""Parameters that every step that trains has."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, field_validator

from lepton_compress.registry import Params, nearest
from lepton_compress.units import Duration, Percent

LOSSES = (
    *("auto", "cross_entropy", "binary", "binary_logits", "multi_label", "multi_label_logits"),
    *("regression", "sequence", "ctc"),
)


class Training(Params):
    """How to train: AdamW with a warm-up and a cosine schedule."""

    epochs: Annotated[int, Field(ge=1, le=10_000)] = Field(
        10, description="How often every training sample is seen, at most."
    )
    learning_rate: Annotated[float, Field(gt=0, le=10)] = Field(
        1e-3, description="At its highest, after the warm-up."
    )
    batch_size: Annotated[int, Field(ge=2, le=65536)] = Field(
        64, description="Samples between two updates."
    )
    weight_decay: Annotated[float, Field(ge=0, le=1)] = Field(
        1e-4, description="How much weights shrink with each update, times the learning rate."
    )
    warmup: Percent = Field(
        0.05, description="First share of the updates, in which the learning rate rises."
    )
    clip: Annotated[float, Field(gt=0)] = Field(
        5.0, description="The gradient is scaled down to this norm where it is longer."
    )
    precision: Literal["auto", "float32", "bfloat16", "float16"] = Field(
        "auto",
        description="Of the forward pass; weights stay float32. `auto`: bfloat16 on a GPU that "
        "computes in it, else float32. `float16` needs a GPU.",
    )
    validation: Percent = Field(
        0.1,
        description="Share of the train split that is held out, by class where targets are "
        "classes. The epoch that is best on it is what comes out. 0 % trains on everything and "
        "takes the last epoch.",
    )
    patience: Annotated[int, Field(ge=1)] = Field(
        10, description="Stop after this many epochs without a better one."
    )
    batch_norm: Literal["auto", "keep", "reestimate"] = Field(
        "auto",
        description="`reestimate`: compute the running statistics of batch normalisation again "
        "with the final weights, which helps after pruning or a short training. `auto`: where it "
        "helps on the held-out samples.",
    )
    checkpoint: Duration = Field(
        60.0, description="Time between two checkpoints: what a killed run loses at most."
    )


class Supervised(Training):
    """How to train on labels."""

    loss: str = Field(
        "auto",
        description="`cross_entropy`, `binary` or `multi_label` (of probabilities; `binary_logits` "
        "and `multi_label_logits` before the sigmoid), `regression`, `sequence` (a class for each "
        "place, below 0 for none), `ctc` (class 0 is the blank), or `path/to/file.py:name` of a "
        "function of (outputs by name, targets) that returns a scalar tensor. `auto`: "
        "cross-entropy for whole numbers against several scores, `binary` against one, else "
        "`regression`.",
    )
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = Field(
        0.0, description="Share of each label that is spread over all classes; for cross-entropy."
    )

    @field_validator("loss")
    @classmethod
    def _known(cls, given: str) -> str:
        if given not in LOSSES and ":" not in given:
            mend = nearest(given, [*LOSSES])
            raise ValueError(f"unknown loss {given!r}; {mend}")
        return given

    def references(self) -> tuple[str, ...]:
        """The user's own loss, whose code counts."""
        return () if self.loss in LOSSES else (self.loss,)
