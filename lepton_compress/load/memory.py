"""Telling apart what only lives in memory, so that results of one object are never taken for
another's."""

from __future__ import annotations

import hashlib
import io
import marshal
import pickle
import types
import uuid
from typing import Any

from lepton_compress.load.forms import tensor_bytes
from lepton_compress.provenance import code_digest


def identity(value: Any) -> str:
    """Digest of an object with all that it holds: code, attributes, closures, arrays, tensors.

    Of what cannot be read (an open file, say) it is new each time: nothing is then reused, which
    costs time, where taking it for something else would cost the truth.
    """
    buffer = io.BytesIO()
    try:
        _Reader(buffer).dump(value)
    except Exception:  # objects raise what they like when they are pickled
        return uuid.uuid4().hex
    return hashlib.sha256(buffer.getvalue()).hexdigest()


class _Reader(pickle.Pickler):
    """Pickles to be hashed, never to be read: code counts by what it says, not by its name."""

    def __init__(self, file: io.BytesIO) -> None:
        super().__init__(file, protocol=5)
        self.fast = True  # equal texts that are one object or two must read alike
        self._inside: set[int] = set()
        self._tensors: dict[int, int] = {}

    def reducer_override(self, given: Any) -> Any:
        if isinstance(given, types.FunctionType):
            if id(given) in self._inside:
                return tuple, ((given.__qualname__,),)  # it calls itself through its closure
            self._inside.add(id(given))
            cells = [cell.cell_contents for cell in given.__closure__ or ()]
            held = (given.__defaults__, given.__kwdefaults__, cells)
            code = marshal.dumps(given.__code__, 2)  # later formats tell how often a value is held
            return tuple, ((given.__qualname__, code, code_digest(given), held),)
        if isinstance(given, type) and given.__module__.partition(".")[0] not in _LIBRARIES:
            return tuple, ((given.__qualname__, code_digest(given)),)
        if hasattr(given, "untyped_storage"):  # a torch tensor, whose pickle holds addresses
            # Tied tensors train as one, so it counts which was seen before.
            number = self._tensors.setdefault(id(given), len(self._tensors))
            about = (number, str(given.dtype), tuple(given.shape), given.requires_grad)
            return tuple, ((about, tensor_bytes(given)),)
        return NotImplemented


_LIBRARIES = ("builtins", "collections", "numpy", "torch", "types")
"""Their code counts by its version, which is part of every key."""
