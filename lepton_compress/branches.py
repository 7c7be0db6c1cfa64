"""The tree of variants: planned first, then made, each node once.

A candidate is a path from the root (the user's model) through its steps. Steps that work on an
ONNX graph are preceded by a lowering. Nodes are addressed by everything that determines them, so
common beginnings are one node and finished ones come from the store.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import json
import logging
import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lepton_compress import launched, registry
from lepton_compress.artifacts import (
    Candidate,
    Form,
    Model,
    Observer,
    Place,
    StepContext,
    StepOutcome,
    StepRecord,
)
from lepton_compress.errors import InputError, PluginError
from lepton_compress.job import Job, open_other
from lepton_compress.load import forms
from lepton_compress.load.references import reference_digest
from lepton_compress.provenance import code_digest, cpu, file_code_digest, file_digest
from lepton_compress.recipe import BASELINE, TRANSFER, StepUse, TargetSpec
from lepton_compress.registry import Plugin
from lepton_compress.store import Entry, Store, key

LOWER = "lower"
_LOWERING = Path(__file__).parent / "export" / "lower.py"
_NOT_SIMPLIFIED = "not simplified: onnxsim would hold the whole model in memory"
_PREPARED = ("model", TRANSFER)
"""The place of what is done to the model before it is the original."""
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Node:
    """A state of the model. `step` is None for the root and for a lowering; `place` is where the
    recipe names the step first."""

    key: str
    form: Form
    parent: Node | None
    step: StepUse | None = None
    place: tuple[str | int, ...] = ()

    @property
    def label(self) -> str:
        """What made it: `model`, `lower` or the step's name."""
        if self.parent is None:
            return "model"
        return self.step.name if self.step else LOWER

    @property
    def title(self) -> str:
        """The steps that lead here, for people."""
        return " > ".join(each.label for each in self.path() if each.parent is not None)

    def path(self) -> Iterator[Node]:
        """From the root to this node."""
        if self.parent is not None:
            yield from self.parent.path()
        yield self


def plan(job: Job) -> dict[str, Node]:
    """Candidate to the node whose graph is exported, baseline first. Computes nothing."""
    planned = {BASELINE: _lowered(job, _root(job))}
    for variant, steps in job.recipe.variants.items():
        planned[variant] = reached(job, variant, enumerate(steps))
    return planned


def reached(job: Job, variant: str, steps: Iterable[tuple[int, StepUse]]) -> Node:
    """The node whose graph is exported after some steps of a variant, each with its place there."""
    node = _root(job)
    for index, step in steps:
        node = _stepped(job, node, step, ("variants", variant, index))
    return _lowered(job, node)


def _root(job: Job) -> Node:
    mark = key("root", model=job.origin.fingerprint, data=job.data.fingerprint)
    root = Node(mark, job.origin.form, None)
    if job.recipe.model.transfer is not None:
        root = _stepped(job, root, job.recipe.model.transfer, _PREPARED)
    return root


def _lowered(job: Job, node: Node) -> Node:
    if node.form == "graph" and node.parent is not None:
        return node
    # An ONNX file is cleaned by the code that lowers, so that the baseline is like its variants.
    code = file_code_digest(_LOWERING)
    mark = key(LOWER, parent=node.key, code=code, data=job.data.fingerprint)
    return Node(mark, "graph", node)


def _stepped(job: Job, node: Node, step: StepUse, place: tuple[str | int, ...]) -> Node:
    plugin = registry.get("step", step.name)
    if plugin.form == "graph":
        node = _lowered(job, node)
    form: Any = plugin.gives or node.form
    # Such a step lowers on its way, so that it depends on how.
    lowering = {"lower": file_code_digest(_LOWERING)} if form != node.form else {}
    with told_of(job.source.where(*place)):
        others = [open_other(job, each).fingerprint for each in step.bound().models()]
    mark = key(
        "step",
        parent=node.key,
        step=step.name,
        parameters=step.bound().model_dump(mode="json"),
        files=_files(job, step, place),
        code=code_digest(plugin.function),
        data=job.data.fingerprint,
        model=job.origin.fingerprint,
        seed=job.recipe.seed,
        threads=job.recipe.threads,
        # Steps choose by it, and sums differ in their last bits from one to the next.
        processor=[cpu()["machine"], cpu()["extensions"]],
        **({"models": others} if others else {}),
        **(_measured_by(job) if plugin.measures and step.bound().measured else {}),
        **({"multiple": multiple(job)} if step.bound().aligns else {}),
        **(_trained_by(job) if plugin.trains else {}),
        **_called(job, step, place),
        **lowering,
    )
    return Node(mark, form, node, step, place)


