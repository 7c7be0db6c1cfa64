"""What the command was given: an artifact, its float counterpart, and real data."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lepton_compress import provenance, recipe
from lepton_compress.accounts import Explanation
from lepton_compress.artifacts import Artifact, Candidate, Dataset, Observer, RunResult, Split
from lepton_compress.errors import InputError, RecipeError
from lepton_compress.explain import account
from lepton_compress.explain.diagnose import diagnose
from lepton_compress.job import artifact_data
from lepton_compress.load.forms import signature
from lepton_compress.load.model import external_files, read_onnx_file
from lepton_compress.registry import nearest
from lepton_compress.report import folder
from lepton_compress.targets.frames import METADATA
from lepton_compress.units import show_bytes

if TYPE_CHECKING:
    import onnx

_INTEGER = {"QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear", "QLinearConv"}
LITERT = ".tflite"
_LARGEST = 2_000_000_000
"""Bytes that protobuf takes in one message."""
_DEEP = 3
"""Folders above an artifact in which its run's result.json may stand."""


@dataclass(frozen=True)
class Subject:
    """An artifact, and what its run tells of it. `run` is None for a file of its own."""

    path: Path
    candidate: str = ""
    run: RunResult | None = None


def explain(
    artifact: str,
    *,
    against: Path | None,
    recipe_path: Path | None,
    data: Path | None,
    calibration: Path | None,
    samples: int,
    extensions: str | None,
    observer: Observer,
) -> Explanation:
    """Measure an artifact and name the likely causes of what it lost.

    Args:
        artifact: an .onnx file, or `run folder:candidate`.
        against: its float counterpart; looked for in its run by default.
        recipe_path, data: where real samples come from; one of them, or neither for a run that
            knows its recipe.
        calibration: an .npz of what it was calibrated on.
        extensions: comma-separated vector extensions to judge for; this machine's by default.

    Raises:
        UserError: a file is missing or cannot be used.
    """
    if recipe_path and data:
        raise RecipeError("goes with --data or --recipe, not with both", where="explain")
    if against is not None and not against.is_file():
        raise InputError("no such file", where=str(against), mend="give an .onnx file")
    subject = find(artifact)
    if subject.path.suffix == LITERT:
        raise InputError(
            "is a LiteRT file, of which layers alone are explained",
            where=str(subject.path),
            mend="add --layers, or explain the .onnx artifact of the same candidate",
        )
    reference, notes = (against, ()) if against else counterpart(subject)
    model = read_graph(subject.path)
    if any(each.key == METADATA for each in model.metadata_props):
        raise InputError(
            "is a step model, which is not explained",
            where=str(subject.path),
            mend="explain what is exported with `recurrent: sequence`",
        )
    plain = read_graph(reference) if reference else None
    split, calibrated, more = samples_of(subject, model, recipe_path, data)
    if calibration is not None:
        calibrated = _read_npz(calibration, model)
    count = _calibration_samples(subject)
    cpu = provenance.cpu()
    request = account.Request(
        artifact=subject.path,
        reference=reference,
        evaluation=named(model, split),
        calibration=_first(named(model, calibrated), count) if calibrated else None,
        samples=samples,
        extensions=tuple(extensions.split(",")) if extensions else tuple(cpu["extensions"]),
        machine="x86_64" if extensions and "avx" in extensions else cpu["machine"],
        calibration_samples=count or (len(calibrated) if calibrated else None),
        notes=(*notes, *more),
    )
    made = account.make(request, model, plain, observer)
    return Explanation(made, diagnose(made))


def read_graph(path: Path) -> onnx.ModelProto:
    """A graph small enough to be run with further outputs.

    Raises:
        InputError: it is no ONNX file, or too large.
    """
    size = sum(file.stat().st_size for file in (path, *external_files(path)))
    if size > _LARGEST:
        raise InputError(
            f"is too large to be measured layer by layer ({show_bytes(size)})",
            where=str(path),
            mend=f"explain a smaller model of the same kind, up to {show_bytes(_LARGEST)}",
        )
    return read_onnx_file(path)


