"""The loader `wav`: recordings in a folder or a .zip, labelled by their folders or their names."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, Field

from lepton_compress.errors import InputError
from lepton_compress.load.files import locate
from lepton_compress.load.splitting import Labels, Shares
from lepton_compress.registry import plugin

LABEL = "label"
MOST_SLICES = 100
"""Values of a group of the pattern: with more it names recordings and no parts of the data."""


def _pattern(given: str) -> str:
    try:
        groups = re.compile(given).groupindex
    except re.error as error:
        raise ValueError(f"is no regular expression ({error})") from error
    if LABEL not in groups:
        raise ValueError(r"has no group named label; write for example (?P<label>\w+)_\d+\.wav")
    return given


class WavLoader(Shares):
    """Where the recordings lie, what their names say, and how each becomes one sample."""

    path: str = Field(description="A folder or a .zip, beside the recipe or in `LEPTON_DATA`.")
    sha256: str | None = Field(None, description="That a .zip must have.")
    pattern: Annotated[str, AfterValidator(_pattern)] | None = Field(
        None,
        description="Regular expression of file names with the named group `label`; its other "
        "groups are slices. By default the label is the folder that a recording lies in.",
    )
    labels: Labels = Field(
        [],
        description="All labels in the order of the model's scores; recordings with others are "
        "dropped. By default those found, numbers by value and words by the alphabet.",
    )
    hold_out: dict[str, list[str | int]] = Field(
        {},
        description="Groups of the pattern to values: the recordings to evaluate on, in place of "
        "a share, so that no speaker stands in two splits, for example.",
    )
    rate: Annotated[int, Field(strict=True, ge=1000, le=192_000)] = Field(
        description="Samples a second, in Hz; recordings of other rates are resampled, and told."
    )
    samples: Annotated[int, Field(strict=True, ge=1, le=100_000_000)] = Field(
        description="Length of a sample: longer recordings are cut, shorter ones filled up with "
        "zeros."
    )
    trim: Annotated[float, Field(gt=0)] | None = Field(
        40.0,
        description="Silence at both ends is cut off: what lies this many dB below the loudest "
        "10 ms. None leaves it.",
    )
    convert: bool = Field(
        False, description="Take several channels, averaged, and widths other than 16 bits."
    )


@plugin("loader", "wav", WavLoader)
def load_wav(params: WavLoader, folder: Path, seed: int) -> Any:
    """Reads PCM recordings of a folder or .zip as int16 (samples), with their labels as int64.

    Raises:
        InputError: there is no such file or folder, no recording or no label is found, or a
            recording cannot be read or is of another kind than asked for.
    """
    import numpy as np

    from lepton_compress.load.cleaning import clean
    from lepton_compress.load.sound import Form, Recordings, fit, read_wav
    from lepton_compress.load.splitting import part, taken

    path = locate(params.path, folder, params.sha256)
    form = Form(params.rate, params.samples, params.trim, convert=params.convert)
    with Recordings(path) as recordings:
        named, notes = _described(recordings.names, params, str(path))
        named.sort(key=lambda each: not _held(each[1], params))  # kept rather than their doubles
        signals, told = [], {"resampled": 0, "converted": 0, "cut": 0}
        for name, _ in named:
            signal, done = fit(read_wav(recordings.read(name), f"{path}/{name}"), form)
            signals.append(signal)
            for each in done:
                told[each] += 1
    words = [groups[LABEL] for _, groups in named]
    found = {word for word in words if word.strip()}  # without one a recording is dropped
    labels = params.labels or sorted(found, key=_order)
    cleaned = clean(
        {"sound": signals},
        words,
        where=str(path),
        labels=set(labels),
        named=lambda row: named[row][0],
    )
    notes += [
        f"{count} of {len(named)} recordings {_TOLD[each].format(params)}"
        for each, count in told.items()
        if count
    ]
    kept = list(cleaned.rows)
    columns = {
        name: np.array([named[row][1][name] for row in kept])
        for name in named[0][1]
        if name != LABEL
    }
    held = [_held(named[row][1], params) for row in kept]
    evaluation = np.flatnonzero(held) if params.hold_out else None
    if evaluation is not None and not 0 < len(evaluation) < len(kept):
        raise InputError(
            f"hold_out keeps {len(evaluation)} of {len(kept)} recordings to evaluate on",
            where=str(path),
            mend=f"groups hold for example {named[0][1]}",
        )
    parts = part(np.arange(len(kept)), params, seed, str(path), evaluation)
    made = taken(
        parts,
        {"sound": np.stack([signals[row] for row in kept])},
        np.array([labels.index(words[row]) for row in kept], np.int64),
        {name: each for name, each in columns.items() if len(set(each)) <= MOST_SLICES},
    )
    return {**made, "notes": (*notes, *cleaned.notes)}


_TOLD = {
    "resampled": "were resampled to {0.rate} Hz",
    "converted": "were converted to 16 bits in one channel",
    "cut": "were longer than {0.samples} samples and cut",
}

Described = list[tuple[str, dict[str, str]]]


def _described(names: list[str], params: WavLoader, where: str) -> tuple[Described, list[str]]:
    """Each recording with the groups of its name, `label` among them; and notes."""
    if not names:
        raise InputError("holds no .wav file", where=where)
    found: Described = []
    for name in names:
        folder, _, file = name.rpartition("/")
        if params.pattern is None:
            if not folder:
                raise InputError(
                    f"{name} lies in no folder that could be its label",
                    where=where,
                    mend="sort recordings into a folder for each label, or give a pattern",
                )
            found.append((name, {LABEL: folder.rpartition("/")[2]}))
        elif match := re.fullmatch(params.pattern, file):
            found.append((name, {key: value or "" for key, value in match.groupdict().items()}))
    if not found:
        raise InputError(
            f"none of {len(names)} recordings matches the pattern, {names[0]} for example",
            where=where,
        )
    groups = found[0][1]
    for group in params.hold_out:
        if group not in groups:
            raise InputError(
                f"hold_out names {group!r}", where=where, mend=f"groups are {', '.join(groups)}"
            )
    left = len(names) - len(found)
    return found, [f"{left} recordings do not match the pattern and were left out"] if left else []


def _held(groups: dict[str, str], params: WavLoader) -> bool:
    """Whether a recording is to be evaluated on."""
    return bool(params.hold_out) and all(
        groups[group] in map(str, values) for group, values in params.hold_out.items()
    )


def _order(label: str) -> tuple[bool, int, str]:
    number = label.isascii() and label.isdigit()
    return not number, int(label) if number else 0, label
