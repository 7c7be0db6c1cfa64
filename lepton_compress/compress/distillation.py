"""Knowledge distillation: who teaches, what is compared, and the training.

teacher    the original, another factory's network or an ONNX file; adapted to the data if asked
student    the model at hand, or another network in its place
compare    outputs here, features and attention in hints
"""

from __future__ import annotations

import contextlib
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn import functional

from lepton_compress.artifacts import Dataset, Model, StepContext, StepOutcome
from lepton_compress.compress import hints, masks
from lepton_compress.compress.fitting import fit, schedule
from lepton_compress.compress.training import deterministic, task_loss, train
from lepton_compress.compress.watching import fed
from lepton_compress.errors import InputError, PluginError
from lepton_compress.load.forms import call, duplicate, flatten, opened

if TYPE_CHECKING:
    from lepton_compress.compress.distil import Distil, Teacher
    from lepton_compress.compress.training import Loss

    Run = Callable[[dict[str, Tensor]], list[Tensor]]

STEP = "distil"
_UNLABELLED = "the train split has no targets: distilled from the teacher alone"
_LOOKED_AT = 1024
"""Training samples on which teacher and student are held against the labels beforehand."""


def distil(model: Model, params: Distil, context: StepContext) -> StepOutcome:
    """Train a student towards a teacher.

    Raises:
        InputError: a model cannot be built, its inputs or outputs do not match, a layer is not
            there, or the data do not fit.
        LeptonError: the loss is no longer finite.
    """
    names = [spec.name for spec in model.inputs]
    student = _student(model, params, context)
    with deterministic(context.seed, context.threads):
        teacher, about = _teacher(params.teacher, student, context)
        task, notes = _compared(teacher, student, params.labels, context)
        about |= task
        example = _tensors(next(context.data.calibration.named(names).batches(hints.EXAMPLES)))
        with contextlib.ExitStack() as held:
            terms = Terms()
            if params.features or params.attention:
                asked = (params.features, params.attention)
                terms.hints = held.enter_context(hints.Hints(student, teacher, example, *asked))
                about["pairs"] = terms.hints.pairs
            loss, said = distillation(
                teacher,
                params.temperature,
                params.labels,
                context.data,
                where=STEP,
                terms=terms,
                weights=params.weights.model_dump(),
            )
            held.enter_context(masks.held(student.value))
            statistics = fit(student.value, student, loss, params, context)
    statistics |= {"terms": terms.told(statistics["epochs"]), **about}
    return StepOutcome(student, changed=True, statistics=statistics, notes=(*said, *notes))


