"""Facts of a safetensors file, read off its header without any framework."""

from __future__ import annotations

import json
import math
from pathlib import Path

from lepton_compress.errors import InputError
from lepton_compress.overviews import Held, Inspection

_LENGTH = 8
"""Bytes in front that say how long the header is."""
_LONGEST = 100_000_000
_DTYPES = {
    "BOOL": "bool",
    "BF16": "bfloat16",
    "F8_E4M3": "float8_e4m3fn",
    "F8_E5M2": "float8_e5m2",
    **{f"F{bits}": f"float{bits}" for bits in (16, 32, 64)},
    **{f"I{bits}": f"int{bits}" for bits in (8, 16, 32, 64)},
    **{f"U{bits}": f"uint{bits}" for bits in (8, 16, 32, 64)},
}


def stored_weights(path: Path) -> dict[str, Held]:
    """Element type to the tensors of a safetensors file, buffers of a model included.

    Raises:
        InputError: it is not a safetensors file.
    """
    found: dict[str, Held] = {}
    try:
        with path.open("rb") as file:
            length = int.from_bytes(file.read(_LENGTH), "little")
            if length > min(path.stat().st_size, _LONGEST):
                raise ValueError("its header is longer than the file")
            header = json.loads(file.read(length))
        for name, about in header.items():
            if name == "__metadata__":
                continue
            dtype = _DTYPES.get(about["dtype"], str(about["dtype"]).lower())
            start, end = about["data_offsets"]
            found[dtype] = add(found.get(dtype), math.prod(about["shape"]), end - start)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise InputError(
            f"not a safetensors file ({error})", where=str(path), mend="save it again"
        ) from error
    return dict(sorted(found.items()))


def inspect_weights(path: Path) -> Inspection:
    """What a safetensors file holds.

    Raises:
        InputError: it is not a safetensors file.
    """
    return Inspection(
        subject=str(path),
        kind="weights",
        bytes=path.stat().st_size,
        about={"format": "safetensors"},
        weights=stored_weights(path),
        notes=("a file of weights does not tell parameters from buffers, nor what it computes",),
    )


def add(held: Held | None, numbers: int, size: int) -> Held:
    """`held` with one more tensor, of that many numbers and bytes."""
    held = held or Held(0, 0, 0)
    return Held(held.tensors + 1, held.numbers + numbers, held.bytes + size)
