"""ExecuTorch's runtime as every measurement opens it, on this machine and on others.

This file is copied to devices and imported there by `profile/worker.py`: it needs Python 3.8,
numpy, torch and executorch, and nothing of this package but `frames.py`, which lies beside it.
`load` is what a worker calls; `settings` says what may be tuned.

An artifact takes as many samples a call as it was written for. Where those given do not fill the
last call, the last of them is repeated, and what comes of that is dropped.

The number of threads belongs to the process, and a program that was loaded before it is changed
holds on to threads that are gone: such a session loads its file once more before its next call.
"""

from __future__ import annotations

import importlib
import json
import math
import threading
from pathlib import Path
from typing import Any

PACKAGES = ("numpy", "torch", "executorch.extension.pybindings._C")

ABOUT, VERSION = "lepton_compress", 1
"""The method of a program that gives what the exporter says of it, and its version: a JSON of
`inputs` and `outputs` (each name, dtype, shape) and the model's `metadata`."""

_TYPES = ("uint8", "int8", "int16", "int32", "int64", "float16", "float32", "float64")
"""Torch's numbers of its element types, in order."""
_BOOL = 11

_turn = threading.RLock()
"""Of this process: calls share its threads."""
_threads = [0]


class SessionError(Exception):
    """ExecuTorch refuses a file or an input. `problem` is one clause, fit for a user."""

    def __init__(self, problem: str) -> None:
        super().__init__(problem)
        self.problem = problem


class Tensor:
    """An input or output.

    Attributes:
        name: as the exporter wrote it; made up where another exporter did.
        dtype: as the host sees it.
        held: as the program takes or gives it.
        shape: of one call.
    """

    def __init__(self, about: Any, info: Any, name: str) -> None:
        import numpy as np

        self.name: str = about.get("name", name)
        number = info.dtype()
        if number != _BOOL and number >= len(_TYPES):
            raise SessionError(f"{self.name} has an element type that numpy does not know")
        self.held = np.dtype("bool" if number == _BOOL else _TYPES[number])
        self.dtype = np.dtype(about.get("dtype", self.held))
        self.shape = tuple(int(each) for each in info.sizes())