def places(job: Job) -> tuple[Place, ...]:
    """The recipe's targets on this machine that run graphs: a step that measures does so there."""
    return tuple(
        Place(each.name, each.runtime, each.batch, each.threads)
        for each in job.recipe.targets
        if _runs_graphs(each)
    )


def multiple(job: Job) -> int:
    """What widths are a multiple of so that no target has anything idle; 8 where none says."""
    told = [each.channels_multiple for each in job.recipe.targets]
    return math.lcm(*(each for each in told if each)) if any(told) else 8


def _untimed(job: Job) -> tuple[str, ...]:
    """The names of the other targets."""
    return tuple(each.name for each in job.recipe.targets if not _runs_graphs(each))


def _runs_graphs(target: TargetSpec) -> bool:
    runtime = registry.get("runtime", target.runtime)
    return not target.host and not runtime.simulates and "onnx" in runtime.formats


def _measured_by(job: Job) -> dict[str, Any]:
    """What a step that measures depends on beside its parameters."""
    targets = [dataclasses.asdict(place) for place in places(job)]
    return {"targets": targets, "untimed": _untimed(job), **_judged_by(job)}


def _judged_by(job: Job) -> dict[str, Any]:
    """What a step depends on that looks at the first metric."""
    return {"metric": [job.metrics[0].mark, job.around.mark] if job.metrics else None}


def _trained_by(job: Job) -> dict[str, Any]:
    """What a step that trains depends on: what judges it, and how many share each batch."""
    processes = launched.count()
    return _judged_by(job) | ({"processes": processes} if processes > 1 else {})


def _called(job: Job, step: StepUse, place: tuple[str | int, ...]) -> dict[str, Any]:
    """Digest of the code of the user's functions that a step calls."""
    named = step.bound().references()
    with told_of(job.source.where(*place)):
        found = {each: reference_digest(each, job.source.folder) for each in named}
    return {"calls": found} if found else {}


def _files(job: Job, step: StepUse, place: tuple[str | int, ...]) -> dict[str, str]:
    """Digest of each file that a step reads."""
    found = {}
    for name in step.bound().files():
        path = job.source.folder / name
        if not path.is_file():
            where = job.source.where(*place)
            raise InputError(f"no such file {name}", where=where, mend="paths are of the recipe's")
        found[name] = file_digest(path)
    return found


