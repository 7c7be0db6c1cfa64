"""The postprocessing `classes`: scores to probabilities, and what they are called."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from lepton_compress.artifacts import TensorSpec
from lepton_compress.errors import InputError
from lepton_compress.preprocess.form import Postprocessing
from lepton_compress.registry import Params, plugin

if TYPE_CHECKING:
    import numpy as np

    from lepton_compress.preprocess.nodes import Nodes

UNSURE = -1
"""The class where no probability reaches the threshold."""
_WHERE = "postprocess: classes"


class Classes(Params):
    """Scores (batch, classes), or one score a sample, (batch, 1) or (batch)."""

    output: str | None = Field(None, description="Of the model; its first one by default.")
    activation: Literal["softmax", "sigmoid", "none"] = Field(
        "softmax",
        description="What makes probabilities of the scores; none if the model gives them.",
    )
    labels: list[str] | str = Field(
        [], description="Names of the classes in order, or a text file with one a line."
    )
    threshold: Annotated[float, Field(ge=0, le=1)] | None = Field(
        None,
        description="A probability below this is no answer: the class -1. Of one score the limit "
        "between the two classes, 0.5 by default; metrics judge at 0.5.",
    )
    decide: bool = Field(
        False, description="Give the number of the class too, as a further output `NAME_class`."
    )

    def files(self) -> tuple[str, ...]:
        return (self.labels,) if isinstance(self.labels, str) else ()


@plugin("postprocessing", "classes", Classes)
def classes(params: Classes, made: TensorSpec, folder: Path) -> Postprocessing:
    """Turns scores into probabilities of named classes, inside the artifact."""
    from lepton_compress.preprocess import probabilities

    single = len(made.shape) == 1 or made.shape[1:] == (1,)
    if len(made.shape) > 2:
        raise InputError(
            f"{made.name} is {list(made.shape[1:])} a sample, not one score a class", where=_WHERE
        )
    if single and params.activation == "softmax":
        raise InputError(
            f"{made.name} is a single score, whose softmax is always 1",
            where=_WHERE,
            mend="write `activation: sigmoid`, or `none` if the model ends in one",
        )
    labels = _labels(params, folder)
    count = 2 if single else made.shape[1]
    if labels and isinstance(count, int) and len(labels) != count:
        raise InputError(
            f"there are {len(labels)} labels for {count} classes",
            where=_WHERE,
            mend="give one for each class, in order"
            + (", that of a low score first" if single else ""),
        )
    plan = probabilities.Plan(
        params.activation, params.threshold, f"{made.name}_class" if params.decide else "", single
    )

    def apply(array: np.ndarray) -> dict[str, np.ndarray]:
        return probabilities.apply(plan, made.name, array)

    def build(nodes: Nodes, name: str) -> dict[str, str]:
        return probabilities.build(plan, made.name, nodes, name)

    about = {
        "kind": "classes",
        "output": made.name,
        "labels": labels,
        "threshold": params.threshold,
        "probabilities": True,
    }
    return Postprocessing(apply, build, about)


def _labels(params: Classes, folder: Path) -> list[str]:
    if not isinstance(params.labels, str):
        labels = params.labels
    else:
        path = folder / params.labels
        try:
            labels = path.read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            said = "no such file" if isinstance(error, FileNotFoundError) else f"({error})"
            mend = "give a text file with one label a line"
            raise InputError(said, where=str(path), mend=mend) from error
        while labels and not labels[-1].strip():
            labels.pop()
    if doubled := sorted({each for each in labels if labels.count(each) > 1}):
        raise InputError(f"the label {doubled[0]!r} stands twice", where=_WHERE)
    return [each.strip() for each in labels]
