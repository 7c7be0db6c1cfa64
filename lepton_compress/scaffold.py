"""A commented recipe to start from, fitted to the form of a model."""

from __future__ import annotations

import ast
import os
import re
import zipfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import yaml

from lepton_compress.artifacts import Form
from lepton_compress.errors import InputError, OutputError, RecipeError
from lepton_compress.overviews import Draft, Written
from lepton_compress.registry import nearest
from lepton_compress.store import write_atomically

BLANK = "FILL IN"
"""Stands in every comment beside something that only the user knows."""

_LABELS = ("targets", "target", "labels", "label", "y")
_WEIGHTS = (".safetensors", ".pt", ".pth")
_HEAD = """\
# A recipe for lepton-compress: what to compress, how, for where, and what must hold.
# Check it:                 lepton-compress validate {out}
# See what it will do:      lepton-compress plan {out}
# Do it:                    lepton-compress run {out}
version: 1
name: {name}
"""
_MODULE_VARIANTS = """\
# Each variant is a list of steps, run in order; common beginnings are computed once.
# `lepton-compress plugins step` lists the steps, `plugins show step prune` their parameters.
variants:
  int8:
    - quantize
  pruned:
    - prune: {to: {macs: 0.5x}}       # multiply-accumulates to keep; whole channels go
    - distil: {epochs: 10}            # train what is left to answer as the original does
  pruned-int8:
    - prune: {to: {macs: 0.5x}}
    - distil: {epochs: 10}
    - quantize
"""
_GRAPH_VARIANTS = """\
# Each variant is a list of steps, run in order; `lepton-compress plugins step` lists the steps.
# Pruning and distilling train the model: they need it as a Python factory.
variants:
  int8:
    - quantize
  int8-per-tensor:
    - quantize: {per_channel: false}  # one scale a weight: for runtimes without more
"""
_TAIL = """\
# Where the model is to run, and how it is called there.
targets:
  - {{name: edge, runtime: onnxruntime-cpu, threads: 1, batch: 1}}

# An artifact must pass every gate to be chosen; where none does, the original stays.
gates:
  drop: {drop}              # at most this much worse than the original
  latency_ratio: 0.9x     # at most this share of the original's time
  # size: 500 KB          # at most this many bytes
  # latency: 5 ms         # at most this long for one call

select: fastest           # or smallest, or most_accurate
"""


@dataclass(frozen=True)
class _Section:
    """Lines of the recipe, with what is left to fill in there and what stands in a run's way."""

    text: str
    blanks: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    counts: bool = False
    """Whether the targets are numbers rather than labels."""


def write(
    model: str, *, out: Path, data: str | None = None, weights: str | None = None, force: bool
) -> Written:
    """Draft a recipe and write it.

    Raises:
        InputError: the model, its weights or the data are not there.
        OutputError: the file exists and `force` is not set, or it cannot be written.
    """
    if out.is_dir():
        raise OutputError("is a folder", where=str(out), mend="name a file, such as recipe.yaml")
    if out.exists() and not force:
        raise OutputError(
            "exists already", where=str(out), mend="name another with --out, or pass --force"
        )
    made = draft(model, out=out, data=data, weights=weights)
    write_atomically(out, made.text)
    command = "validate" if made.blanks else "plan"
    return Written(out, made, f"lepton-compress {command} {_quoted(str(out))}")


