"""The session that goes along with a training loop."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from lepton_compress.artifacts import Model, Observer, Place, RunResult, StepContext, StepOutcome
from lepton_compress.during_training.settings import WHERE, Settings, read
from lepton_compress.errors import InputError, LeptonError, RecipeError
from lepton_compress.load import forms
from lepton_compress.load.data import make_dataset
from lepton_compress.load.model import open_module
from lepton_compress.provenance import digest
from lepton_compress.report.silent import Silent

if TYPE_CHECKING:
    import torch
    from torch.optim import Optimizer

    from lepton_compress.compress.aware import Decided, Network
    from lepton_compress.compress.narrowing import Narrowing
    from lepton_compress.compress.prune import Prune


class TrainingSession:
    """Prunes a module while it trains, and lets it train under the rounding of its artifact.

        with TrainingSession(model, data=splits, updates=n, prune={...}) as session:
            for x, y in loader * epochs:
                ...
                optimizer.step()
                session.update(optimizer)
        result = session.compress(gates={"drop": "1 %"})

    The module stays the object that it is. Pruned parameters become others in it: what holds them
    besides (an average of weights, a list of them) must be made again, and optimisers be given to
    `update`. From where rounding begins, dropout is off and batch normalisation that follows a
    convolution or dense layer is folded (as in the step `quantize_aware`).
    """

    def __init__(
        self,
        model: torch.nn.Module,
        *,
        data: Any,
        updates: int,
        prune: Mapping[str, Any] | None = None,
        quantize_aware: Mapping[str, Any] | None = None,
        outputs: tuple[str, ...] = (),
        seed: int = 0,
        threads: int = 2,
        observer: Observer | None = None,
    ) -> None:
        """
        Args:
            model: the module in training. Not wrapped: neither by torch.compile nor for several
                processes.
            data: as for `lepton_compress.compress`.
            updates: how often the optimiser will step.
            prune: the parameters of the step `prune`, with `begin` and `end` (shares of the
                updates) and `times` (portions).
            quantize_aware: those of the step `quantize_aware` that say how to round, with `begin`.
            outputs: names for the model's outputs.
            seed, threads: of what the session itself chooses and computes.
            observer: told of progress.

        Raises:
            RecipeError: a setting is wrong.
            InputError: the data do not fit the model, or it cannot be copied.
        """
        self.settings: Settings = read(updates, prune, quantize_aware)
        _refuse_wrapped(model)
        self.module = model
        self.data = make_dataset(data() if callable(data) else data, "data")
        self._origin = open_module(model, self.data, tuple(outputs))
        self._model = self._origin.build().replace(value=model)
        observer = observer or Silent()
        here = Place("onnxruntime-cpu", "onnxruntime-cpu", 1, threads)
        self._context = StepContext(
            self.data, self._origin.build, seed, threads, observer, (here,), lower=self._lower
        )
        self.updates = 0
        self.notes: tuple[str, ...] = ()
        self.statistics: dict[str, Any] = {}
        self._widths: dict[str, tuple[int, int]] | None = None
        self._rounded: tuple[Decided, Network, Callable[[], None]] | None = None
        self._outcome: StepOutcome | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if error is None:
            self.finish()
        else:
            self.release()

    def update(self, *optimizers: Optimizer) -> None:
        """Tell that the optimiser has stepped; call it after each `optimizer.step()`.

        Args:
            optimizers: all that train the module's parameters.

        Raises:
            InputError: the module cannot be pruned or traced.
            LeptonError: the session is finished, or the optimiser steps more often than was said.
        """
        if self._outcome is not None:
            raise LeptonError("is finished", where=WHERE)
        if self.updates >= self.settings.updates:
            raise RecipeError(
                f"this is update {self.updates + 1}, but {self.settings.updates} were announced",
                where=WHERE,
                mend="give the number of steps of the whole training as updates",
            )
        self.updates += 1
        share = self.settings.portions.get(self.updates)
        if share is not None:
            if not optimizers:
                raise RecipeError("update() needs the optimiser", where=WHERE)
            self._prune(share, optimizers)
        if self.settings.aware is not None and self.updates == max(1, self.settings.round_at):
            self._begin_to_round()
        if self._rounded is not None and self.updates == self.settings.freeze_at:
            self._rounded[1].freeze()

    def finish(self) -> StepOutcome:
        """The outcome: the trained module, or its quantised graph. The module gets its own
        forward() back. Called again it gives the same.

        Raises:
            RecipeError: something has not been done yet, since there were fewer updates than
                announced.
        """
        if self._outcome is None:
            self.release()
            if due := self._lacks():
                raise RecipeError(
                    f"only {self.updates} of {self.settings.updates} updates were made, and "
                    f"something is due at {due}",
                    where=WHERE,
                    mend="call update() after each optimizer.step(), or announce fewer updates",
                )
            copied = copy.deepcopy(self.module).cpu().eval()
            model = self._model.replace(value=copied)
            if self._rounded is None or self.settings.aware is None:
                self._outcome = StepOutcome(model, True, self.statistics, self.notes)
            else:
                self._outcome = self._carried(model)
        return self._outcome

    def end(self) -> None:
        """As `finish`, for trainers that may stop early: where something has not been done,
        `finish` says so when it is asked for the outcome."""
        if self._lacks():
            self.release()
        else:
            self.finish()

    def save(self, folder: str | Path) -> Path:
        """Write what the steps `restore` (of a module) and `restore_graph` take: tensors as
        safetensors or ONNX, structure as JSON. Returns the folder."""
        from lepton_compress.compress.restore import ABOUT

        outcome, path = self.finish(), Path(folder)
        path.mkdir(parents=True, exist_ok=True)
        forms.save(outcome.model, self._origin.build(), path)
        about = {"statistics": outcome.statistics, "notes": list(outcome.notes)}
        (path / ABOUT).write_text(json.dumps(about, indent=1, sort_keys=True))
        return path

    def compress(self, *, workspace: str | Path = ".lepton", **given: Any) -> RunResult:
        """Export, verify, evaluate and measure what was trained, beside the model as it was when
        the session began. Takes what `lepton_compress.compress` takes; `steps` come after."""
        from lepton_compress.library import compress

        steps = [*given.pop("steps", ())]
        outcome = self.finish()
        mark = digest([forms.fingerprint(outcome.model), self._origin.fingerprint])
        folder = self.save(Path(workspace).resolve() / "trained" / mark[:32])
        name = "restore" if outcome.model.form == "module" else "restore_graph"
        return compress(
            self._origin.build().value,
            data=self.data,
            steps=[{name: {"folder": str(folder)}}, *steps],
            workspace=workspace,
            **given,
        )

    def _lower(self, model: Model) -> Model:
        from lepton_compress.export import lower

        return lower.lower(model, self.data.calibration)

    def _prune(self, share: float, optimizers: tuple[Optimizer, ...]) -> None:
        from lepton_compress.compress import channels
        from lepton_compress.during_training.narrowing import at_rest, narrow

        params = self.settings.prune
        assert params is not None  # noqa: S101 - there are no portions without
        with at_rest(self.module):
            narrowing = self._to_narrow(params)
            widths = self._widths or {}
            kept = {
                group.layer: group.best(_width(*widths[group.layer], share))
                for group in narrowing.groups
                if group.layer in widths
            }
            groups = [group for group in narrowing.groups if group.layer in kept]
            changed = narrow(self.module, groups, kept, optimizers)
            cost = channels.cost(self.module, narrowing.example)
        self.statistics["portions"].append(
            {"update": self.updates, "parameters_changed": len(changed), **cost}
        )
        self.statistics["macs"][1] = cost["macs"]
        self.statistics["parameters"][1] = cost["parameters"]

    def _to_narrow(self, params: Prune) -> Narrowing:
        """What can be pruned as the module is now, rated anew. The first time it is decided how
        wide each group shall be in the end."""
        from lepton_compress.compress import channels, pruning

        if self._widths is not None:
            return pruning.grouped(self._model, params, self._context)[0]
        narrowing, chosen = pruning.decide(self._model, params, self._context)
        widths = {
            each.layer: (each.width, len(chosen.kept[each.layer])) for each in narrowing.groups
        }
        if all(before == after for before, after in widths.values()):
            said = "; ".join(chosen.notes) or "no layer is wide enough"
            raise InputError(f"nothing can be pruned ({said})", where=f"{WHERE}: prune")
        if chosen.unmet:
            raise InputError(chosen.unmet, where=f"{WHERE}: prune")
        before = channels.cost(self.module, narrowing.example)
        self.statistics = {
            **{name: [value, value] for name, value in before.items()},
            "channels": {layer: list(pair) for layer, pair in widths.items()},
            "portions": [],
            **chosen.statistics,
        }
        self.notes += chosen.notes
        self._widths = widths
        return narrowing

    def _begin_to_round(self) -> None:
        import torch

        from lepton_compress.compress import aware
        from lepton_compress.during_training.rounding import redirect

        params = self.settings.aware
        assert params is not None  # noqa: S101 - checked by the caller
        where = next((each.device for each in self.module.parameters()), torch.device("cpu"))
        if where.type != "cpu":
            raise InputError(
                f"quantize_aware works on the CPU here, and the model is on {where}",
                where=WHERE,
                mend="move it, or use the step quantize_aware of a run",
            )
        decided = aware.decide(self._model, params, self._context)
        if isinstance(decided, StepOutcome):
            raise InputError(
                decided.notes[0],
                where=f"{WHERE}: quantize_aware",
                mend="drop it, and quantise what was trained: compress(steps=['quantize'])",
            )
        decided.traced.adopt(self.module)
        network = aware.build(decided, params, self._context)
        names = [spec.name for spec in self._model.inputs]
        self._rounded = (decided, network, redirect(self.module, network.graph, names))

    def _carried(self, model: Model) -> StepOutcome:
        from lepton_compress.compress import aware

        assert self._rounded is not None  # noqa: S101 - checked by the caller
        assert self.settings.aware is not None  # noqa: S101 - likewise
        decided, network, _ = self._rounded
        network.graph.eval()
        about = {"updates": self.updates - self.settings.round_at}
        made = aware.carried(
            model, decided, network, self.settings.aware, self._context, about, self.notes
        )
        return replace(made, statistics={**self.statistics, **made.statistics})

    def release(self) -> None:
        """Give the module its own forward() back."""
        if self._rounded is not None:
            self._rounded[2]()

    def _lacks(self) -> int:
        """The update at which the last thing is due that has not been done; 0 if all is."""
        due = [*self.settings.portions]
        due += [self.settings.round_at + 1] if self.settings.aware else []
        return max(due) if max(due) > self.updates else 0


def _width(before: int, after: int, share: float) -> int:
    """Channels when this share of those that shall go have gone."""
    return before - round((before - after) * share)


def _refuse_wrapped(model: torch.nn.Module) -> None:
    """Wrappers hold on to the parameters and the forward() that they were given."""
    from torch.nn.parallel import DataParallel, DistributedDataParallel

    wrappers = {"OptimizedModule": "torch.compile"}
    wrappers |= {each.__name__: each.__name__ for each in (DataParallel, DistributedDataParallel)}
    name = type(model).__name__
    if name in wrappers:
        raise InputError(
            f"the model is wrapped by {wrappers[name]}",
            where=WHERE,
            mend="give the module inside, and wrap it after the session",
        )
