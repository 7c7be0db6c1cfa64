"""The step `distil`: knowledge distillation from the original model or another teacher, into the
model at hand or another student."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from lepton_compress.artifacts import Model, StepContext, StepOutcome
from lepton_compress.compress.params import Training
from lepton_compress.registry import Params, plugin
from lepton_compress.units import Percent

_FACTORY = "`path/to/file.py:name` or `package.module:name`; the recipe's own by default."
Weight = Annotated[float, Field(ge=0, le=1000)]


class Student(Params):
    """Another network to train in the place of the one at hand."""

    factory: str | None = Field(None, description=_FACTORY)
    args: dict[str, Any] = Field({}, description="Keyword arguments of the factory.")
    weights: str | None = Field(
        None, description="A file to start from, as a model's; fresh weights by default."
    )

    def model(self) -> dict[str, Any]:
        """As the `model` of a recipe says it, what is not given left out."""
        held: dict[str, Any] = self.model_dump(
            include={"factory", "args", "weights", "onnx"}, exclude_none=True
        )
        return {name: each for name, each in held.items() if each != {}}


class Teacher(Student):
    """Who teaches: the original model where nothing is named."""

    weights: str | None = Field(None, description="Of the factory's network.")
    onnx: str | None = Field(None, description="An .onnx file, which teaches by its outputs.")
    adapt: Training | None = Field(
        None,
        description="First train it on the labels of the train split, where these data are others "
        "than those that it was trained on.",
    )

    @model_validator(mode="after")
    def _one(self) -> Self:
        if self.onnx and (self.factory or self.args or self.weights):
            raise ValueError("give either onnx, or a factory with its args and weights")
        if self.onnx and self.adapt:
            raise ValueError("an ONNX file cannot be trained; drop adapt")
        return self


class Terms(Params):
    """How much each term counts. Each is of the order of one where the student knows nothing; what
    layers give is a means to the outputs, and counts less."""

    outputs: Weight = Field(1.0, description="The teacher's outputs.")
    features: Weight = Field(0.3, description="Of `features`.")
    attention: Weight = Field(0.3, description="Of `attention`.")


Layers = Annotated[dict[str, str], Field(min_length=1)] | Literal["auto"]


class Distil(Training):
    """Who learns what from whom."""

    teacher: Teacher = Field(Teacher(), description="By default the original model.")
    student: Student | None = Field(
        None,
        description="Train another network and go on with it: a narrower one of the same factory, "
        "or another factory's. Its inputs and outputs must be the model's.",
    )
    temperature: Annotated[float, Field(gt=0, le=100)] = Field(
        2.0, description="Softens both models' class scores."
    )
    labels: Percent = Field(
        0.3, description="Share of the loss that comes from the labels; 0 % needs none."
    )
    features: Layers | None = Field(
        None,
        description="Have layers give what the teacher's do: names of layers, student's to "
        "teacher's, or `auto`, which pairs them by depth and spatial shape. Where widths differ a "
        "projection is learned along and thrown away.",
    )
    attention: Layers | None = Field(
        None,
        description="Have layers attend to what the teacher's do: the places where convolutions "
        "are active, or the relations between the positions of a sequence. As `features`.",
    )
    weights: Terms = Field(Terms(), description="Of the terms that come from the teacher.")

    @model_validator(mode="after")
    def _taught(self) -> Self:
        if self.teacher.onnx and (self.features or self.attention):
            raise ValueError("an ONNX teacher shows its outputs alone; drop features and attention")
        asked = [self.weights.outputs]
        asked += [self.weights.features] if self.features else []
        asked += [self.weights.attention] if self.attention else []
        if not any(asked):
            raise ValueError("weights leave nothing to learn from the teacher; use finetune")
        return self

    def models(self) -> tuple[dict[str, Any], ...]:
        taught = self.teacher.model()
        learning = [] if self.student is None else [self.student.model()]
        return (*([taught] if taught else []), *learning)

    @property
    def replaces(self) -> bool:
        return self.student is not None


@plugin("step", "distil", Distil, form="module", trains=True)
def distil(model: Model, params: Distil, context: StepContext) -> StepOutcome:
    """Trains towards a teacher's outputs, features and attention (Hinton, Vinyals and Dean, 2015).

    Class scores are compared softened by the temperature, with the gradient's scale kept; other
    outputs by their mean squared difference. Features follow Romero et al. (FitNets, 2015),
    attention Zagoruyko and Komodakis (2017) and Wang et al. (MiniLMv2, 2021). The statistics tell
    each term's loss in the first and in the last epoch, before it is weighted.
    """
    from lepton_compress.compress import distillation

    return distillation.distil(model, params, context)