def draft(model: str, *, out: Path, data: str | None = None, weights: str | None = None) -> Draft:
    """A recipe to start from, valid as it is.

    Args:
        model: an .onnx or .pt2 file, or `path.py:factory`.
        out: where the recipe will stand; the paths in it are relative to its folder.
        data: `path.py:load`, or an .npz file.
        weights: a file of weights for a factory.

    Raises:
        InputError: something named is not there, or of another kind.
    """
    form, key = _form(model)
    if weights and form != "module":
        raise RecipeError("goes with a factory only", where="--weights", mend="drop it")
    place = _Place(out)
    about = _model(model, key, weights, place)
    inputs = about.inputs
    samples = _data(data, inputs, place)
    metric = "mean_absolute_error" if samples.counts else "accuracy"
    others = "accuracy" if samples.counts else "top_k, mean_absolute_error"
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", _stem(model)).strip("._-")[:64] or "model"
    metrics = f"# The first counts; others: {others}, or your own (python)."
    parts = [
        _HEAD.format(name=place.scalar(name), out=out.name),
        about.section.text,
        samples.text,
        f"{metrics}\nmetrics: [{metric}]\n",
        _MODULE_VARIANTS if form == "module" else _GRAPH_VARIANTS,
        _TAIL.format(drop="0.05" if samples.counts else "1 %".ljust(4)),
    ]
    return Draft(
        text="\n".join(parts),
        form=form,
        blanks=(*about.section.blanks, *samples.blanks),
        notes=(*about.section.notes, *samples.notes),
    )


@dataclass(frozen=True)
class _Place:
    """Where the recipe will stand."""

    out: Path

    def path(self, given: str) -> str:
        """A path as the recipe writes it: relative to its own folder."""
        return self.scalar(Path(os.path.relpath(given, self.out.parent)).as_posix())

    def reference(self, given: str) -> str:
        """`path.py:name` likewise; `package.module:name` as it is."""
        place, _, name = given.rpartition(":")
        if not place.endswith(".py"):
            return self.scalar(given)
        relative = Path(os.path.relpath(place, self.out.parent)).as_posix()
        return self.scalar(f"{relative}:{name}")

    @staticmethod
    def scalar(text: str) -> str:
        """Text as YAML spells it, quoted where it must be."""
        spelled: str = yaml.safe_dump(text, width=10_000, allow_unicode=True)
        return spelled.removesuffix("...\n").strip()


@dataclass(frozen=True)
class _ModelSection:
    section: _Section
    inputs: tuple[str, ...] = ()
    """Names, where they can be known without running anything."""


def _form(model: str) -> tuple[Form, str]:
    """The form of a model, and the recipe's key for it."""
    suffix = Path(model).suffix
    if ":" in model and not Path(model).exists():
        _check_reference(model)
        return "module", "factory"
    if suffix not in (".onnx", ".pt2"):
        raise InputError(
            "is no model that a recipe can start from",
            where=model,
            mend="give an .onnx or .pt2 file, or path.py:factory",
        )
    _check_file(model)
    return ("graph", "onnx") if suffix == ".onnx" else ("program", "program")


def _model(model: str, key: str, weights: str | None, place: _Place) -> _ModelSection:
    if key == "factory":
        return _ModelSection(_factory(model, weights, place))
    text = f"model:\n  {key}: {place.path(model)}\n"
    if key == "program":
        return _ModelSection(_Section(text))
    from lepton_compress.inspect.onnx_file import inspect_onnx

    facts = inspect_onnx(Path(model))
    notes = tuple(note for note in facts.notes if "fixed batch" in note)
    return _ModelSection(_Section(text, notes=notes), tuple(each.name for each in facts.inputs))


def _factory(model: str, weights: str | None, place: _Place) -> _Section:
    lines = ["model:", f"  factory: {place.reference(model)}"]
    lines.append("  # args: {width: 32}     # keyword arguments of the factory, if it takes any")
    if weights is not None:
        _check_file(weights)
        return _Section("\n".join([*lines, f"  weights: {place.path(weights)}", ""]))
    found = _beside(model)
    if len(found) == 1:
        lines.append(f"  weights: {place.path(str(found[0]))}   # found beside the factory")
        return _Section("\n".join([*lines, ""]))
    lines.append(f"  # weights: weights.safetensors   # {BLANK}: the trained weights")
    return _Section("\n".join([*lines, ""]), blanks=("model.weights: the trained weights",))


def _beside(model: str) -> list[Path]:
    """Files of weights in the folder of a factory."""
    place = model.rpartition(":")[0]
    if not place.endswith(".py"):
        return []
    return [file for file in sorted(Path(place).parent.iterdir()) if file.suffix in _WEIGHTS]


