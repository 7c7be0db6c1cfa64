"""Parameters that every step that trains has."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from lepton_compress.registry import Params


class Training(Params):
    """How to train: AdamW with a warm-up and a cosine schedule."""

    epochs: Annotated[int, Field(ge=1, le=10_000)] = 10
    learning_rate: Annotated[float, Field(gt=0, le=10)] = 1e-3
    batch_size: Annotated[int, Field(ge=2, le=65536)] = 64
    weight_decay: Annotated[float, Field(ge=0, le=1)] = 1e-4
