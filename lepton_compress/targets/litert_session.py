"""LiteRT's interpreter as every measurement opens it, on this machine and on others.

This file is copied to devices and imported there by `profile/worker.py`: it needs Python 3.8,
numpy and ai-edge-litert, and nothing of this package but `frames.py`, which lies beside it. `load`
is what a worker calls; `settings` says what may be tuned.

An artifact takes one sample a call (or as many as it or one of its signatures is for), its pictures
channels last, and, where the recipe asks for integer borders, integers. What is fed here is what
the model takes: the host's part of the work (a transpose, a division by the scale) is done here and
is part of the time. Where the samples do not fill the last call, the last of them is repeated, and
what comes of that is dropped.
"""

from __future__ import annotations

import importlib
import json
import threading
from pathlib import Path
from typing import Any

PACKAGES = ("numpy", "ai_edge_litert.interpreter")

MARK = b'{"lepton_compress":'
"""How the metadata that the exporter leaves in the file begins."""


DEFAULT, SIGNATURE = "serving_default", "batch_"
"""The name of a file's first signature, and how those for further batches begin."""


class SessionError(Exception):
    """LiteRT refuses a file or an input. `problem` is one clause, fit for a user."""

    def __init__(self, problem: str) -> None:
        super().__init__(problem)
        self.problem = problem


class Tensor:
    """An input or output as the interpreter knows it, and as the host sees it.

    Attributes:
        shape: of one sample, as the host sees it.
        dtype: as the host sees it.
        axes: the host's axes in the order of the tensor's memory; None where they are in it.
        scale, zero_point: of integers that the host sees as float; scale 0 where it does not.
        batch: the axis of the samples.
        filled: whether that axis is known to be theirs, so that a call may be filled up.
    """

    def __init__(self, details: Any, about: Any) -> None:
        import numpy as np

        self.name: str = details["name"]
        self.index: int = details["index"]
        self.held = np.dtype(details["dtype"])
        self.axes = about.get("permutation")
        self.own_shape = tuple(int(each) for each in details["shape"])
        self.shape = tuple(about.get("shape", self.own_shape))
        self.dtype = np.dtype(about.get("dtype", self.held))
        self.batch = 0
        self.filled = "shape" in about
        scale, zero_point = details["quantization"]
        as_float = self.held.kind == "i" and scale and self.dtype.kind == "f"
        self.scale, self.zero_point = (float(scale), int(zero_point)) if as_float else (0.0, 0)
        self.step = np.float32(self.scale)
        ends = np.iinfo(self.held) if as_float else None
        self.ends = (ends.min, ends.max) if ends else (0, 0)

    def inward(self, array: Any) -> Any:
        """What the interpreter is given for the host's array of one call."""
        import numpy as np

        if self.axes is not None:
            moved = np.ascontiguousarray(array.transpose(self.axes))
            array = moved.reshape((-1, *self.own_shape[1:]))
        if not self.scale:
            return array if array.dtype == self.held else self._narrowed(array)
        levels = array / self.step
        np.rint(levels, out=levels)
        levels += self.zero_point
        np.maximum(levels, self.ends[0], out=levels)
        np.minimum(levels, self.ends[1], out=levels)
        return levels.astype(self.held)

    def _narrowed(self, array: Any) -> Any:
        """Wider integers than the file takes, as they are.

        Raises:
            SessionError: one of them does not fit.
        """
        import numpy as np

        ends = np.iinfo(self.held) if self.held.kind in "iu" else None
        if ends and array.size and not ends.min <= array.min() <= array.max() <= ends.max:
            raise SessionError(f"{self.name} holds numbers that are no {self.held}")
        return array.astype(self.held)

    def outward(self, array: Any) -> Any:
        """What the host gets of the interpreter's array."""
        if self.scale:
            array = array.astype(self.dtype)
            array -= self.zero_point
            array *= self.step
        if self.axes is not None:
            sizes = [-1 if axis == self.batch else self.shape[axis] for axis in self.axes]
            moved = array.reshape(sizes)
            array = moved.transpose([self.axes.index(axis) for axis in range(len(self.axes))])
        return array if array.dtype == self.dtype else array.astype(self.dtype)


