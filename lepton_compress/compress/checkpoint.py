"""The state of an unfinished training on disk, so that it goes on after it was killed.

    <folder>/training.json       where it stands, and the digest of the tensors that belong to it
             <digest>.safetensors

Nothing is pickled. Each file appears whole or not at all, the JSON file last: a reader finds the
former checkpoint or the new one.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import time
import uuid
from dataclasses import dataclass
from pathlib import Path

from safetensors.torch import load, save
from torch import Tensor, nn

from lepton_compress.artifacts import Json
from lepton_compress.store import write_atomically, writing

FORMAT = 1
STATE = "training.json"


@dataclass(frozen=True)
class State:
    """A point of a training.

    Attributes:
        tensors: everything that is an array; on the CPU, and nobody else's.
        about: the rest, as JSON holds it; `about["done"]` counts the updates before it.
    """

    tensors: dict[str, Tensor]
    about: dict[str, Json]


def tensors(module: nn.Module) -> dict[str, Tensor]:
    """Every parameter and buffer, each by its first name; those included that are not persistent.
    They are the module's own: what is written into them is seen in it."""
    return {**dict(module.named_parameters()), **dict(module.named_buffers())}


class Checkpoints:
    """Writes a training's state into a folder now and then; without a folder, nowhere.

    Args:
        every: seconds between two.
    """

    def __init__(self, folder: Path | None, every: float) -> None:
        self.folder = folder
        self.every = every
        self.written = -1
        """Updates before the last one on disk."""
        self._last = time.monotonic()

    def due(self) -> bool:
        """Whether it is time for the next."""
        return self.folder is not None and time.monotonic() - self._last >= self.every

    def write(self, state: State) -> None:
        """Replace the former checkpoint.

        Raises:
            OutputError: the disk is full, or the folder cannot be written.
        """
        if self.folder is None:
            return
        data = save({name: tensor.contiguous() for name, tensor in state.tensors.items()})
        name = hashlib.sha256(data).hexdigest()
        file = self.folder / f"{name}.safetensors"
        with writing(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
            new = self.folder / f".{uuid.uuid4().hex}"
            with new.open("xb") as opened:
                opened.write(data)
                opened.flush()
                os.fsync(opened.fileno())
            new.replace(file)
            about = {"format": FORMAT, "tensors": name, **state.about}
            write_atomically(self.folder / STATE, json.dumps(about, indent=1, allow_nan=False))
            for each in self.folder.iterdir():
                if each.name not in (STATE, file.name):
                    each.unlink(missing_ok=True)
        self.written = int(state.about["done"])
        self._last = time.monotonic()

    def read(self) -> State | None:
        """The last one; None if there is none, or what is there is damaged."""
        if self.folder is None:
            return None
        try:
            about = json.loads((self.folder / STATE).read_text(encoding="utf-8"))
            data = (self.folder / f"{about['tensors']}.safetensors").read_bytes()
            if about["format"] != FORMAT or hashlib.sha256(data).hexdigest() != about["tensors"]:
                return None
            self.written = int(about["done"])
            # Copied into memory that is aligned: the bytes of a generator are read as a struct.
            return State({name: each.clone() for name, each in load(data).items()}, about)
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def clear(self) -> None:
        """Remove everything: the training has ended well."""
        if self.folder is not None:
            with contextlib.suppress(OSError):
                shutil.rmtree(self.folder)