class Branches:
    """Makes nodes and keeps what was made during one run."""

    def __init__(self, job: Job, store: Store, observer: Observer) -> None:
        self.job = job
        self.store = store
        self.observer = observer
        self._models: dict[str, Model] = {}
        self._entries: dict[str, Entry] = {}

    def entry(self, node: Node) -> Entry:
        """The stored result of a node, made now if need be (and before it, its parents)."""
        if node.key not in self._entries:
            made = self.store.make(node.key, node.label, functools.partial(self._build, node))
            _log.info("%s %s %s", node.label, node.key[:12], "made" if made.fresh else "reused")
            self._entries[node.key] = made
            held = self._models.get(node.key)
            if held is not None and held.folder is not None:
                # It was made in a folder that has since been renamed.
                self._models[node.key] = held.replace(folder=made.folder)
        return self._entries[node.key]

    def model(self, node: Node) -> Model:
        """The model at a node, in memory. Callers must not change it."""
        if node.key not in self._models:
            if node.parent is None:
                self._models[node.key] = self.job.origin.build()
            else:
                entry = self.entry(node)
                # Making the entry may just have left the model here.
                if node.key not in self._models:
                    self._models[node.key] = self._loaded(entry.folder)
        return self._models[node.key]

    def join(self, key: str, planned: Iterable[Node]) -> None:
        """Carry out a step beside the process that keeps what comes out.

        Args:
            planned: ends of all paths that the run may take; the step is on one of them.
        """
        paths = (node.path() for node in planned)
        node = next(each for path in paths for each in path if each.key == key)
        assert node.parent is not None  # noqa: S101 - a step has something before it
        self._step(node, self.model(node.parent), Path())

    def _original(self, node: Node) -> Model:
        """A fresh copy of what the variants start from, for a step on the model at a node."""
        for each in node.path():
            if each.place == _PREPARED:
                return forms.duplicate(self.model(each))
        return self.job.origin.build()

    def candidate(self, name: str, node: Node) -> Candidate:
        """What is known of a finished candidate."""
        records = [_record(self.entry(each)) for each in node.path() if each.parent is not None]
        about = self.entry(node).details["graph"]
        parent = None if name == BASELINE else BASELINE
        return Candidate(name, node.key, parent, tuple(records), about["parameters"], about["macs"])

    def context(self, node: Node, user: Callable[..., Any]) -> StepContext:
        """What a step on the model at a node may use.

        Args:
            user: the step's function; what it remembers depends on its code.
        """

        def remember(label: str, about: Mapping[str, Any], build: Callable[[], Any]) -> Any:
            mark = key(
                label,
                parent=node.key,
                code=code_digest(user),
                data=self.job.data.fingerprint,
                model=self.job.origin.fingerprint,
                seed=self.job.recipe.seed,
                processor=cpu(),
                about=about,
            )
            return self.store.make(mark, label, lambda _: {"value": build()}).details["value"]

        return StepContext(
            data=self.job.data,
            original=functools.partial(self._original, node),
            seed=self.job.recipe.seed,
            threads=self.job.recipe.threads,
            observer=self.observer,
            targets=places(self.job),
            metric=self.job.first_metric if self.job.metrics else None,
            folder=self.job.source.folder,
            lower=lambda model: self._lower(model).model,
            untimed=_untimed(self.job),
            multiple=multiple(self.job),
            remember=remember,
            metric_mark=self.job.metrics[0].mark + self.job.around.mark if self.job.metrics else "",
        )

    def _build(self, node: Node, folder: Path) -> dict[str, Any]:
        parent = node.parent
        if parent is None:
            raise PluginError("the root of the tree is not a stored result")
        before = self.model(parent)
        start = time.perf_counter()
        with self.observer.work(node.title):
            outcome = self._step(node, before, folder) if node.step else self._lower(before)
            seconds = time.perf_counter() - start
            # What goes on is what was saved, so that an interrupted run goes on with the same.
            self._models[node.key] = self._saved(node, outcome.model, folder)
        details: dict[str, Any] = {
            "step": node.label,
            "parameters": node.step.bound().model_dump(mode="json") if node.step else {},
            "seconds": round(seconds, 3),
            "statistics": outcome.statistics,
            "notes": list(outcome.notes),
            "declined": outcome.declined,
            "unmet": outcome.unmet,
        }
        if node.form == "graph":
            details["graph"] = _facts(self._models[node.key])
        return json.loads(json.dumps(details, allow_nan=False))  # type: ignore[no-any-return]

    def _lower(self, before: Model) -> StepOutcome:
        from lepton_compress.export import lower

        with told_of(self.job.origin.where):
            if before.form != "graph":
                return StepOutcome(lower.lower(before, self.job.data.calibration), changed=True)
            large = before.folder is not None
            cleaned = (lower.tidy if large else lower.clean)(before.value)
        made = Model("graph", cleaned, *forms.signature(cleaned), before.folder)
        return StepOutcome(made, changed=True, notes=(_NOT_SIMPLIFIED,) if large else ())

    def _saved(self, node: Node, model: Model, folder: Path) -> Model:
        try:
            original = self.job.origin.build() if model.built is None else self._other(model.built)
            forms.save(model, original, folder)
        except PluginError as error:
            raise PluginError(error.problem, where=f"step {node.label}") from error
        return self._loaded(folder)

    def _loaded(self, folder: Path) -> Model:
        return forms.load(folder, self.job.origin.build, self._other)

    def _other(self, given: Mapping[str, Any]) -> Model:
        return open_other(self.job, given).build()

    def _step(self, node: Node, before: Model, folder: Path) -> StepOutcome:
        step, parent = node.step, node.parent
        assert step is not None  # noqa: S101 - the caller has looked
        assert parent is not None  # noqa: S101 - a step has something before it
        plugin = registry.get("step", step.name)
        context = dataclasses.replace(
            self.context(parent, plugin.function),
            scratch=folder,
            checkpoints=self.store.unfinished(node.key) if plugin.trains else None,
            open=self._other,
        )
        where = self.job.source.where(*node.place)
        if before.folder is not None and not plugin.streams:
            raise InputError(
                f"{step.name} holds a model in memory, and this one is too large for that",
                where=where,
                mend=f"known to stream are {', '.join(_streaming())}",
            )
        mark = forms.fingerprint(before)
        if plugin.trains and not launched.rank():
            launched.call(node.key)
        with told_of(where):
            outcome: StepOutcome = plugin.call(before, step.bound(), context)
        _check_claims(plugin, mark, before, outcome)
        if not outcome.changed and not outcome.declined:
            reason = "; ".join(outcome.notes) or "no reason given"
            raise InputError(
                f"the step {step.name} matches nothing in this model ({reason})",
                where=where,
                mend="change its parameters or drop it",
            )
        return outcome


