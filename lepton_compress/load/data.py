"""Datasets: what a loader returns is checked here once, so that no stage has to doubt it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field

from lepton_compress.artifacts import Dataset, Split
from lepton_compress.errors import InputError
from lepton_compress.load.references import resolve
from lepton_compress.load.slices import read_slices
from lepton_compress.load.splitting import SPLITS
from lepton_compress.registry import Params, plugin

if TYPE_CHECKING:
    import numpy as np


class PythonLoader(Params):
    """Calls a Python function that returns the three splits."""

    function: str = Field(description="`path/to/file.py:name` or `package.module:name`.")
    args: dict[str, Any] = Field({}, description="Keyword arguments of the function.")


@plugin("loader", "python", PythonLoader)
def load_python(params: PythonLoader, folder: Path, seed: int) -> Any:
    """Calls a Python function that returns {"train": ..., "calibration": ..., "evaluation": ...}.

    Each split is an array, a pair (inputs, targets), a mapping {"inputs": ..., "targets": ...,
    "slices": ...}, a `Split`, or an iterable of batches such as a torch DataLoader; inputs are an
    array or a mapping of names to arrays, slices a mapping of names to one value a sample.
    """
    function = resolve(params.function, folder)
    try:
        return function(**params.args)
    except (Exception, SystemExit) as error:
        raise InputError(
            f"raised {type(error).__name__}: {error}",
            where=params.function,
            mend="call it in a Python console to see where",
        ) from error


def make_dataset(given: Any, where: str) -> Dataset:
    """Check three splits and freeze them into a `Dataset`.

    Args:
        given: a `Dataset`, or a mapping as a loader returns it; beside the splits it may hold
            `notes`, texts for the user.
        where: what to name in errors.

    Raises:
        InputError: a split is missing, empty or holds NaN, lengths or shapes disagree, or one
            sample stands in two splits.
    """
    if isinstance(given, Dataset):
        given = {name: getattr(given, name) for name in (*SPLITS, "notes")}
    if not isinstance(given, Mapping) or set(given) - {"notes"} != set(SPLITS):
        said = ", ".join(map(str, given)) if isinstance(given, Mapping) else type(given).__name__
        raise InputError(
            f"expected a mapping with the keys {', '.join(SPLITS)}, not {said}", where=where
        )
    splits = {name: _split(given[name], f"{where}: {name}") for name in SPLITS}
    _check_alike(splits, where)
    splits = {name: split.named(list(splits["train"].inputs)) for name, split in splits.items()}
    seen: dict[bytes, str] = {}
    total = hashlib.sha256()
    for name, split in splits.items():
        total.update(f"{name}:{len(split)}:{list(split.inputs)};".encode())
        for index, sample in enumerate(_sample_digests(split)):
            other = seen.setdefault(sample, name)
            if other != name:
                raise InputError(
                    f"sample {index} of {name} also stands in {other}",
                    where=where,
                    mend="make the splits disjoint; a shared sample hides overfitting",
                )
            total.update(sample)
        if split.targets is not None:
            total.update(f"{split.targets.dtype}{split.targets.shape}".encode())
            total.update(split.targets.tobytes())
    notes = tuple(map(str, given.get("notes", ())))
    return Dataset(**splits, fingerprint=total.hexdigest(), notes=notes)


def _split(given: Any, where: str) -> Split:
    import numpy as np

    slices: Any = {}
    if isinstance(given, Split):
        slices = given.slices
    elif isinstance(given, Mapping) and "inputs" in given and "slices" in given:
        slices = given["slices"]
        given = {name: held for name, held in given.items() if name != "slices"}
    inputs, targets = _unpack(given, where)
    if not inputs:
        raise InputError("has no inputs", where=where)
    for name, array in [*inputs.items(), ("targets", targets)]:
        if array is None:
            continue
        if array.dtype.kind not in "biuf":
            raise InputError(f"{name} holds {array.dtype}, not numbers", where=where)
        if array.ndim == 0 or len(array) == 0:
            raise InputError(
                f"{name} is empty", where=where, mend="give at least one sample in each split"
            )
        if len(array) != len(next(iter(inputs.values()))):
            raise InputError(
                f"{name} has {len(array)} samples, but the first input has "
                f"{len(next(iter(inputs.values())))}",
                where=where,
            )
        if array.dtype.kind == "f" and not all(
            np.isfinite(array[start : start + 256]).all() for start in range(0, len(array), 256)
        ):
            bad = next(row for row, item in enumerate(array) if not np.isfinite(item).all())
            raise InputError(
                f"{name} has a NaN or an infinity in sample {bad}", where=where, mend="drop it"
            )
    samples = len(next(iter(inputs.values())))
    return Split(inputs, targets, read_slices(slices, samples, f"{where}: slices"))


def _unpack(given: Any, where: str) -> tuple[dict[str, np.ndarray], np.ndarray | None]:
    """Inputs by name and targets, from any of the forms that a loader may return."""
    if isinstance(given, Split):
        given = (given.inputs, given.targets)
    if isinstance(given, Mapping) and set(given) <= {"inputs", "targets"} and "inputs" in given:
        given = (given["inputs"], given.get("targets"))
    if isinstance(given, (tuple, list)) and len(given) == 2:
        inputs, targets = given
        return _inputs(inputs, where), None if targets is None else _array(targets, where)
    if isinstance(given, Mapping) or hasattr(given, "__array__"):
        return _inputs(given, where), None
    if isinstance(given, tuple) and len(given) > 2:
        raise InputError(
            f"is a tuple of {len(given)}",
            where=where,
            mend="give a pair (inputs, targets); several inputs as a mapping of names to arrays",
        )
    if isinstance(given, Iterable) and not isinstance(given, (str, bytes)):
        return _gather(given, where)
    raise InputError(f"cannot read a split from {type(given).__name__}", where=where)


def _inputs(given: Any, where: str) -> dict[str, np.ndarray]:
    if isinstance(given, Mapping):
        return {str(name): _array(array, where) for name, array in given.items()}
    return {"input": _array(given, where)}


def _array(given: Any, where: str) -> np.ndarray:
    import numpy as np

    if hasattr(given, "detach"):  # a torch tensor
        given = given.detach().cpu()
    try:
        array = np.asarray(given).view()
        array.flags.writeable = False  # the user's own memory, perhaps
        return array
    except ValueError as error:
        raise InputError(f"is not one array ({error})", where=where) from error


def _gather(batches: Iterable[Any], where: str) -> tuple[dict[str, np.ndarray], np.ndarray | None]:
    """All batches of an iterable, as one split."""
    import numpy as np

    # A loader collates what stands beside each other in a sample into a list.
    collated = [tuple(b) if isinstance(b, list) and len(b) > 1 else b for b in batches]
    parts = [_unpack(batch, where) for batch in collated]
    if not parts:
        raise InputError("is empty", where=where, mend="give at least one sample in each split")
    names = list(parts[0][0])
    try:
        if any(set(part[0]) != set(names) for part in parts):
            raise ValueError("they have different inputs")
        inputs = {name: np.concatenate([part[0][name] for part in parts]) for name in names}
        labels = [part[1] for part in parts if part[1] is not None]
        targets = np.concatenate(labels) if labels else None
        frozen = {name: _array(array, where) for name, array in inputs.items()}
        return frozen, None if targets is None else _array(targets, where)
    except ValueError as error:
        raise InputError(f"its batches do not fit together ({error})", where=where) from error


def _check_alike(splits: Mapping[str, Split], where: str) -> None:
    first = splits["train"]
    for name, split in splits.items():
        if set(split.inputs) != set(first.inputs):
            raise InputError(f"{name} has other inputs than train", where=where)
        for key, array in split.inputs.items():
            like = first.inputs[key]
            if (array.shape[1:], array.dtype) != (like.shape[1:], like.dtype):
                raise InputError(
                    f"{name}: {key} is {array.dtype}{list(array.shape[1:])} a sample, but in train "
                    f"{like.dtype}{list(like.shape[1:])}",
                    where=where,
                )
    if splits["evaluation"].targets is None:
        raise InputError(
            "evaluation has no targets", where=where, mend="labels are needed to measure accuracy"
        )


def _sample_digests(split: Split) -> Iterable[bytes]:
    import numpy as np

    arrays = list(split.inputs.values())
    head = "".join(f"{array.dtype}{array.shape[1:]}" for array in arrays).encode()
    for index in range(len(split)):
        sample = hashlib.blake2b(head, digest_size=16)
        for array in arrays:
            sample.update(np.ascontiguousarray(array[index]).tobytes())
        yield sample.digest()