@dataclass
class Terms:
    """The terms of a loss, kept batch by batch."""

    hints: hints.Hints | None = None
    rows: list[int] = field(default_factory=list)
    seen: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))

    def note(self, values: dict[str, Tensor], rows: int) -> None:
        """Keep what one batch gave; a look at other samples in between does not count."""
        if torch.is_grad_enabled():
            self.rows.append(rows)
            for name, value in values.items():
                self.seen[name].append(value.item() * rows)

    def told(self, epochs: int) -> dict[str, list[float]]:
        """Term to its mean over the samples of the first epoch, and over those of the last."""
        one = max(1, len(self.rows) // epochs)
        parts = (slice(None, one), slice(-one, None))
        return {
            name: [sum(values[part]) / sum(self.rows[part]) for part in parts]
            for name, values in self.seen.items()
        }


def distillation(
    teacher: Model,
    temperature: float,
    share: float,
    data: Dataset,
    *,
    where: str,
    terms: Terms | None = None,
    weights: dict[str, float] | None = None,
) -> tuple[Loss, tuple[str, ...]]:
    """The loss against a teacher's outputs (Hinton, Vinyals and Dean, 2015), and notes.

    Class scores are compared softened by the temperature, with the gradient's scale kept; other
    outputs by their mean squared difference. Labels that are whole numbers, of whichever split has
    labels, say that outputs are class scores.

    Args:
        teacher: a module, or a graph whose inputs are the student's.
        temperature: what class scores are divided by.
        share: of the loss that comes from the labels, if there are any.
        where: the step, to name in errors.
        terms: what else is compared, and where each term is noted.
        weights: of "outputs", "features" and "attention"; outputs alone by default.

    Raises:
        InputError: the teacher cannot be run batch by batch.
    """
    run, terms, weights = _runner(teacher, where), terms or Terms(), weights or {"outputs": 1.0}
    notes: tuple[str, ...] = ()
    if data.train.targets is None and share:
        share, notes = 0.0, (_UNLABELLED,)
    classes = _are_classes(data)

    def loss(outputs: list[Tensor], batch: dict[str, Tensor], wanted: Tensor | None) -> Tensor:
        with torch.no_grad():
            taught = run(batch)
        found = {"outputs": _apart(outputs, taught, temperature, classes=classes)}
        if terms.hints is not None:
            found |= terms.hints.losses()
        total = torch.stack([weights[name] * value for name, value in found.items()]).sum()
        if wanted is not None and share:
            found["labels"] = task_loss(outputs, wanted)
            total = (1 - share) * total + share * found["labels"]
        terms.note(found, len(outputs[0]))
        return total

    return loss, notes


def _are_classes(data: Dataset) -> bool:
    held = (data.train.targets, data.calibration.targets, data.evaluation.targets)
    labels = next((each for each in held if each is not None), None)
    return labels is not None and labels.dtype.kind in "biu"


def _apart(
    mine: Sequence[Tensor], theirs: Sequence[Tensor], temperature: float, *, classes: bool
) -> Tensor:
    return torch.stack(
        [
            _distance(one, other, temperature, classes=classes)
            for one, other in zip(mine, theirs, strict=True)
        ]
    ).mean()


def _distance(mine: Tensor, theirs: Tensor, temperature: float, *, classes: bool) -> Tensor:
    if mine.ndim < 2 or mine.shape[1] == 1 or not classes:
        return functional.mse_loss(mine, theirs)
    soft = functional.kl_div(
        functional.log_softmax(mine / temperature, dim=1),
        functional.log_softmax(theirs / temperature, dim=1),
        reduction="none",
        log_target=True,
    )
    # Of many positions, as a segmentation has, each counts as one sample.
    return soft.sum(1).mean() * temperature**2


def _runner(teacher: Model, where: str) -> Run:
    """A teacher's outputs for one batch, with the student's names of inputs."""
    if teacher.form == "module":
        return lambda batch: flatten(teacher.value(**fed(teacher, batch)))
    if teacher.form != "graph":
        mend = "give it as a factory or an .onnx file"
        raise InputError("the teacher is not a torch module", where=where, mend=mend)
    session = opened(teacher)

    def run(batch: dict[str, Tensor]) -> list[Tensor]:
        feeds = {name: tensor.numpy() for name, tensor in fed(teacher, batch).items()}
        return [torch.from_numpy(array) for array in session(feeds)]

    return run


def _student(model: Model, params: Distil, context: StepContext) -> Model:
    """A copy of the model at hand, or another network in its place."""
    if params.student is None:
        return duplicate(model)
    spec = params.student.model()
    made = _open(spec, context, "student")
    if made.inputs != model.inputs:
        raise InputError(
            f"takes {_inputs(made)}, and the model {_inputs(model)}",
            where=f"{STEP}: student",
            mend="name the inputs of its forward() as the model's",
        )
    _match("student", made, "model", model, context.data)
    built = {**spec, "outputs": list(model.outputs)}
    return made.replace(outputs=model.outputs, built=built)


def _teacher(params: Teacher, student: Model, context: StepContext) -> tuple[Model, dict[str, Any]]:
    """The teacher, adapted if asked, and what is told of it."""
    spec = params.model()
    teacher = _open(spec, context, "teacher") if spec else context.original()
    _runner(teacher, STEP)
    _match("teacher", teacher, "student", student, context.data)
    about: dict[str, Any] = {"teacher": spec or "original"}
    if params.adapt is None:
        return teacher, about
    if teacher.form != "module" or context.data.train.targets is None:
        why = "the train split has no targets" if teacher.form == "module" else "it is no module"
        raise InputError(f"the teacher cannot be adapted: {why}", where=STEP, mend="drop adapt")
    split = context.data.train.named([spec.name for spec in teacher.inputs])
    about["adapted"] = train(
        teacher.value,
        split,
        lambda outputs, _, targets: task_loss(outputs, targets),
        schedule(params.adapt),
        observer=context.observer,
        label="adapting the teacher",
    )
    return teacher, about


def _open(spec: dict[str, Any], context: StepContext, role: str) -> Model:
    if context.open is None:
        raise PluginError("the context has no `open`", where=f"step {STEP}")
    try:
        return context.open(spec)
    except InputError as error:
        where = f"{STEP}: {role}: {error.where}" if error.where else f"{STEP}: {role}"
        raise InputError(error.problem, where=where, mend=error.mend) from error


def _match(role: str, made: Model, other_role: str, other: Model, data: Dataset) -> None:
    """Two models must give the same outputs, which two samples show."""
    shapes = []
    for each in (made, other):
        feeds = next(data.calibration.named([spec.name for spec in each.inputs]).batches(2))
        # Names may differ, as those of a file do; what counts is the order.
        found = call(each.replace(outputs=()) if each.form != "graph" else each, feeds)
        shapes.append([["batch", *array.shape[1:]] for array in found.values()])
    if shapes[0] != shapes[1]:
        mine, theirs = (" and ".join(_shape(each) for each in held) for held in shapes)
        raise InputError(
            f"the outputs of the {role} do not match: it gives {mine}, the {other_role} {theirs}",
            where=f"{STEP}: {role}",
            mend=f"take a {role} with the same outputs in the same order",
        )


def _shape(held: Sequence[object]) -> str:
    return f"[{', '.join(map(str, held))}]"


def _inputs(model: Model) -> str:
    return ", ".join(f"{each.name} {each.dtype}{_shape(each.shape)}" for each in model.inputs)


def _compared(
    teacher: Model, student: Model, share: float, context: StepContext
) -> tuple[dict[str, Any], tuple[str, ...]]:
    """How far teacher and student are from the labels before anything is learned."""
    if context.data.train.targets is None or not share:
        return {}, ()
    found = {}
    for role, model in (("teacher", teacher), ("student", student)):
        split = context.data.train.named([spec.name for spec in model.inputs])
        run, total, seen = _runner(model, STEP), 0.0, 0
        for feeds in split.batches(64, _LOOKED_AT):
            batch = _tensors(feeds)
            count = len(next(iter(batch.values())))
            wanted = torch.from_numpy(split.targets[seen : seen + count].copy())  # type: ignore[index]
            with torch.no_grad():
                outputs = run(batch)
                try:
                    total += task_loss(outputs, wanted).item() * count
                except (RuntimeError, IndexError, ValueError):
                    return {}, ()  # the training will say what does not fit
            seen += count
        found[role] = total / seen
    notes: tuple[str, ...] = ()
    if found["teacher"] > found["student"]:
        said = f"is {found['teacher']:.3g}, the student's {found['student']:.3g} before it learns"
        notes = (f"the teacher's loss on the labels {said}: adapt the teacher to these data",)
    return {"label_loss": found}, notes


def _tensors(feeds: dict[str, Any]) -> dict[str, Tensor]:
    return {name: torch.from_numpy(array.copy()) for name, array in feeds.items()}
