"""Model cards: what was measured of a reference model, as CARD.md for people and card.json for the
tests, which hold the committed weights to it."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from torch import nn

from lepton_compress.artifacts import Model, Split
from lepton_compress.export.lower import lower
from lepton_compress.graph import multiply_accumulates, parameter_count
from lepton_compress.load.forms import input_specs
from lepton_compress.statistics import mean_interval

FILES = ("CARD.md", "card.json")


@dataclass(frozen=True)
class Measured:
    """A metric on one split.

    Attributes:
        split: which samples.
        metric: its name, such as `accuracy`.
        value: between 0 and 1.
        interval: the ends of its 95 % interval.
        samples: how many the split has.
    """

    split: str
    metric: str
    value: float
    interval: tuple[float, float]
    samples: int


@dataclass(frozen=True)
class Card:
    """A reference model; what is said in `about` to `retrain` are sentences, the rest was measured.

    Attributes:
        name: the folder's, or folder and variant.
        about: what the network is, and what it takes and gives.
        data: what it was trained on, where that comes from and its terms.
        split: which samples it was trained, calibrated and evaluated on.
        retrain: the command that makes the weights again.
        measured: metrics, the first of which the tests look at.
        parameters: of the lowered graph.
        macs: multiply-accumulates of one sample; None where not known.
        bytes: of the weights' file.
        seconds: that training took, on two threads of the machine that wrote the card.
        notes: further sentences.
    """

    name: str
    about: str
    data: str
    split: str
    retrain: str
    measured: tuple[Measured, ...]
    parameters: int
    macs: int | None
    bytes: int
    seconds: float
    notes: tuple[str, ...] = ()


def accuracy(split: str, answers: ArrayLike, labels: ArrayLike) -> Measured:
    """The share of right answers with Wilson's interval.

    Args:
        split: its name.
        answers: (samples,) labels as predicted.
        labels: (samples,) the right ones.
    """
    hits = (np.asarray(answers) == np.asarray(labels)).astype(float)
    value, interval = mean_interval(hits)
    return Measured(split, "accuracy", value, interval, len(hits))


def size(module: nn.Module, inputs: Mapping[str, np.ndarray]) -> tuple[int, int | None]:
    """Parameters and multiply-accumulates of one sample, read off the lowered graph.

    Args:
        inputs: at least two samples, by the names that forward() has.
    """
    given = Split({name: array[:2] for name, array in inputs.items()})
    model = Model("module", module, input_specs(given.inputs, list(given.inputs)), ())
    graph = lower(model, given).value
    return parameter_count(graph), multiply_accumulates(graph)


def write(folder: Path, *cards: Card) -> None:
    """Write CARD.md and card.json: one card, or one for each variant in the folder."""
    page, data = FILES
    (folder / page).write_text("\n\n".join(map(_page, cards)) + "\n", encoding="utf-8")
    held = {card.name: dataclasses.asdict(card) for card in cards}
    (folder / data).write_text(json.dumps(held, indent=1) + "\n", encoding="utf-8")


def read(folder: Path) -> dict[str, Card]:
    """The cards of a folder by their names, as `write` wrote them."""
    held = json.loads((folder / FILES[1]).read_text(encoding="utf-8"))
    return {name: _card(values) for name, values in held.items()}


def _card(values: dict[str, Any]) -> Card:
    measured = [
        Measured(**{**each, "interval": tuple(each["interval"])}) for each in values["measured"]
    ]
    return Card(**{**values, "measured": tuple(measured), "notes": tuple(values["notes"])})


def _page(card: Card) -> str:
    rows = [
        f"| {each.split} | {each.metric} | {100 * each.value:.2f} % | "
        f"{100 * each.interval[0]:.2f} to {100 * each.interval[1]:.2f} % | {each.samples:,} |"
        for each in card.measured
    ]
    macs = "not known" if card.macs is None else f"{card.macs:,}"
    return "\n".join(
        [
            f"# {card.name}",
            "",
            card.about,
            "",
            f"- Data: {card.data}",
            f"- Split: {card.split}",
            f"- Retrain: `{card.retrain}`",
            "",
            "| split | metric | value | 95 % interval | samples |",
            "|---|---|---|---|---|",
            *rows,
            "",
            "| parameters | MACs a sample | weights | training |",
            "|---|---|---|---|",
            f"| {card.parameters:,} | {macs} | {card.bytes:,} bytes | {card.seconds:.0f} s |",
            *(line for note in card.notes for line in ("", note)),
        ]
    )
