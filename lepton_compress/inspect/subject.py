"""What `inspect` was given, and who can read it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lepton_compress.artifacts import RunResult
from lepton_compress.errors import InputError, RecipeError
from lepton_compress.inspect.onnx_file import inspect_onnx
from lepton_compress.inspect.torch_model import (
    Factory,
    inspect_factory,
    inspect_program,
    read_shape,
)
from lepton_compress.inspect.weights_file import inspect_weights
from lepton_compress.load.forms import GRAPH
from lepton_compress.overviews import (
    CandidateRow,
    EntryOverview,
    Inspection,
    RangesOverview,
    ResultOverview,
)
from lepton_compress.ranges import is_ranges, read_ranges
from lepton_compress.report.folder import RESULT, read_result

ENTRY = "entry.json"
_KNOWN = "an .onnx, .pt2 or .safetensors file, path.py:factory, or the folder of a run"
_READERS = {".onnx": inspect_onnx, ".pt2": inspect_program, ".safetensors": inspect_weights}

Found = Inspection | ResultOverview | EntryOverview | RangesOverview


def inspect(
    subject: str,
    *,
    args: str = "{}",
    weights: Path | None = None,
    shapes: tuple[str, ...] = (),
    trust_pickle: bool = False,
) -> Found:
    """Facts of a model, a file of weights, a run, a kept result or saved ranges.

    Args:
        subject: a path, or a reference to a factory, relative to the current folder.
        args: keyword arguments of a factory, as a JSON object.
        weights: a file to load into what a factory makes.
        shapes: inputs of a factory's model, each `name=dtype[batch,dim,...]`.
        trust_pickle: load weights that can run code.

    Raises:
        InputError: it is none of these, or cannot be read.
        RecipeError: an option is malformed, or goes with a factory only.
    """
    path = Path(subject)
    if ":" in subject and not path.exists():
        inputs = tuple(read_shape(each) for each in shapes)
        factory = Factory(subject, _arguments(args), weights, inputs, trust_pickle)
        return inspect_factory(factory, Path.cwd())
    if weights or shapes or args != "{}":
        raise RecipeError(
            "--weights, --args and --shape go with a factory",
            where=subject,
            mend="give path.py:factory, or drop them",
        )
    if not path.exists():
        raise InputError("no such file", where=subject, mend=f"give {_KNOWN}")
    if path.is_dir():
        return _folder(path)
    if path.name == ENTRY:
        return _entry(path.parent)
    if path.suffix == ".json" and is_ranges(path):
        held = read_ranges(path).model_dump(exclude={"kind", "version"})
        return RangesOverview(subject=str(path), **held)
    if path.suffix == ".json":
        return _result(path)
    if path.suffix not in _READERS:
        mend = f"give {_KNOWN}"
        if path.suffix in (".pt", ".pth", ".ckpt", ".bin"):
            mend = f"a checkpoint holds no model; give path.py:factory --weights {subject}"
        raise InputError("is no model, run or kept result", where=subject, mend=mend)
    return _READERS[path.suffix](path)


def _arguments(text: str) -> Mapping[str, Any]:
    try:
        args = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise RecipeError(f"is not JSON ({error})", where="--args") from error
    if not isinstance(args, dict):
        raise RecipeError(
            "is not a JSON object", where="--args", mend="""write for example '{"width": 32}'"""
        )
    return args


def _folder(path: Path) -> Found:
    if (path / RESULT).is_file():
        return _result(path)
    if (path / ENTRY).is_file():
        return _entry(path)
    raise InputError(f"holds neither {RESULT} nor {ENTRY}", where=str(path), mend=f"give {_KNOWN}")


def _result(path: Path) -> ResultOverview:
    result = read_result(path)
    rows = tuple(
        CandidateRow(
            candidate=candidate.id,
            steps=tuple(record.step for record in candidate.history),
            parameters=candidate.parameters,
            macs=candidate.macs,
            format=artifact.format,
            path=artifact.path,
            bytes=artifact.bytes,
            operators=artifact.operators,
            chosen_on=_chosen_on(result, candidate.id, artifact.format),
        )
        for candidate in result.candidates
        for artifact in result.artifacts
        if artifact.candidate == candidate.id
    )
    return ResultOverview(str(path), result.recipe, result.started, result.passed, rows)


def _chosen_on(result: RunResult, candidate: str, format: str) -> tuple[str, ...]:
    return tuple(
        choice.target
        for choice in result.chosen
        if (choice.candidate, choice.format) == (candidate, format)
    )


def _entry(folder: Path) -> EntryOverview:
    try:
        about = json.loads((folder / ENTRY).read_text(encoding="utf-8"))
        key, label, details = str(about["key"]), str(about["label"]), dict(about["details"])
        files = tuple(sorted(map(str, about["files"])))
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise InputError(
            f"is not a kept result, or is damaged ({error})",
            where=str(folder / ENTRY),
            mend="the next run makes it again",
        ) from error
    held = next((name for name in (GRAPH, *files) if name in files and _readable(name)), None)
    model = _READERS[Path(held).suffix](folder / held) if held else None
    size = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
    return EntryOverview(str(folder), label, key, size, files, details, model)


def _readable(name: str) -> bool:
    return Path(name).suffix in _READERS
