"""The steps `restore` and `restore_graph`: what was trained outside of a run, from files."""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import Field

from lepton_compress.artifacts import Model, StepContext, StepOutcome
from lepton_compress.errors import InputError
from lepton_compress.load import forms
from lepton_compress.registry import Params, plugin

ABOUT = "training.json"
"""What the session that saved it says of itself: `statistics` and `notes`."""
_MEND = "save it again from the model that this run is given"


class Restore(Params):
    """Where it lies."""

    folder: str = Field(description="As `TrainingSession.save(folder)` has written it.")

    def files(self) -> tuple[str, ...]:
        return tuple(f"{self.folder}/{name}" for name in (forms.STRUCTURE, forms.WEIGHTS, ABOUT))


class RestoreGraph(Restore):
    """Where it lies."""

    def files(self) -> tuple[str, ...]:
        return tuple(f"{self.folder}/{name}" for name in (forms.GRAPH, ABOUT))


@plugin("step", "restore", Restore, form="module")
def restore(model: Model, params: Restore, context: StepContext) -> StepOutcome:
    """Takes widths and weights that a training script has saved, for example pruned ones."""
    return _restored(model, context.folder / params.folder)


@plugin("step", "restore_graph", RestoreGraph, form="module", gives="graph", quantizes=True)
def restore_graph(model: Model, params: RestoreGraph, context: StepContext) -> StepOutcome:
    """Takes a quantised graph that a training script has saved."""
    return _restored(model, context.folder / params.folder)


def _restored(model: Model, folder: Path) -> StepOutcome:
    about = _about(folder / ABOUT)
    try:
        made = forms.load(folder, functools.partial(forms.duplicate, model))
    except Exception as error:  # safetensors, protobuf and torch have errors of their own
        said = str(error).strip().split("\n")[0] or type(error).__name__
        raise InputError(f"cannot be restored ({said})", where=str(folder), mend=_MEND) from error
    names = [spec.name for spec in model.inputs]
    if [spec.name for spec in made.inputs] != names:
        said = f"takes other inputs than {', '.join(names)}"
        raise InputError(said, where=str(folder), mend=_MEND)
    changed = made.form != model.form or forms.fingerprint(made) != forms.fingerprint(model)
    notes = tuple(map(str, about.get("notes", ())))
    if not changed:
        notes += ("what it holds is the model as it is",)
    return StepOutcome(made, changed=changed, statistics=about.get("statistics", {}), notes=notes)


def _about(path: Path) -> Mapping[str, Any]:
    try:
        held = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"cannot be read ({error})", where=str(path), mend=_MEND) from error
    if not isinstance(held, dict):
        raise InputError("holds no mapping", where=str(path), mend=_MEND)
    return held