def _data(data: str | None, inputs: tuple[str, ...], place: _Place) -> _Section:
    if data is not None and Path(data).suffix == ".npz":
        return _npz(data, inputs, place)
    head = (
        "# A function that returns {'train': ..., 'calibration': ..., 'evaluation': ...}, each a\n"
        "# pair (inputs, targets) of arrays with the samples first, or an iterable of batches.\n"
    )
    if data is not None:
        _check_reference(data)
        return _Section(f"{head}data:\n  python: {{function: {place.reference(data)}}}\n")
    text = f"{head}data:\n  python: {{function: data.py:load}}   # {BLANK}: your own\n"
    return _Section(text, blanks=("data.python.function: the function that loads your data",))


def _npz(data: str, inputs: tuple[str, ...], place: _Place) -> _Section:
    """Arrays by name: the inputs are those that the model names, or all but the targets."""
    import numpy as np

    _check_file(data)
    try:
        # numpy leaves a file that it opened itself open when it is no archive.
        with Path(data).open("rb") as raw, np.load(raw, allow_pickle=False) as file:
            names = list(file.files)
            targets = next((name for name in _LABELS if name in names), None)
            kind = file[targets].dtype.kind if targets else "i"
    except (OSError, ValueError, zipfile.BadZipFile) as error:
        raise InputError(
            f"not an .npz ({error})", where=data, mend="give a file made by numpy.savez"
        ) from error
    taken = [name for name in inputs if name in names and name != targets]
    taken = taken or [name for name in names if name != targets]
    blanks = () if targets else ("data.npz.targets: the array of labels or values to predict",)
    label = place.scalar(targets) if targets else f"targets   # {BLANK}: has {', '.join(names)}"
    listed = ", ".join(place.scalar(name) for name in taken)
    text = (
        "# Arrays with the samples first, split at random: 70 % to train, 10 % to calibrate,\n"
        "# 20 % to evaluate. `lepton-compress plugins show loader npz` tells what can be set.\n"
        f"data:\n  npz:\n    path: {place.path(data)}\n"
        f"    inputs: [{listed}]\n    targets: {label}\n"
    )
    return _Section(text, blanks=blanks, counts=kind == "f")


def _check_file(path: str) -> None:
    if not Path(path).is_file():
        raise InputError("no such file", where=path, mend="paths are relative to this folder")


def _check_reference(reference: str) -> None:
    """Look for the file, and for the name in its text; nothing is run."""
    place, _, name = reference.rpartition(":")
    if not place or not name.isidentifier():
        raise InputError(
            f"{reference!r} is not a reference to a Python object",
            mend="write path/to/file.py:name or package.module:name",
        )
    if not place.endswith(".py"):
        return
    _check_file(place)
    try:
        tree = ast.parse(Path(place).read_bytes())
    except (SyntaxError, ValueError) as error:
        raise InputError(f"is not Python ({error})", where=place) from error
    known = set(_defined(tree.body))
    if name not in known and "*" not in known:
        raise InputError(f"has no {name!r}", where=place, mend=nearest(name, sorted(known)))


def _defined(body: Iterable[ast.stmt]) -> Iterable[str]:
    """Names that statements bind, those inside `if` and `try` included."""
    for node in body:
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            yield node.name
        elif isinstance(node, (ast.Import, ast.ImportFrom)):
            yield from (each.asname or each.name.partition(".")[0] for each in node.names)
        elif isinstance(node, (ast.Assign, ast.AnnAssign)):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            yield from (each.id for each in targets if isinstance(each, ast.Name))
        elif isinstance(node, (ast.If, ast.Try)):
            yield from _defined([*node.body, *node.orelse])
            for handler in getattr(node, "handlers", []):
                yield from _defined(handler.body)


def _stem(model: str) -> str:
    return model.rpartition(":")[2] if ":" in model else Path(model).stem


def _quoted(path: str) -> str:
    import shlex

    return shlex.quote(path)
