"""The loader `npz`: arrays that numpy saved."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field

from lepton_compress.errors import InputError
from lepton_compress.load.cleaning import CleaningOfValues
from lepton_compress.load.files import Sha256, locate
from lepton_compress.load.splitting import Shares, part, taken
from lepton_compress.registry import plugin

if TYPE_CHECKING:
    import numpy as np

Side = Annotated[int, Field(strict=True, ge=1)]


class NpzLoader(Shares, CleaningOfValues):
    """Reads arrays of one .npz file and splits them by the recipe's seed."""

    path: str = Field(description="The file, as numpy.savez writes it.")
    sha256: Sha256 | None = Field(None, description="That the file must have.")
    inputs: list[str] = Field(min_length=1, description="Arrays that the model takes.")
    targets: str | None = Field(None, description="The array of labels or values to predict.")
    slices: list[str] = Field(
        [], description="Arrays of true or false, numbers or texts: parts to look at one by one."
    )
    shapes: dict[str, list[Side]] = Field(
        {},
        description="Of a sample of an input, where it is kept otherwise: `{images: [28, 28, 1]}`.",
    )
    scale: float = Field(
        1.0, description="Inputs are multiplied by this, and are float32 then; 1 leaves them."
    )
    evaluation_last: Annotated[int, Field(strict=True, ge=1)] | None = Field(
        None,
        description="Evaluate on the last so many samples of the file, whatever the seed, in place "
        "of a share.",
    )


@plugin("loader", "npz", NpzLoader)
def load_npz(params: NpzLoader, folder: Path, seed: int) -> Any:
    """Reads arrays of one .npz file and splits them at random by the recipe's seed."""
    import numpy as np

    path = locate(params.path, folder, params.sha256)
    arrays = _read(params, path)
    where = str(path)
    count = _common_length(arrays, where)
    inputs = {name: _shaped(arrays[name], params.shapes.get(name), name, where)
              for name in params.inputs}  # fmt: skip
    for name in params.shapes.keys() - inputs.keys():
        raise InputError(f"shapes: {name!r} is none of the inputs", where="data: npz")
    targets = arrays[params.targets] if params.targets else None
    rows, last = np.arange(count), params.evaluation_last
    if last is not None and last >= count:
        raise InputError(f"has {count} samples, so that evaluation_last leaves none", where=where)
    # Those to evaluate on are looked at first, so that a double of one is dropped elsewhere.
    order = rows if last is None else np.roll(rows, last)
    kept = params.kept(inputs, targets, where=where, order=order.tolist())
    held = None if last is None else kept.rows[kept.rows >= count - last]
    parts = part(kept.rows, params, seed, where, held)
    if params.scale != 1.0:
        inputs = {name: (each * params.scale).astype(np.float32) for name, each in inputs.items()}
    slices = {name: arrays[name] for name in params.slices}
    return {**taken(parts, inputs, targets, slices), "notes": kept.notes}


def _read(params: NpzLoader, path: Path) -> dict[str, np.ndarray]:
    import zipfile
    import zlib

    import numpy as np

    try:
        # Opened here, as numpy leaves a file open that it finds to be none.
        with path.open("rb") as held, np.load(held, allow_pickle=False) as file:
            wanted = [*params.inputs, *([params.targets] if params.targets else []), *params.slices]
            for name in wanted:
                if name not in file:
                    raise InputError(
                        f"has no array {name!r}", where=str(path), mend=f"has {', '.join(file)}"
                    )
            found = {name: file[name] for name in wanted}
    except (OSError, EOFError, TypeError, ValueError, zipfile.BadZipFile, zlib.error) as error:
        raise InputError(
            f"not an .npz ({error})", where=str(path), mend="give a file made by numpy.savez"
        ) from error
    for name, array in found.items():
        if not isinstance(array, np.ndarray):  # numpy gives other files in it as they are
            raise InputError(
                f"{name!r} is no array", where=str(path), mend="give a file made by numpy.savez"
            )
    return found


def _common_length(arrays: Mapping[str, np.ndarray], where: str) -> int:
    """The samples that all arrays have."""
    counts = {name: len(array) if array.ndim else 0 for name, array in arrays.items()}
    if len(set(counts.values())) > 1:
        said = ", ".join(f"{name} {count}" for name, count in counts.items())
        raise InputError(f"its arrays have different numbers of samples ({said})", where=where)
    return next(iter(counts.values()))


def _shaped(array: np.ndarray, shape: list[int] | None, name: str, where: str) -> np.ndarray:
    if shape is None:
        return array
    try:
        return array.reshape(len(array), *shape)
    except ValueError as error:
        raise InputError(
            f"a sample of {name} is {list(array.shape[1:])}, which cannot be shaped to {shape}",
            where=where,
            mend="correct `shapes`",
        ) from error