class Session:
    """A loaded artifact."""

    def __init__(self, path: str, settings: Any) -> None:
        from ai_edge_litert import interpreter

        kinds = interpreter.OpResolverType
        if not Path(path).is_file():
            raise SessionError("no such file" if not Path(path).exists() else "is no file")
        if not Path(path).stat().st_size:
            raise SessionError("is empty")
        try:
            self._interpreter: Any = interpreter.Interpreter(
                path,
                num_threads=settings["num_threads"],
                experimental_op_resolver_type=getattr(kinds, settings["op_resolver"]),
            )
            self._interpreter.allocate_tensors()
        except Exception as error:  # its exceptions share no base class
            raise SessionError(f"LiteRT cannot load it: {_clean(error)}") from error
        # One interpreter holds one set of tensors: callers at the same time wait for each other.
        self._turn = threading.Lock()
        self._seen: Any = (None, 0, None, 0)
        about = manual(Path(path))
        self._metadata = {
            key: value if isinstance(value, str) else json.dumps(value)
            for key, value in about.get("metadata", {}).items()
        }
        self.inputs = [
            Tensor(each, about.get("inputs", {}).get(each["name"], {}))
            for each in self._interpreter.get_input_details()
        ]
        self.outputs = [
            Tensor(each, about.get("outputs", {}).get(each["name"], {}))
            for each in self._interpreter.get_output_details()
        ]
        self._together = {
            int(key[len(SIGNATURE) :]): self._interpreter.get_signature_runner(key)
            for key in self._interpreter.get_signature_list()
            if key.startswith(SIGNATURE) and key[len(SIGNATURE) :].isdigit()
        }
        # Where there are signatures, an interpreter refuses to be called but by one of them.
        self._alone = self._interpreter.get_signature_runner(DEFAULT) if self._together else None
        for state in (self.steps or {}).get("states", []):
            named = [axis for axis, size in enumerate(state["shape"]) if isinstance(size, str)]
            for tensor in (*self.inputs, *self.outputs):
                if tensor.name in (state["input"], state["output"]) and named:
                    tensor.batch = named[0]

    @property
    def names(self) -> list[str]:
        """Of the outputs, in the artifact's order."""
        return [each.name for each in self.outputs]

    @property
    def steps(self) -> Any:
        """What the file says of its steps, see `frames`; None unless it is a step model.

        Raises:
            SessionError: what it says is damaged.
        """
        try:
            return frames().read(self._metadata)
        except (ValueError, KeyError, TypeError) as error:
            raise SessionError(f"what it says of its steps cannot be read ({error})") from error

    def run(self, feeds: Any) -> list[Any]:
        """The outputs, in the artifact's order, of inputs by name; samples one after the other.

        Raises:
            SessionError: the runtime refuses the arrays, or fails on them.
        """
        import numpy as np

        # A caller in a loop gives arrays of one kind again and again.
        mark = [(name, array.shape, array.dtype) for name, array in feeds.items()]
        if mark != self._seen[0]:
            calls, samples = self._calls(feeds), self._samples(feeds)
            size = next((each.shape[each.batch] for each in self.inputs if each.shape), 1)
            self._seen = (mark, calls, self._together.get(samples), calls * size - samples)
        _, calls, together, spare = self._seen
        with self._turn:
            if together is not None:
                return self._batch(together, feeds)
            made = [self._call(feeds, number) for number in range(calls)]
        if calls == 1 and not spare:
            return made[0]
        whole = [
            np.concatenate([call[place] for call in made], axis=tensor.batch)
            for place, tensor in enumerate(self.outputs)
        ]
        if not spare:
            return whole
        kept = slice(None, -spare)
        return [
            array[(slice(None),) * tensor.batch + (kept,)]
            for array, tensor in zip(whole, self.outputs, strict=True)
        ]

    def _samples(self, feeds: Any) -> int:
        """How many samples the arrays hold."""
        sizes = (feeds[each.name].shape[each.batch] for each in self.inputs if each.shape)
        return next(sizes, 1)

    def _batch(self, signature: Any, feeds: Any) -> list[Any]:
        """The outputs of one call of a signature that takes all the samples."""
        given = {each.name: each.inward(feeds[each.name]) for each in self.inputs}
        try:
            made = signature(**given)
        except Exception as error:  # its exceptions share no base class
            raise SessionError(f"LiteRT cannot run it: {_clean(error)}") from error
        return [each.outward(made[each.name]) for each in self.outputs]

    def _call(self, feeds: Any, number: int) -> list[Any]:
        """The outputs of one call, with the `number`-th samples of the feeds."""
        part = {}
        for tensor in self.inputs:
            array = feeds[tensor.name]
            if tensor.shape:
                size = tensor.shape[tensor.batch]
                rows = slice(number * size, (number + 1) * size)
                array = array[(slice(None),) * tensor.batch + (rows,)]
                if array.shape[tensor.batch] < size:
                    array = _padded(array, tensor.batch, size)
            part[tensor.name] = array
        if self._alone is not None:
            return self._batch(self._alone, part)
        for tensor in self.inputs:
            self._interpreter.set_tensor(tensor.index, tensor.inward(part[tensor.name]))
        try:
            self._interpreter.invoke()
        except Exception as error:  # its exceptions share no base class
            raise SessionError(f"LiteRT cannot run it: {_clean(error)}") from error
        return [each.outward(self._interpreter.get_tensor(each.index)) for each in self.outputs]

    def _calls(self, feeds: Any) -> int:
        """How many calls the arrays are, after a look at whether they fit."""
        names = [each.name for each in self.inputs]
        if sorted(feeds) != sorted(names):
            raise SessionError(
                f"it takes {', '.join(names)}, and is given {', '.join(feeds) or 'nothing'}"
            )
        calls, samples = set(), set()
        for tensor in self.inputs:
            array = feeds[tensor.name]
            if array.dtype != tensor.dtype:
                raise SessionError(f"{tensor.name} is {tensor.dtype}, and is given {array.dtype}")
            if not tensor.shape:
                continue
            axis, own = tensor.batch, tensor.shape
            others = [array.shape[:axis] + array.shape[axis + 1 :], own[:axis] + own[axis + 1 :]]
            whole = array.ndim == len(own) and array.shape[axis] % own[axis] == 0
            if array.ndim != len(own) or others[0] != others[1] or not (whole or tensor.filled):
                raise SessionError(
                    f"{tensor.name} has the shape {tensor.shape}, and is given {array.shape}"
                )
            if not array.shape[axis]:
                raise SessionError(f"{tensor.name} is given no samples")
            calls.add(-(-array.shape[axis] // own[axis]))
            samples.add(array.shape[axis] / own[axis])
        if len(samples) > 1:
            raise SessionError("its inputs are given for different numbers of samples")
        return calls.pop() if calls else 1


def _padded(array: Any, axis: int, size: int) -> Any:
    """With its last sample repeated, up to a whole call."""
    import numpy as np

    rows = np.minimum(np.arange(size), array.shape[axis] - 1)
    return np.take(array, rows, axis=axis)


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
        path: a .tflite file.
        threads: how many threads compute one call.
        changes: settings other than those of `settings(threads)`.

    Raises:
        SessionError: LiteRT cannot load the file.
    """
    return Session(str(path), {**settings(threads), **(changes or {})})


def settings(threads: int) -> dict[str, Any]:
    """How an interpreter is opened: `AUTO` computes with XNNPACK where it can."""
    return {"num_threads": threads, "op_resolver": "AUTO"}


def alternatives(threads: int) -> list[dict[str, Any]]:
    """Changes to `settings` that may be faster, none with more than `threads` threads."""
    found: list[dict[str, Any]] = [{"op_resolver": "BUILTIN_WITHOUT_DEFAULT_DELEGATES"}]
    fewer = 1
    while fewer < threads:
        found.append({"num_threads": fewer})
        fewer *= 2
    return found


def manual(path: Path) -> dict[str, Any]:
    """What the exporter left in a file; empty in one of another maker.

    It is looked for by how it begins, so that no reader of flatbuffers is needed on a device.
    """
    data = path.read_bytes()
    place = data.find(MARK)
    if place < 0:
        return {}
    end = data.find(b"\0", place)
    text = data[place : end if end >= 0 else len(data)].decode("utf-8", errors="replace")
    try:
        found, _ = json.JSONDecoder().raw_decode(text)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _clean(error: Exception) -> str:
    """What LiteRT said, on one line."""
    return " ".join(str(error).split()).rstrip(".") or type(error).__name__