class Session:
    """A loaded artifact."""

    def __init__(self, path: str, settings: Any) -> None:
        if not Path(path).is_file():
            raise SessionError("no such file" if not Path(path).exists() else "is no file")
        self._path, self._count = path, int(settings["threads"])
        with _turn:
            self._open()
            about = self._manual()
            held = self._module.method_meta("forward")
        named = about.get("inputs", []), about.get("outputs", [])
        self.inputs, self.outputs = (
            [
                Tensor(part[place] if place < len(part) else {}, info(place), f"{side}_{place}")
                for place in range(count)
            ]
            for side, part, info, count in (
                ("input", named[0], held.input_tensor_meta, held.num_inputs()),
                ("output", named[1], held.output_tensor_meta, held.num_outputs()),
            )
        )
        self.names = [each.name for each in self.outputs]
        self.metadata: Any = about.get("metadata", {})

    def _open(self) -> None:
        """Load the file, the process's threads being as many as asked for."""
        import torch  # noqa: F401 - the bindings below need its libraries

        bindings: Any = importlib.import_module(PACKAGES[-1])
        if _threads[0] != self._count or bindings._threadpool_get_thread_count() != self._count:
            bindings._unsafe_reset_threadpool(self._count)
            _threads[0] = self._count
            _generation[0] += 1
        self._of = _generation[0]
        try:
            self._module: Any = bindings._load_for_executorch(self._path)
            if "forward" not in self._module.method_names():
                raise SessionError("has no method `forward`")
        except RuntimeError as error:
            raise SessionError(f"ExecuTorch cannot load it: {_clean(error)}") from error

    def _manual(self) -> dict[str, Any]:
        """What the exporter says; empty in a file of another maker."""
        if ABOUT not in self._module.method_names():
            return {}
        try:
            (text,) = self._module.run_method(ABOUT, [])
            found = json.loads(text)
        except (RuntimeError, ValueError) as error:
            raise SessionError("what it says of itself is damaged") from error
        if not isinstance(found, dict) or found.get("version") != VERSION:
            raise SessionError("what it says of itself is of a version that is not known here")
        return found

    @property
    def steps(self) -> Any:
        """What the file says of its steps, see `frames`; None unless it is a step model.

        Raises:
            SessionError: what it says is damaged.
        """
        try:
            return frames().read(self.metadata)
        except (ValueError, KeyError, TypeError) as error:
            raise SessionError(f"what it says of its steps cannot be read ({error})") from error

    def run(self, feeds: Any) -> list[Any]:
        """The outputs, in the artifact's order, of inputs by name.

        Raises:
            SessionError: the arrays do not fit, or the runtime fails on them.
        """
        import numpy as np

        calls, spare = self._calls(feeds)
        with _turn:
            if self._of != _generation[0] or _threads[0] != self._count:
                self._open()
            made = [self._call(feeds, number) for number in range(calls)]
        if calls == 1 and not spare:
            return made[0]
        whole = [np.concatenate(column) for column in zip(*made)]  # noqa: B905 - Python 3.8
        return [array[: len(array) - spare] if spare else array for array in whole]

    def _call(self, feeds: Any, number: int) -> list[Any]:
        """The outputs of one call, with the `number`-th samples of the feeds."""
        import numpy as np
        import torch

        given = []
        for each in self.inputs:
            array = feeds[each.name]
            if each.shape:
                size = each.shape[0]
                array = array[number * size : (number + 1) * size]
                if len(array) < size:
                    array = np.take(array, np.minimum(np.arange(size), len(array) - 1), axis=0)
            if not array.flags.c_contiguous or not array.flags.writeable:
                array = np.array(array, order="C")
            if array.dtype != each.held:
                array = array.astype(each.held)
            given.append(torch.from_numpy(array))
        try:
            made = self._module.run_method("forward", given)
        except RuntimeError as error:
            raise SessionError(f"ExecuTorch cannot run it: {_clean(error)}") from error
        arrays = (each.numpy() for each in made)
        return [
            array if array.dtype == each.dtype else array.astype(each.dtype)
            for array, each in zip(arrays, self.outputs)  # noqa: B905 - Python 3.8
        ]

    def _calls(self, feeds: Any) -> tuple[int, int]:
        """How many calls the arrays are, and how many samples of the last are none; after a look
        at whether they fit."""
        names = [each.name for each in self.inputs]
        if sorted(feeds) != sorted(names):
            given = ", ".join(feeds) or "nothing"
            raise SessionError(f"it takes {', '.join(names)}, and is given {given}")
        counts = set()
        for each in self.inputs:
            array = feeds[each.name]
            if array.dtype != each.dtype:
                raise SessionError(f"{each.name} is {each.dtype}, and is given {array.dtype}")
            if array.ndim != len(each.shape) or array.shape[1:] != each.shape[1:]:
                raise SessionError(
                    f"{each.name} has the shape {each.shape}, and is given {array.shape}"
                )
            if each.shape:
                if not len(array):
                    raise SessionError(f"{each.name} is given no samples")
                counts.add((len(array), each.shape[0]))
        if len({count / size for count, size in counts}) > 1:
            raise SessionError("its inputs are given for different numbers of samples")
        if not counts:
            return 1, 0
        count, size = counts.pop()
        calls = math.ceil(count / size)
        return calls, calls * size - count


_generation = [0]
"""How often the threads of this process were made anew."""


def frames() -> Any:
    """The module `frames`, which lies where this file does."""
    return importlib.import_module(f"{__package__}.frames" if __package__ else "frames")


def load(path: Any, threads: int, changes: Any = None) -> Any:
    """An artifact whose `run` takes whole sequences, a step model's too.

    Raises:
        SessionError: as `opened`.
    """
    session = opened(path, threads, changes)
    about = session.steps
    return session if about is None else frames().Stepped(session.run, session.names, about)


def opened(path: Any, threads: int, changes: Any = None) -> Session:
    """Open an artifact on exactly `threads` threads.

    Args:
        path: a .pte file.
        threads: how many threads compute one call.
        changes: settings other than those of `settings(threads)`.

    Raises:
        SessionError: ExecuTorch cannot load the file.
    """
    return Session(str(path), {**settings(threads), **(changes or {})})


def settings(threads: int) -> dict[str, Any]:
    """How a program is opened: what it is delegated to was settled when it was written."""
    return {"threads": threads}


def alternatives(threads: int) -> list[dict[str, Any]]:
    """Changes to `settings` that may be faster, none with more than `threads` threads."""
    found: list[dict[str, Any]] = []
    fewer = 1
    while fewer < threads:
        found.append({"threads": fewer})
        fewer *= 2
    return found


def _clean(error: Exception) -> str:
    """What ExecuTorch said, on one line."""
    return " ".join(str(error).split()).rstrip(".") or type(error).__name__
