"""What a teacher's layers give beside its outputs, and how far a student's are from it.

features     what a layer gives, through a learned projection (Romero et al., FitNets, 2015; trained
             together with the rest, not before it)
attention    of images, where a layer is active: channels squared and summed, as one map of length
             one (Zagoruyko and Komodakis, 2017); of sequences, how alike a layer finds each two
             positions, queries, keys and values each by themselves (Wang et al., MiniLMv2, 2021)

Each is a share: one is how far a student is that knows nothing of the teacher's layer.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal, Self

import torch
from torch import Tensor, nn
from torch.nn import functional

from lepton_compress.artifacts import Model
from lepton_compress.compress.watching import Seen, Watch, fed, survey
from lepton_compress.errors import InputError
from lepton_compress.load.forms import duplicate
from lepton_compress.registry import nearest

if TYPE_CHECKING:
    Asked = Mapping[str, str] | Literal["auto"] | None

EXAMPLES = 64
"""Samples that layers are surveyed, and projections begun, with."""
_PARTS = (r"q|query|q_proj|to_q|q_lin", r"k|key|k_proj|to_k|k_lin", r"v|value|v_proj|to_v|v_lin")
_RIDGE = 1e-3
"""Of the regression that a projection begins with, as a share of the features' mean square."""
_NAME = "lepton_projections"
_TINY = 1e-8


class Hints:
    """The terms of intermediate layers. While it is entered, both modules are watched and the
    projections are part of the student, so that they are trained with it; after that nothing of it
    is left in either.

    Args:
        student, teacher: modules.
        example: a few samples, (samples, ...) each.
        features, attention: the pairs that are asked for, student's layer to teacher's.

    Attributes:
        pairs: term to student's layer to teacher's.

    Raises:
        InputError: a layer is not there, or two that are paired cannot be compared.
    """

    def __init__(
        self,
        student: Model,
        teacher: Model,
        example: Mapping[str, Tensor],
        features: Asked,
        attention: Asked,
    ) -> None:
        self._student, self._teacher = student, teacher
        mine, theirs = survey(student, example), survey(teacher, example)
        self.pairs: dict[str, dict[str, str]] = {}
        for term, asked in (("features", features), ("attention", attention)):
            if asked:
                self.pairs[term] = paired(term, asked, mine, theirs)
        self._kinds = {name: each.kind for name, each in mine.items()}
        wanted = [pair for held in self.pairs.values() for pair in held.items()]
        watched = {one: mine[one] for one, _ in wanted}
        self._mine = Watch(student.value, watched)
        self._theirs = Watch(teacher.value, {other: theirs[other] for _, other in wanted})
        self._projections = nn.ModuleList()
        self._scales: dict[tuple[str, str], float] = {}
        self._begin(example, watched)

    def __enter__(self) -> Self:
        self._mine.start()
        self._theirs.start()
        if len(self._projections):
            self._student.value.add_module(_NAME, self._projections)
        return self

    def __exit__(self, *_: object) -> None:
        self._mine.stop()
        self._theirs.stop()
        if len(self._projections):
            delattr(self._student.value, _NAME)

    def losses(self) -> dict[str, Tensor]:
        """Each term for the batch that both modules have computed last; scalars."""
        found: dict[str, list[Tensor]] = {term: [] for term in self.pairs}
        for index, (one, other) in enumerate(self.pairs.get("features", {}).items()):
            given, wanted = self._values(one, other)
            found["features"].append(functional.mse_loss(self._projections[index](given), wanted))
        for one, other in self.pairs.get("attention", {}).items():
            apart = _apart(self._kinds[one], *self._attended(one, other))
            found["attention"].append(apart / self._scales["attention", one])
        return {term: torch.stack(each).mean() for term, each in found.items()}

    def _values(self, one: str, other: str, mine: Watch | None = None) -> tuple[Tensor, Tensor]:
        """Two layers' channels, (batch, positions, channels), over the same positions: the
        student's normalised by the batch, the teacher's of the order of one."""
        given = torch.cat((mine or self._mine).given(one), -1)
        wanted = torch.cat(self._theirs.given(other), -1)
        places, spread = given.shape[1:-1], self._scales.get(("features", one), 1.0)
        given = _over(given, wanted.shape[1:-1])
        # A projection could not keep up with features that grow while they are trained.
        rows = functional.batch_norm(given.flatten(0, -2), None, None, training=True)
        return rows.reshape(given.shape), _over(wanted, places) / spread**0.5

    def _attended(self, one: str, other: str, mine: Watch | None = None) -> tuple[Tensor, Tensor]:
        """What two layers attend to: maps (batch, places) of length one, or logarithms of
        relations (batch, parts, positions, positions)."""
        given, wanted = (mine or self._mine).given(one), self._theirs.given(other)
        if self._kinds[one] == "sequence":
            return _relations(given), _relations(wanted)
        places, others = given[0].shape[1:-1], wanted[0].shape[1:-1]
        return _map(_over(given[0], others)), _map(_over(wanted[0], places))

    def _begin(self, example: Mapping[str, Tensor], watched: Mapping[str, Seen]) -> None:
        """Find what each pair is divided by, and projections that do as well as linear ones can
        before anything is trained."""
        # As it will be trained: statistics of normalisation that were never gathered, or are of
        # channels that were pruned, make values of another order.
        probe = duplicate(self._student)
        probe.value.train()
        mine = Watch(probe.value, watched)
        mine.start()
        self._theirs.start()
        try:
            with torch.no_grad():
                for model in (probe, self._teacher):
                    model.value(**fed(model, example))
                for one, other in self.pairs.get("features", {}).items():
                    _, wanted = self._values(one, other, mine)
                    spread = (wanted - wanted.flatten(0, -2).mean(0)).square().mean().item()
                    self._scales["features", one] = _scale(spread, other, "features")
                    self._projections.append(_projection(*self._values(one, other, mine)))
                for one, other in self.pairs.get("attention", {}).items():
                    kind, (_, wanted) = self._kinds[one], self._attended(one, other, mine)
                    even = torch.ones_like(wanted)
                    even = functional.normalize(even) if kind == "map" else even.log_softmax(-1)
                    spread = _apart(kind, even, wanted).item()
                    self._scales["attention", one] = _scale(spread, other, "attention")
        finally:
            mine.stop()
            self._theirs.stop()


