"""The training loop that every step and the reference models share.

begin      a checkpoint of the same training, or the start          checkpoint
epoch      updates on batches drawn anew                            workers, schedule
judge      the held-out samples: better than before?                validation
end        the best epoch's weights, their statistics               batch_norm

Seeded by torch's generator, it repeats itself bit for bit on the same machine, number of threads
and processes; a training that was killed and goes on ends in the same bits as one that was not.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from lepton_compress.artifacts import MetricOutcome, Observer, Progress, Split
from lepton_compress.compress import batch_norm
from lepton_compress.compress.checkpoint import Checkpoints, State, tensors
from lepton_compress.compress.validation import Judge, hold_out
from lepton_compress.compress.workers import Workers
from lepton_compress.errors import InputError, LeptonError
from lepton_compress.load.forms import flatten

if TYPE_CHECKING:
    from lepton_compress.artifacts import Json
    from lepton_compress.compress.schedule import Loss, Schedule

_HALF = (torch.float16, torch.bfloat16)


@dataclass(frozen=True)
class Setting:
    """What a training may have beside its data and schedule.

    Attributes:
        told: is given, before each update, the share of the training that is done.
        metric: of outputs by name and targets; judges the held-out samples.
        names: of the outputs, for the metric.
        folder: where checkpoints go, of this training alone; None keeps none.
        part: the name of the submodule that is trained alone, while all others stay as they are
            and in inference; empty trains everything.
        keep: leave the end of the training in the folder, so that asked again it is read.
    """

    told: Callable[[float], None] | None = None
    metric: Callable[[Any, Any], MetricOutcome] | None = None
    names: tuple[str, ...] = ()
    folder: Path | None = None
    part: str = ""
    keep: bool = False


@dataclass
class Course:
    """How far a training is, as JSON holds it."""

    done: int = 0
    epoch: int = 0
    position: int = 0
    total: float = 0.0
    waiting: int = 0
    best_epoch: int = 0
    best: list[float | None] = field(default_factory=list)
    curve: dict[str, list[float]] = field(default_factory=dict)
    ended: bool = False


class Loop:
    """One training of a module, in place."""

    def __init__(
        self,
        module: nn.Module,
        split: Split,
        loss: Loss,
        schedule: Schedule,
        setting: Setting,
        observer: Observer,
        label: str,
    ) -> None:
        self.module, self.split, self.loss = module, split, loss
        self.schedule, self.setting = schedule, setting
        self.observer, self.label = observer, label
        self.workers = Workers(schedule.precision)
        count = len(split)
        if count < 2:
            raise InputError("training needs at least two samples", where="data: train")
        self.rows, self.held = hold_out(
            split.targets, count, schedule.validation, torch.initial_seed() % 2**63
        )
        self.size = min(schedule.batch_size, len(self.rows))
        if self.size < 2 * self.workers.count:
            raise InputError(
                f"{self.size} samples a batch are too few for {self.workers.count} processes",
                where=label,
                mend="each needs two; raise batch_size or use fewer processes",
            )
        self.batches = math.ceil(len(self.rows) / self.size)
        self.steps = self.batches * schedule.epochs
        targets = None if split.targets is None else split.targets[self.held]
        self.judge = Judge(setting.metric, setting.names, targets)
        self.checkpoints = Checkpoints(
            setting.folder if self.workers.first else None, schedule.checkpoint
        )
        self.course = Course()
        self.kept: dict[str, Tensor] = {}
        self.order = torch.zeros(0, dtype=torch.int64)

    def run(self) -> dict[str, Any]:
        """Train, and leave the module on the CPU, ready for inference; returns statistics."""
        wanted = {name: each.requires_grad for name, each in self.module.named_parameters()}
        forward = vars(self.module).get("forward")
        try:
            self._choose()
            self.network = self.workers.prepare(self.module)
            self._begin()
            if not self.course.ended:
                self._train()
                self._end()
            return self._statistics()
        finally:
            self.module.cpu()
            self.module.eval()
            self.module.zero_grad(set_to_none=True)
            for name, each in self.module.named_parameters():
                each.requires_grad_(wanted[name])
            if forward is None:  # accelerate may have put one of its own over the class's
                vars(self.module).pop("forward", None)

    def _choose(self) -> None:
        """Train a part alone, if that is asked for."""
        if self.setting.part:
            inside = {id(each) for each in self._part().parameters()}
            for each in self.module.parameters():
                each.requires_grad_(each.requires_grad and id(each) in inside)

    def _part(self) -> nn.Module:
        return self.module.get_submodule(self.setting.part)

    def _train_mode(self) -> None:
        # Statistics of a batch belong to what is trained; what stays as it is, infers.
        self.module.train(not self.setting.part)
        if self.setting.part:
            self._part().train()

    def _begin(self) -> None:
        self.trained = [each for each in self.module.parameters() if each.requires_grad]
        if not self.trained:
            raise InputError("the model has no parameter to train", where=self.label)
        self.optimizer = torch.optim.AdamW(
            self.trained,
            lr=self.schedule.learning_rate,
            weight_decay=self.schedule.weight_decay,
        )
        if self.workers.rank:  # or every process would drop the same units
            torch.manual_seed(torch.initial_seed() + self.workers.rank)
        reader = Checkpoints(self.setting.folder, self.schedule.checkpoint)
        found = reader.read()
        if found is not None and found.about["training"] == self._mark():
            self._restore(found)
            self.checkpoints.written = reader.written
            if not self.course.ended:
                self.observer.note(
                    f"{self.label} goes on from step {self.course.done} of {self.steps}, "
                    "where it was interrupted"
                )

    def _mark(self) -> dict[str, Json]:
        """What a checkpoint must agree in; the pipeline's key of the folder holds all the rest."""
        given = dataclasses.asdict(self.schedule)
        del given["checkpoint"]
        kind = self.workers.device.type
        made = {"samples": len(self.split), "processes": self.workers.count, "on": kind}
        return {**given, **made, "part": self.setting.part}

    def _train(self) -> None:
        self._train_mode()
        with self.observer.work(self.label, self.steps) as progress:
            progress.advance(self.course.done)
            while self._goes_on():
                if self.course.position == 0:
                    drawn = torch.from_numpy(self.rows)[torch.randperm(len(self.rows))]
                    self.order = self.workers.agreed(drawn)
                # What is good for certain, should the loss go astray before the next checkpoint.
                self.good = self._state() if self.setting.folder is not None else None
                self._epoch(progress)
                self._judge_epoch()

    def _goes_on(self) -> bool:
        left = self.course.epoch < self.schedule.epochs
        return left and self.course.waiting < self.schedule.patience

    def _epoch(self, progress: Progress) -> None:
        course = self.course
        for rows in torch.split(self.order, self.size)[course.position :]:
            course.position += 1
            if len(rows) < 2 * self.workers.count:
                continue  # batch normalisation has no variance over one sample
            if self.setting.told is not None:
                self.setting.told(course.done / self.steps)
            course.total += self._update(rows) * len(rows)
            course.done += 1
            progress.advance(note=self._note(course.total))
            if self._agreed(self.checkpoints.due()) and course.position < self.batches:
                self._save(self._state())

    def _note(self, total: float) -> str:
        seen = min(self.course.position * self.size, len(self.rows))
        said = f"epoch {self.course.epoch + 1}/{self.schedule.epochs}, loss {total / seen:.4f}"
        metrics = self.course.curve.get("metric")
        return said + (f", held out {metrics[-1]:.4g}" if metrics else "")

    def _update(self, rows: Tensor) -> float:
        """One step of the optimiser; returns the loss of the whole batch."""
        mine = self.workers.part(rows)
        value = self._loss(*self._batch(mine))
        if self.workers.count > 1:  # parts may differ by one sample
            value = value * (len(mine) * self.workers.count / len(rows))
        found = float(self.workers.mean(value.detach()).item())
        if not math.isfinite(found):
            raise self._astray(found)
        rate = self.schedule.rate(self.course.done, self.steps)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.zero_grad()
        scaler = self.workers.scaler
        scaler.scale(value).backward()  # type: ignore[no-untyped-call]
        scaler.unscale_(self.optimizer)
        nn.utils.clip_grad_norm_(self.trained, self.schedule.clip)
        scaler.step(self.optimizer)
        scaler.update()
        return found

    def _batch(self, rows: Tensor) -> tuple[dict[str, Tensor], Tensor | None]:
        index, device = rows.numpy(), self.workers.device
        inputs = {
            name: torch.from_numpy(np.asarray(array[index])).to(device)
            for name, array in self.split.inputs.items()
        }
        targets = self.split.targets
        wanted = None if targets is None else torch.from_numpy(np.asarray(targets[index]))
        return inputs, None if wanted is None else wanted.to(device)

    def _outputs(self, batch: dict[str, Tensor]) -> list[Tensor]:
        with self.workers.autocast():
            made = flatten(self.network(**batch))
        return [each.float() if each.dtype in _HALF else each for each in made]

    def _loss(self, batch: dict[str, Tensor], targets: Tensor | None) -> Tensor:
        return loss_of(self.loss, self._outputs(batch), batch, targets)

    def _astray(self, value: float) -> LeptonError:
        course = self.course
        if self.good is not None and self.checkpoints.written < self.good.about["done"]:
            self.checkpoints.write(self.good)
        said = ""
        if self.checkpoints.written >= 0 and self.checkpoints.folder is not None:
            done = self.checkpoints.written
            said = f"; the last good checkpoint, of step {done}, is {self.checkpoints.folder}"
        return LeptonError(
            f"the loss became {value} in epoch {course.epoch + 1}, "
            f"step {course.done + 1} of {self.steps}{said}",
            where=self.label,
            mend="lower learning_rate, or lengthen warmup",
        )

    def _judge_epoch(self) -> None:
        """Look how good the epoch's weights are, and remember the best."""
        course = self.course
        self.workers.alike(self.module)
        curve = {
            "loss": course.total / len(self.rows),
            "learning_rate": self.optimizer.param_groups[0]["lr"],
        }
        if len(self.held):
            metric, loss = self._measure()
            curve["validation_loss"] = loss
            if metric is not None:
                curve["metric"] = metric
            new: tuple[float | None, float] = (metric, loss)
            if not course.best or self.judge.better(new, (course.best[0], float(course.best[1]))):  # type: ignore[arg-type]
                course.best, course.best_epoch, course.waiting = list(new), course.epoch + 1, 0
                self.kept = copies(tensors(self.module))
            else:
                course.waiting += 1
        elif not all(bool(torch.isfinite(each).all()) for each in self.trained):
            raise self._astray(math.nan)
        for name, value in curve.items():
            course.curve.setdefault(name, []).append(value)
        course.epoch, course.position, course.total = course.epoch + 1, 0, 0.0
        if self._agreed(self.checkpoints.due()) and course.epoch < self.schedule.epochs:
            self._save(self._state())

    @torch.no_grad()
    def _measure(self) -> tuple[float | None, float]:
        """Metric (None where the loss must do) and loss of the held-out samples."""
        self.module.eval()
        total, made = 0.0, []
        for rows in torch.split(torch.from_numpy(self.held), self.schedule.batch_size):
            batch, targets = self._batch(rows)
            with self.workers.autocast():
                outputs = flatten(self.module(**batch))
            outputs = [each.float() if each.dtype in _HALF else each for each in outputs]
            total += float(loss_of(self.loss, outputs, batch, targets).item()) * len(rows)
            made.append([each.cpu().numpy() for each in outputs])
        loss = total / len(self.held)
        if not math.isfinite(loss):
            raise self._astray(loss)
        columns = [np.concatenate(each) for each in zip(*made, strict=True)]
        metric = self.judge.measure(columns)
        self._train_mode()
        return metric, loss

    def _end(self) -> None:
        """Take the best weights, and settle the statistics of batch normalisation."""
        if self.kept:
            self._put(self.kept)
        self.settled = self._settle()
        self.workers.alike(self.module)
        self.course.ended = True
        if self.setting.keep:
            self._save(self._state())
        elif self.workers.first:
            self.checkpoints.clear()

    def _settle(self) -> dict[str, Json] | None:
        found = batch_norm.layers(self.module)
        asked = self.schedule.batch_norm
        if not found or asked == "keep" or self.setting.part:
            return None
        if asked == "auto" and not len(self.held):
            return None
        before = self._measure() if len(self.held) else None
        moving = batch_norm.statistics(self.module)
        order = torch.from_numpy(self.rows)
        # Full batches alone, drawn across the split: data may be sorted by class.
        mixed = order[torch.arange(len(order)) * _stride(len(order)) % len(order)]
        full = [rows for rows in torch.split(mixed, self.size) if len(rows) == self.size]
        seen = batch_norm.reestimate(self.module, (self._batch(rows)[0] for rows in full))
        told: dict[str, Json] = {"layers": len(found), "batches": seen, "reestimated": True}
        if before is None:
            return told
        after = self._measure()
        if asked == "auto" and not self.judge.better(after, before):
            batch_norm.restore(self.module, moving)
            told["reestimated"] = False
        return {**told, "loss": [before[1], after[1]]}

    def _agreed(self, due: bool) -> bool:
        """Whether the first process says so, which alone looks at the clock."""
        if self.setting.folder is None or self.workers.count == 1:
            return due
        return bool(self.workers.agreed(torch.tensor(int(due))).item())

    def _state(self) -> State:
        generators = [self.workers.every(torch.get_rng_state())]
        if self.workers.device.type == "cuda":
            generators.append(self.workers.every(torch.cuda.get_rng_state(self.workers.device)))
        held = {f"module.{name}": each for name, each in tensors(self.module).items()}
        held |= {f"best.{name}": each for name, each in self.kept.items()}
        held |= {f"generator.{index}": each for index, each in enumerate(generators)}
        for number, state in self.optimizer.state_dict()["state"].items():
            held |= {f"optimizer.{number}.{name}": each for name, each in state.items()}
        held["order"] = self.order
        about = {
            "training": self._mark(),
            "course": dataclasses.asdict(self.course),
            "done": self.course.done,
            "scaler": self.workers.scaler.state_dict(),
            "unjudged": "" if self.judge.metric is not None else self.judge.reason,
            "higher": self.judge.higher,
            "settled": getattr(self, "settled", None),
        }
        return State(copies(held), about)

    def _save(self, state: State) -> None:
        good = all(
            bool(torch.isfinite(each).all())
            for name, each in state.tensors.items()
            if name.startswith("module.") and each.is_floating_point()
        )
        if good and self.workers.first:
            self.checkpoints.write(state)

    def _restore(self, state: State) -> None:
        parts: dict[str, dict[str, Tensor]] = {}
        for name, tensor in state.tensors.items():
            kind, _, rest = name.partition(".")
            parts.setdefault(kind, {})[rest] = tensor
        about = state.about
        self._put(parts["module"])
        self.kept = parts.get("best", {})
        self.order = parts["order"][""]
        course = Course(**about["course"])
        self.course = course
        self.settled = about["settled"]
        self.judge.higher = about["higher"]
        if about["unjudged"]:
            self.judge.metric, self.judge.reason = None, about["unjudged"]
        self.workers.scaler.load_state_dict(about["scaler"])
        held: dict[int, dict[str, Tensor]] = {}
        for name, tensor in parts.get("optimizer", {}).items():
            number, _, leaf = name.partition(".")
            held.setdefault(int(number), {})[leaf] = tensor
        whole = self.optimizer.state_dict()
        self.optimizer.load_state_dict({**whole, "state": held})
        generators = parts["generator"]
        torch.set_rng_state(generators["0"][self.workers.rank].clone())
        if "1" in generators:
            held_rng = generators["1"][self.workers.rank].clone()
            torch.cuda.set_rng_state(held_rng, self.workers.device)

    @torch.no_grad()
    def _put(self, held: dict[str, Tensor]) -> None:
        for name, tensor in tensors(self.module).items():
            tensor.copy_(held[name])

    def _statistics(self) -> dict[str, Any]:
        course, schedule = self.course, self.schedule
        losses = course.curve["loss"]
        told: dict[str, Any] = {
            "epochs": course.epoch,
            "steps": self.steps,
            "loss": [losses[0], losses[-1]],
            "curve": course.curve,
            **self.workers.told(),
        }
        if len(self.held):
            told["held_out"] = len(self.held)
            by_loss = {"value": "loss", "why": self.judge.reason}
            told["judged_by"] = "metric" if self.judge.metric is not None else by_loss
            told["best_epoch"] = course.best_epoch
            if course.epoch < schedule.epochs:
                told["stopped_early"] = f"no better epoch in {schedule.patience}"
        if self.settled is not None:
            told["batch_norm"] = self.settled
        return told


def loss_of(
    loss: Loss, outputs: list[Tensor], batch: dict[str, Tensor], targets: Tensor | None
) -> Tensor:
    """The loss, with torch's complaints about shapes and labels told as the data's fault.

    Raises:
        InputError: it cannot be computed.
    """
    try:
        return loss(outputs, batch, targets)
    except (RuntimeError, IndexError, ValueError) as error:
        said = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(
            f"the loss of the outputs {[list(each.shape) for each in outputs]} against the "
            f"targets {None if targets is None else list(targets.shape)} fails: {said}",
            where="data: train",
            mend="check the targets' shape, type and range against the model's first output",
        ) from error


def copies(held: dict[str, Tensor]) -> dict[str, Tensor]:
    """The tensors as they are now, on the CPU."""
    return {name: each.detach().to("cpu", copy=True) for name, each in held.items()}


def _stride(count: int) -> int:
    """A step through `count` rows that meets each once and leaves no order of theirs."""
    step = max(1, round(count * 0.618))
    while math.gcd(step, count) != 1:
        step += 1
    return step
