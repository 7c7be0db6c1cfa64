"""Parameters that every step that trains has."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from lepton_compress.registry import Params


class Training(Params):
    """How to train: AdamW with a warm-up and a cosine schedule."""

    epochs: Annotated[int, Field(ge=1, le=10_000)] = Field(
        10, description="How often every training sample is seen."
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