def find(artifact: str, suffix: str = ".onnx") -> Subject:
    """The artifact that a path, or `run folder:candidate`, names.

    Args:
        suffix: of the file that a candidate's name stands for.

    Raises:
        InputError: there is no such file or candidate.
    """
    path = Path(artifact)
    if not path.exists() and ":" in artifact:
        place, _, candidate = artifact.rpartition(":")
        return _candidate(folder.read_result(Path(place)), Path(place), candidate, suffix)
    if not path.exists():
        mend = f"name a file ({suffix}), or run folder:candidate"
        raise InputError("no such file", where=artifact, mend=mend)
    if path.is_dir():
        run = folder.read_result(path)
        names = dict.fromkeys(each.candidate for each in run.artifacts)
        mend = f"name a candidate: {', '.join(f'{path}:{name}' for name in names)}"
        raise InputError("is a folder", where=artifact, mend=mend)
    for above in list(path.absolute().parents)[:_DEEP]:
        if (above / folder.RESULT).is_file():
            run = folder.read_result(Path(os.path.relpath(above)))
            inside = path.absolute().relative_to(above).as_posix()
            held = next((each for each in run.artifacts if each.path == inside), None)
            if held is not None and held.sha256 == provenance.file_digest(path):
                return Subject(path, held.candidate, run)
    return Subject(path)


def _candidate(run: RunResult, place: Path, candidate: str, suffix: str) -> Subject:
    names = list(dict.fromkeys(each.candidate for each in run.artifacts))
    if candidate not in names:
        raise InputError(
            f"has no candidate {candidate!r}", where=str(place), mend=nearest(candidate, names)
        )
    made = Subject(place, candidate, run)
    file = artifact_of(made, suffix)
    if file is None:
        mend = f"add `{'litert' if suffix == LITERT else 'onnx'}` to the recipe's exports"
        raise InputError(f"{candidate} has no {suffix} artifact", where=str(place), mend=mend)
    return replace(made, path=file)


def artifact_of(subject: Subject, suffix: str) -> Path | None:
    """The file of that kind that a candidate has in its run; None where it has none."""
    if subject.run is None or subject.run.folder is None:
        return None
    held = (each for each in subject.run.artifacts if each.candidate == subject.candidate)
    file = next((each for each in held if each.path.endswith(suffix)), None)
    return subject.run.folder / file.path if file else None


def counterpart(subject: Subject) -> tuple[Path | None, tuple[str, ...]]:
    """The float artifact of the same run that a candidate was quantised from, and notes.

    It is the candidate whose steps are the longest beginning of this one's: of a pruned and
    quantised variant the pruned one, not the baseline.
    """
    if subject.run is None or subject.run.folder is None:
        return None, ()
    run = subject.run
    own = next(each for each in run.candidates if each.id == subject.candidate)
    steps = _steps(own)
    fitting = [
        (len(_steps(each)), file)
        for each in run.candidates
        if _steps(each) == steps[: len(_steps(each))] and (file := _float_file(run, each))
    ]
    if not fitting:
        return None, ("no candidate of the run is its float counterpart",)
    length, file = max(fitting, key=lambda each: each[0])
    later = [name for name, _ in steps[length:]]
    if any(not name.startswith("quantize") for name in later):
        missing = " > ".join(name for name, _ in steps[: len(steps) - 1])
        return None, (f"no candidate of the run is its float counterpart ({missing})",)
    return subject.run.folder / file.path, ()


def _steps(candidate: Candidate) -> list[tuple[str, Any]]:
    return [(record.step, record.parameters) for record in candidate.history]


def _float_file(run: RunResult, candidate: Candidate) -> Artifact | None:
    """A candidate's .onnx, if nothing in it is quantised."""
    return next(
        (
            each
            for each in run.artifacts
            if each.candidate == candidate.id
            and each.path.endswith(".onnx")
            and not _INTEGER & set(each.operators)
        ),
        None,
    )