def paired(
    term: str, asked: Asked, mine: Mapping[str, Seen], theirs: Mapping[str, Seen]
) -> dict[str, str]:
    """Student's layer to teacher's.

    By themselves, features are paired of the last layer of each spatial shape, and of the middle
    one too where there is one shape alone; each with the teacher's layer of that shape at the
    nearest depth. Attention is paired of the last layers that give queries, keys and values, else
    of the feature maps as features are.

    Raises:
        InputError: a layer is not there, no two fit, or two that are named cannot be compared.
    """
    where = f"distil: {term}"
    if asked is None or asked == "auto":
        found = _attending(mine, theirs) if term == "attention" else {}
        found = found or _alike(mine, theirs, maps=term == "attention")
        if not found:
            raise InputError(
                "no layer of the student has the spatial shape of one of the teacher's",
                where=where,
                mend="name pairs of layers, student's to teacher's",
            )
        return found
    for one, other in asked.items():
        for role, name, held in (("student", one, mine), ("teacher", other, theirs)):
            if name not in held:
                problem = f"the {role} has no layer {name!r} that gives values"
                raise InputError(problem, where=where, mend=nearest(name, sorted(held)))
        _comparable(term, one, mine[one], other, theirs[other])
    return dict(asked)


def _comparable(term: str, one: str, mine: Seen, other: str, theirs: Seen) -> None:
    problem = ""
    if mine.kind != theirs.kind:
        problem = f"{one} gives a {mine.kind} and {other} a {theirs.kind}"
    elif len(mine.positions) != len(theirs.positions) or (
        mine.kind == "sequence" and mine.positions != theirs.positions
    ):
        problem = f"{one} has positions {list(mine.positions)}, {other} {list(theirs.positions)}"
    elif term == "attention" and mine.kind == "vector":
        problem = f"{one} and {other} give no positions that could be attended to"
    elif term == "attention" and mine.parts != theirs.parts:
        problem = f"{one} gives {mine.parts} of queries, keys and values, {other} {theirs.parts}"
    if problem:
        raise InputError(problem, where=f"distil: {term}", mend="pair layers that are alike")


