"""What the operators of a LiteRT file stand for in the model: a small JSON beside the file, which
is no part of the artifact and does not ship.

    version      1
    approximate  whether weights are rounded where the graph's are not
    notes        what was asked of the exporter and changes nothing in this file
    operators    in the file's order, one for each tensor that an operator gives:
                 operator, tensor (its name), index (its place), node (its name in the ONNX graph),
                 layer (the user's), values
    values       those of the graph that the tensor holds: name, shape, and how the elements lie in
                 memory, as `factors` and `order` of `export/flatbuffer/layouts.py`
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

from lepton_compress.errors import InputError

VERSION = 1
SUFFIX = ".layers.json"


@dataclass(frozen=True)
class Value:
    """A value of the graph as a tensor holds it.

    Attributes:
        name: in the ONNX graph.
        shape: there, at the file's batch.
        factors: sizes whose products in order are the axes of `shape`.
        order: places in `factors`, the slowest in memory first.
    """

    name: str
    shape: tuple[int, ...]
    factors: tuple[int, ...]
    order: tuple[int, ...]


@dataclass(frozen=True)
class Layer:
    """A tensor that an operator of the main graph gives.

    Attributes:
        operator: its type in LiteRT's schema.
        tensor: the tensor's name in the file.
        index: the tensor's place in the file.
        node: the name of the ONNX node that the operator computes, or a part of it.
        layer: where the node stands in the user's model; empty where that is not known.
        values: that the tensor holds; none of an operator that is a part of its node.
    """

    operator: str
    tensor: str
    index: int
    node: str
    layer: str
    values: tuple[Value, ...]


@dataclass(frozen=True)
class Layers:
    """The operators of a file; `approximate` and `notes` as above."""

    operators: tuple[Layer, ...]
    approximate: bool = False
    notes: tuple[str, ...] = ()

    def nodes(self) -> dict[str, str]:
        """Tensor to the name of its node."""
        return {each.tensor: each.node for each in self.operators if each.node}


def beside(path: Path) -> Path:
    """Where the JSON of a file stands."""
    return path.with_suffix(SUFFIX)


def to_json(layers: Layers) -> str:
    """The text of the JSON."""
    return json.dumps({"version": VERSION, **asdict(layers)}, separators=(",", ":")) + "\n"


def read(path: Path) -> Layers | None:
    """The layers of a LiteRT file; None where there is no JSON beside it.

    Raises:
        InputError: the JSON is damaged, or of another version.
    """
    file = beside(path)
    if not file.is_file():
        return None
    try:
        held = json.loads(file.read_text(encoding="utf-8"))
        if held["version"] == VERSION:
            notes = tuple(map(str, held.get("notes", ())))
            return Layers(tuple(map(_layer, held["operators"])), bool(held["approximate"]), notes)
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise InputError(
            "is no list of layers, or is damaged", where=str(file), mend="export the model again"
        ) from error
    raise InputError(
        f"is of version {held['version']}, which is not known", where=str(file), mend="delete it"
    )


def named(path: Path, operators: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Tensor to the name of its node, where the JSON beside a file is about it.

    Args:
        path: of the LiteRT file.
        operators: type and first tensor of those that are in it.
    """
    held = read(path)
    if held is None:
        return {}
    known = {(each.operator, each.tensor) for each in held.operators}
    return held.nodes() if known.issuperset(operators) else {}


def _layer(row: dict[str, object]) -> Layer:
    values = tuple(
        Value(each["name"], *(tuple(each[key]) for key in ("shape", "factors", "order")))
        for each in row.pop("values")  # type: ignore[attr-defined]
    )
    return Layer(values=values, **row)  # type: ignore[arg-type]
