"""From what a user has (a picture, a recording, a text, an array) to what an artifact takes."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from lepton_compress.artifacts import Json, TensorSpec
from lepton_compress.errors import InputError
from lepton_compress.load import pictures, sound, text
from lepton_compress.predict.manual import Manual, single_input

if TYPE_CHECKING:
    import numpy as np

    from lepton_compress.targets.runner import Runner

    Feeds = dict[str, np.ndarray]

_ARRAYS = (".npy", ".npz")
_CONVERT = "give --convert to convert it"


def read(given: str, manual: Manual, runner: Runner, *, convert: bool) -> tuple[Feeds, list[str]]:
    """The artifact's inputs for one or more samples, and notes on what was converted.

    Args:
        given: a path, or the text itself for an artifact that takes text.
        convert: bring pictures of other modes or sizes, and recordings of other rates or widths,
            to what the artifact takes.

    Raises:
        InputError: it cannot be read, or does not fit.
    """
    path = Path(given)
    texts = any(each.get("kind") == "text" for each in manual.inputs.values())
    # A text may end in such a name, too.
    if path.suffix.lower() in _ARRAYS and (not texts or path.is_file()):
        return _arrays(path, runner), []
    spec = single_input(manual, runner)
    about = manual.inputs.get(spec.name, {})
    kind = about.get("kind")
    if kind == "text":
        feeds, notes = _text(given, manual, spec)
        if path.is_file():
            notes.append("this is the name of a file; what was read is the name")
        return feeds, notes
    if not path.is_file():
        raise InputError("no such file", where=given or "''")
    if kind == "image":
        array, notes = picture(path, about, convert=convert)
    elif kind == "audio":
        array, notes = recording(path, about, convert=convert)
    else:
        raise InputError(
            f"does not say how its input {spec.name} {spec.dtype}{list(spec.shape)} is made",
            where=str(manual.path),
            mend="give an .npy or .npz file, or attach `preprocess` in the recipe",
        )
    return {spec.name: array[None]}, notes


def picture(
    path: Path, about: Mapping[str, Json], *, convert: bool
) -> tuple[np.ndarray, list[str]]:
    """Unsigned bytes (height, width, channels) of a picture file.

    Raises:
        InputError: it is none, or of another mode or size and not to be converted.
        MissingExtraError: Pillow is not installed.
    """
    mode: pictures.Mode = "rgb" if about["channels"] == 3 else "grey"
    held = pictures.opened(path.read_bytes(), str(path))
    notes, size = [], None
    if held.mode != pictures.MODES[mode]:
        if not convert:
            said = f"has the mode {held.mode}; the artifact takes {pictures.MODES[mode]}"
            raise InputError(said, where=str(path), mend=_CONVERT)
        notes.append(f"converted from {held.mode} to {pictures.MODES[mode]}")
    if about.get("size") and list(held.size) != about["size"][::-1]:
        height, width = size = about["size"]
        if not convert:
            raise InputError(
                f"is {held.height} by {held.width}; the artifact takes {height} by {width}",
                where=str(path),
                mend=f"{_CONVERT}, or give `size` to `preprocess: image` in the recipe",
            )
        notes.append(f"resized from {held.height} by {held.width}")
    return pictures.fitted(held, str(path), mode=mode, convert=convert, size=size), notes


def recording(
    path: Path, about: Mapping[str, Json], *, convert: bool
) -> tuple[np.ndarray, list[str]]:
    """int16 (samples) of a WAV file, cut or filled up with silence.

    Raises:
        InputError: it is silent, or as `decoded`.
    """
    made, notes = decoded(path, about, int(about["samples"]), convert=convert)
    if not len(made):
        raise InputError("is silent", where=str(path))
    return made, notes


def decoded(
    path: Path, about: Mapping[str, Json], samples: int | None, *, convert: bool
) -> tuple[np.ndarray, list[str]]:
    """int16 (samples) of a WAV file at the artifact's rate, and notes.

    Args:
        samples: to cut or fill up to, none of a silent one; None leaves its length.

    Raises:
        InputError: it is none, or of another rate, width or number of channels and not to be
            converted.
    """
    import numpy as np

    rate = int(about["rate"])
    held = sound.read_wav(path.read_bytes(), str(path))
    if held.rate != rate and not convert:
        raise InputError(
            f"is of {held.rate} Hz; the artifact takes {rate} Hz", where=str(path), mend=_CONVERT
        )
    length = -(-len(held.signal) * rate // held.rate)
    most = max(1, length) if samples is None else samples
    form = sound.Form(rate, most, trim=None, convert=convert)
    try:
        made, notes = sound.fit(held, form)
    except InputError as error:
        raise InputError(error.problem, where=str(path), mend=_CONVERT) from error
    if samples is None and not len(made):
        made = np.zeros(length, np.int16)
    return made, list(notes)


def _text(given: str, manual: Manual, spec: TensorSpec) -> tuple[Feeds, list[str]]:
    host = manual.host(spec.name)
    if host is None:
        raise InputError("does not say how text becomes numbers", where=str(manual.path))
    if not given.strip():
        raise InputError("the text is empty", where="predict")
    try:
        whole = given.encode()
    except UnicodeEncodeError as error:  # Python keeps an argument's odd bytes as half characters
        raise InputError(
            f"the text is not UTF-8 at character {error.start + 1}", where="predict"
        ) from error
    most = manual.inputs[spec.name]["raw"][1][0]
    notes = [f"cut to {most} bytes"] if len(whole) > most else []
    raw = text.padded([text.cut(given, most)], most)
    made = host.apply(raw)
    if host.notes is not None:
        notes += host.notes(raw)
    return {spec.name: made}, notes


def _arrays(path: Path, runner: Runner) -> Feeds:
    """Arrays of samples, as the artifact takes them.

    Raises:
        InputError: the file is none, or lacks an input.
    """
    import numpy as np

    try:
        held = np.load(path, allow_pickle=False)
        if isinstance(held, np.ndarray):
            found = {runner.inputs[0].name: held} if len(runner.inputs) == 1 else {}
        else:
            with held:
                found = {name: held[name] for name in held.files}
        if not all(isinstance(array, np.ndarray) for array in found.values()):
            raise ValueError("it holds other files")
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        said = "no such file" if isinstance(error, FileNotFoundError) else f"no arrays ({error})"
        raise InputError(said, where=str(path), mend="give what numpy.save writes") from error
    made: Feeds = {}
    for spec in runner.inputs:
        if spec.name not in found:
            mend = f"has {', '.join(found)}" if found else "give an .npz with an array for each"
            raise InputError(f"has no array {spec.name!r}", where=str(path), mend=mend)
        array = found[spec.name]
        array = array[None] if array.ndim == len(spec.shape) - 1 else array
        made[spec.name] = array
        sides = zip(spec.shape, array.shape, strict=False)
        wanted = tuple(have if isinstance(want, str) else want for want, have in sides)
        fits = len(array.shape) == len(spec.shape) and array.shape == wanted
        if not fits or array.dtype.name != spec.dtype or not len(array):
            raise InputError(
                f"{spec.name} is {array.dtype}{list(array.shape)}; the artifact takes "
                f"{spec.dtype}{list(spec.shape)}",
                where=str(path),
            )
    return made
