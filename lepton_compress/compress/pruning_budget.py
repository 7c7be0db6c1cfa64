"""What pruning must leave: the parameters under `to` of the step `prune`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Annotated, Any, Self

from pydantic import BeforeValidator, Field, WithJsonSchema, model_validator

from lepton_compress.registry import Params
from lepton_compress.units import BYTES, COUNT, FACTOR, SECONDS, Duration, exact, parse

MEASURES: Mapping[str, Mapping[str, Fraction]] = {
    "latency": SECONDS,
    "macs": COUNT,
    "parameters": COUNT,
    "bytes": BYTES,
}
"""What a budget may be in, and the units of its amounts."""
EXAMPLES = {"latency": "2 ms", "macs": "20M", "bytes": "150 KB"}


@dataclass(frozen=True)
class Limit:
    """The most that may be left: a `share` of what was there, or an `amount` in seconds,
    multiply-accumulates, parameters or bytes. One of the two is None."""

    measure: str
    share: float | None
    amount: float | None

    def share_of(self, whole: float) -> float:
        """The limit as a share of what there was."""
        if self.share is not None:
            return self.share
        assert self.amount is not None  # noqa: S101 - one of the two is given
        return self.amount / whole


def _reader(measure: str) -> BeforeValidator:
    """Takes `0.5x` or an amount, and keeps it as it was written."""
    units, example = MEASURES[measure], EXAMPLES[measure]

    def read(given: object) -> str:
        text = str(given) if isinstance(given, int) and not isinstance(given, bool) else given
        value = exact(text, {**FACTOR, **units}, f"0.5x' or '{example}")
        if value <= 0:
            raise ValueError(f"{given!r} is not above zero")
        if str(text).strip().endswith("x") and value >= 1:
            raise ValueError(f"{given!r} leaves all that is there; give less than 1x")
        return str(text).strip()

    return BeforeValidator(read)


def _schema(measure: str) -> WithJsonSchema:
    kinds: list[dict[str, Any]] = [{"type": "string", "examples": ["0.5x", EXAMPLES[measure]]}]
    if "" in MEASURES[measure]:
        kinds.append({"type": "integer", "minimum": 1})
    return WithJsonSchema({"anyOf": kinds})


Latency = Annotated[str, _reader("latency"), _schema("latency")]
Count = Annotated[str, _reader("macs"), _schema("macs")]
Bytes = Annotated[str, _reader("bytes"), _schema("bytes")]


class Budget(Params):
    """What must be left at most: a share of what was there, or an amount. Give one of `latency`,
    `macs`, `parameters` and `bytes`."""

    latency: Latency | None = Field(
        None,
        description="Time of one call on the target, `0.5x` or `2 ms`. Measured: a table of the "
        "time of each layer's shapes drives the search, and whole nets decide.",
    )
    macs: Count | None = Field(None, description="Multiply-accumulates, `0.5x` or `20M`.")
    parameters: Count | None = Field(None, description="Parameters, `0.5x` or `50k`.")
    bytes: Bytes | None = Field(
        None,
        description="Bytes of the parameters and buffers as they are trained, `0.5x` or `150 KB`; "
        "a file has its structure beside them.",
    )
    target: str | None = Field(
        None,
        description="With `latency`, the target to be fast on; by default the recipe's first that "
        "runs ONNX artifacts on this machine.",
    )
    patience: Duration = Field(
        4.0, gt=0, description="With `latency`, how long nets may be timed, each time."
    )

    @model_validator(mode="after")
    def _one(self) -> Self:
        given = [name for name in MEASURES if getattr(self, name) is not None]
        if len(given) != 1:
            said = " and ".join(given) or "none"
            raise ValueError(f"give one of {', '.join(MEASURES)}, not {said}")
        if given != ["latency"] and (of := {"target", "patience"} & self.model_fields_set):
            raise ValueError(f"{min(of)} goes with latency")
        return self

    @property
    def limit(self) -> Limit:
        """What is asked for."""
        name = next(each for each in MEASURES if getattr(self, each) is not None)
        text = getattr(self, name)
        if text.endswith("x"):
            return Limit(name, parse(text, FACTOR, "0.5x"), None)
        return Limit(name, None, parse(text, dict(MEASURES[name]), "20M"))