def _streaming() -> list[str]:
    """Names of the steps that take large graphs."""
    return [name for name in registry.names("step") if registry.get("step", name).streams]


@contextlib.contextmanager
def told_of(where: str) -> Iterator[None]:
    """Tell the user's mistakes with the place that they belong to."""
    try:
        yield
    except InputError as error:
        place = where if error.where in ("", "model") else f"{where}: {error.where}"
        raise InputError(error.problem, where=place, mend=error.mend) from error


def _check_claims(plugin: Plugin, mark: str, before: Model, outcome: StepOutcome) -> None:
    """Hold a step to what it says of itself."""
    where = f"step {plugin.name} ({plugin.origin})"
    if not isinstance(outcome, StepOutcome):
        raise PluginError(f"returned {type(outcome).__name__}, not a StepOutcome", where=where)
    if forms.fingerprint(before) != mark:
        raise PluginError("changed the model it was given instead of a copy", where=where)
    try:
        json.dumps(outcome.statistics, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise PluginError(f"its statistics are not JSON ({error})", where=where) from error
    differs = forms.fingerprint(outcome.model) != mark
    if outcome.changed and outcome.declined:
        raise PluginError("declined to change the model, but says it did", where=where)
    if outcome.changed and not differs:
        raise PluginError("says it changed the model, but the model is the same", where=where)
    if not outcome.changed and differs:
        raise PluginError("says it changed nothing, but the model differs", where=where)


def _record(entry: Entry) -> StepRecord:
    about = entry.details
    return StepRecord(
        step=about["step"],
        parameters=about["parameters"],
        seconds=about["seconds"],
        changed=not about["declined"],
        cached=not entry.fresh,
        statistics=about["statistics"],
        notes=tuple(about["notes"]),
        declined=about["declined"],
        unmet=about["unmet"],
    )


def _facts(model: Model) -> dict[str, Any]:
    from lepton_compress import graph

    return {
        "parameters": graph.parameter_count(model.value),
        "macs": graph.multiply_accumulates(model.value),
        "inputs": [[spec.name, spec.dtype, list(spec.shape)] for spec in model.inputs],
        "outputs": list(model.outputs),
    }