def _alike(mine: Mapping[str, Seen], theirs: Mapping[str, Seen], *, maps: bool) -> dict[str, str]:
    """The last layer of each shape that both have, and of one shape alone the middle one too."""

    def usable(held: Mapping[str, Seen]) -> dict[tuple[object, ...], list[str]]:
        shapes: dict[tuple[object, ...], list[str]] = {}
        for name, each in held.items():
            if each.owns and not (maps and (each.kind != "map" or len(each.positions) < 2)):
                shapes.setdefault((each.kind, each.positions), []).append(name)
        return shapes

    own, others = usable(mine), usable(theirs)
    shared = [shape for shape in own if shape in others]
    found = {}
    for shape in shared:
        names = own[shape]
        chosen = [names[-1]] if len(shared) > 1 else [names[(len(names) - 1) // 2], names[-1]]
        for name in chosen:
            depth = mine[name].depth
            found[name] = min(others[shape], key=lambda each: abs(theirs[each].depth - depth))
    return found


def _attending(mine: Mapping[str, Seen], theirs: Mapping[str, Seen]) -> dict[str, str]:
    """The last layers of both that give queries, keys and values, as MiniLM takes the last."""

    def last(held: Mapping[str, Seen]) -> dict[str, str]:
        found = {}
        for name, each in held.items():
            part = next(
                (p for p in _PARTS if re.fullmatch(p, name.rpartition(".")[2])),
                "all" if each.parts == 3 else "",
            )
            if part and each.kind == "sequence":
                found[part] = name
        return found

    own, others = last(mine), last(theirs)
    return {
        name: others[part]
        for part, name in own.items()
        if part in others and mine[name].positions == theirs[others[part]].positions
    }


def _over(values: Tensor, places: torch.Size) -> Tensor:
    """Channels (batch, places, channels) averaged over the cells of a coarser grid."""
    size = [min(own, other) for own, other in zip(values.shape[1:-1], places, strict=True)]
    if size == list(values.shape[1:-1]):
        return values
    pool: Any = (
        functional.adaptive_avg_pool1d,
        functional.adaptive_avg_pool2d,
        functional.adaptive_avg_pool3d,
    )[len(size) - 1]
    made: Tensor = pool(values.movedim(-1, 1), size).movedim(1, -1)
    return made


def _map(values: Tensor) -> Tensor:
    return functional.normalize(values.square().sum(-1).flatten(1))


def _relations(parts: list[Tensor]) -> Tensor:
    made = [each @ each.transpose(1, 2) / each.shape[-1] ** 0.5 for each in parts]
    return torch.stack(made, 1).log_softmax(-1)


def _apart(kind: str, given: Tensor, wanted: Tensor) -> Tensor:
    if kind == "sequence":
        return (wanted.exp() * (wanted - given)).sum(-1).mean()
    return 0.5 * (given - wanted).square().sum(-1).mean()


def _scale(spread: float, layer: str, term: str) -> float:
    if not spread > _TINY:
        raise InputError(
            f"the teacher's layer {layer} gives the same at every place and for every sample",
            where=f"distil: {term}",
            mend="pair another layer",
        )
    return spread


def _projection(given: Tensor, wanted: Tensor) -> nn.Linear:
    """A linear layer that makes of `given` what comes nearest to `wanted`: ridge regression."""
    rows, targets = given.flatten(0, -2).double(), wanted.flatten(0, -2).double()
    mean, middle = rows.mean(0), targets.mean(0)
    rows, targets = rows - mean, targets - middle
    ridge = (_RIDGE * rows.square().mean() + _TINY) * len(rows)
    product = rows.T @ rows + ridge * torch.eye(rows.shape[1], dtype=torch.float64)
    found = torch.linalg.solve(product, rows.T @ targets)
    made = nn.Linear(rows.shape[1], targets.shape[1])
    made.weight.copy_(found.T)
    made.bias.copy_(middle - mean @ found)
    return made