def _calibration_samples(subject: Subject) -> int | None:
    """How many samples the run says that the ranges come from."""
    if subject.run is None:
        return None
    own = next(each for each in subject.run.candidates if each.id == subject.candidate)
    told = (record.statistics.get("calibration_samples") for record in own.history)
    return next((count for count in told if isinstance(count, int)), None)


def samples_of(
    subject: Subject, model: onnx.ModelProto, recipe_path: Path | None, data: Path | None
) -> tuple[Split, Split | None, tuple[str, ...]]:
    """Evaluation samples, calibration samples where they are known, and notes."""
    if data is not None:
        return _read_npz(data, model), None, ()
    source = recipe.read(recipe_path) if recipe_path else _recipe_of(subject)
    held: Dataset = artifact_data(source)
    notes: tuple[str, ...] = ()
    if subject.run is not None and subject.run.data_fingerprint != held.fingerprint:
        notes = ("the recipe gives other data now than when this was made",)
    return held.evaluation, held.calibration, notes


def _recipe_of(subject: Subject) -> recipe.Source:
    """The recipe that a run was made from."""
    mend = "give --recipe recipe.yaml or --data data.npz"
    if subject.run is None or subject.run.folder is None:
        raise InputError("real samples are needed", where=str(subject.path), mend=mend)
    kept = folder.kept_recipe(subject.run)
    if kept is None:
        where = str(subject.run.folder)
        raise InputError("its recipe is not known any more", where=where, mend=mend)
    return kept


def _read_npz(path: Path, model: onnx.ModelProto) -> Split:
    """The model's inputs out of an .npz file, or of an .npy file if it has but one.

    Raises:
        InputError: it is no such file, or lacks an input.
    """
    import zipfile

    import numpy as np

    specs, _ = signature(model)
    try:
        opened = np.load(path, allow_pickle=False)
        if isinstance(opened, np.ndarray):
            arrays = _alone(path, opened, [spec.name for spec in specs])
        else:
            with opened as file:
                arrays = {name: file[name] for name in file.files}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, AttributeError) as error:
        said = "no such file" if isinstance(error, FileNotFoundError) else f"not an .npz ({error})"
        raise InputError(said, where=str(path), mend="give a file made by numpy.savez") from error
    missing = [spec.name for spec in specs if spec.name not in arrays]
    if missing:
        raise InputError(
            f"has no array {missing[0]!r}", where=str(path), mend=f"has {', '.join(arrays)}"
        )
    held = {spec.name: arrays[spec.name] for spec in specs}
    if not all(array.ndim and len(array) for array in held.values()):
        raise InputError("holds no samples", where=str(path))
    return Split(held)


def _alone(path: Path, array: Any, inputs: list[str]) -> Mapping[str, Any]:
    """The array of an .npy file, which is that of the only input.

    Raises:
        InputError: there are several.
    """
    if len(inputs) != 1:
        said = f"is one array, and the model takes {', '.join(inputs)}"
        raise InputError(said, where=str(path), mend="give an .npz file, made by numpy.savez")
    return {inputs[0]: array}


def named(model: onnx.ModelProto, split: Split) -> Split:
    """The samples under the model's names, float ones in the model's precision.

    Raises:
        InputError: the data has other inputs than the model.
    """
    specs, _ = signature(model)
    try:
        named = split.named([spec.name for spec in specs])
    except ValueError as error:
        raise InputError(str(error), where="data") from error
    wanted = {spec.name: spec.dtype for spec in specs}
    cast = {
        name: array.astype(wanted[name])
        if array.dtype.kind == "f" and array.dtype.name != wanted[name]
        else array
        for name, array in named.inputs.items()
    }
    return Split(cast, named.targets)


def _first(split: Split, count: int | None) -> Split:
    """What a calibration of `count` samples saw."""
    return Split({name: array[:count] for name, array in split.inputs.items()})
