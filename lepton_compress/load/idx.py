"""The loader `idx`: the format that MNIST and its successors come in.

Source: LeCun, Cortes and Burges, "The MNIST database of handwritten digits", its last section: two
bytes of zero, one for the type, one for the number of dimensions, these as big-endian 32-bit
numbers, then the values, the last dimension fastest.
"""

from __future__ import annotations

import gzip
import math
import struct
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Self

from pydantic import Field, model_validator

from lepton_compress.errors import InputError
from lepton_compress.load.cleaning import CleaningOfValues
from lepton_compress.load.files import Sha256, locate
from lepton_compress.load.splitting import Shares, part, taken
from lepton_compress.registry import plugin

if TYPE_CHECKING:
    import numpy as np

Side = Annotated[int, Field(strict=True, ge=1)]
TYPES = {0x08: ">u1", 0x09: ">i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}
MOST = 32
"""Dimensions; what claims to have more is none."""


class IdxLoader(Shares, CleaningOfValues):
    """Reads MNIST's IDX files, packed by gzip or not; `image` is as they hold it."""

    images: str = Field(description="Such as `train-images-idx3-ubyte.gz`.")
    labels: str = Field(description="Such as `train-labels-idx1-ubyte.gz`.")
    test_images: str | None = Field(None, description="To evaluate on, in place of a share.")
    test_labels: str | None = Field(None, description="Likewise.")
    sha256: dict[str, Sha256] = Field(
        {}, description="That files must have, by the keys above: `{images: ...}`."
    )
    shape: list[Side] | None = Field(
        None, description="Of a sample, where it is kept otherwise: `[28, 28, 1]`."
    )

    @model_validator(mode="after")
    def _pairs(self) -> Self:
        if (self.test_images is None) != (self.test_labels is None):
            raise ValueError("test_images and test_labels go together")
        if unknown := self.sha256.keys() - {"images", "labels", "test_images", "test_labels"}:
            raise ValueError(f"sha256: {unknown.pop()!r} is no file above")
        return self


@plugin("loader", "idx", IdxLoader)
def load_idx(params: IdxLoader, folder: Path, seed: int) -> Any:
    """Reads MNIST's IDX files, with their test files to evaluate on or a share."""
    import numpy as np

    def read(key: str) -> np.ndarray:
        return read_idx(locate(getattr(params, key), folder, params.sha256.get(key)))

    images, labels = _paired(params.images, read("images"), read("labels"))
    training = len(images)
    if params.test_images is not None:
        others, right = _paired(params.test_images, read("test_images"), read("test_labels"))
        if (others.shape[1:], others.dtype) != (images.shape[1:], images.dtype):
            raise InputError(
                f"its samples are {others.dtype}{list(others.shape[1:])}, those of "
                f"{params.images} {images.dtype}{list(images.shape[1:])}",
                where=params.test_images,
            )
        images, labels = np.concatenate([images, others]), np.concatenate([labels, right])
    if params.shape is not None:
        if math.prod(params.shape) != math.prod(images.shape[1:]):
            raise InputError(
                f"a sample is {list(images.shape[1:])}, which cannot be shaped to {params.shape}",
                where=params.images,
                mend="correct `shape`",
            )
        images = images.reshape(len(images), *params.shape)
    inputs, rows = {"image": images}, np.arange(len(images))

    def named(row: int) -> str:
        return f"sample {row}" if row < training else f"test sample {row - training}"

    # Those to evaluate on are looked at first, so that a double of one is dropped elsewhere.
    order = np.roll(rows, len(images) - training).tolist()
    kept = params.kept(inputs, labels, where=params.images, named=named, order=order)
    held = None if params.test_images is None else kept.rows[kept.rows >= training]
    parts = part(kept.rows, params, seed, params.images, held)
    return {**taken(parts, inputs, labels), "notes": kept.notes}


def read_idx(path: Path) -> np.ndarray:
    """The array in an IDX file, in this machine's byte order; gzip is told by its first bytes.

    Raises:
        InputError: it is none, or holds more or less than it says.
    """
    import numpy as np

    try:
        data = path.read_bytes()
        if data[:2] == b"\x1f\x8b":
            data = gzip.decompress(data)
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(f"cannot be read ({error})", where=str(path)) from error
    if len(data) < 4 or data[:2] != b"\0\0" or data[2] not in TYPES or not 0 < data[3] <= MOST:
        raise InputError(
            f"not an IDX file (it begins with {data[:4].hex(' ') or 'nothing'})",
            where=str(path),
            mend="give one as MNIST's, packed by gzip or not",
        )
    dtype, head = np.dtype(TYPES[data[2]]), 4 + 4 * data[3]
    shape = struct.unpack(f">{data[3]}I", data[4:head]) if len(data) >= head else ()
    wanted = math.prod(shape) * dtype.itemsize
    if not shape or len(data) - head != wanted:
        raise InputError(
            f"says it holds {list(shape)} values in {wanted} bytes, but has "
            f"{max(0, len(data) - head)}",
            where=str(path),
            mend="fetch it again",
        )
    values = np.frombuffer(data, dtype, offset=head).reshape(shape)
    return values.astype(dtype.newbyteorder("="))


def _paired(name: str, images: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    if labels.ndim != 1 or labels.dtype.kind not in "iu":
        raise InputError(
            f"its labels are {labels.dtype}{list(labels.shape)}, not one whole number a sample",
            where=name,
            mend="images and labels may be exchanged",
        )
    if len(images) != len(labels) or images.ndim < 2:
        raise InputError(
            f"has {len(images)} samples of {images.ndim - 1} dimensions, and {len(labels)} labels",
            where=name,
            mend="give the labels of these images",
        )
    return images, labels
