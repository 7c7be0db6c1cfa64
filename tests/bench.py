"""A small model, its data and its recipes in a folder, and the command line run on them.

Shared by the contract and the end-to-end tests.
"""

from __future__ import annotations

import functools
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from lepton_compress.errors import EXIT_USER

DEADLINE = 300.0
"""Seconds after which a command or a wait has failed."""

NET = '''
import torch
from torch import nn


class Net(nn.Module):
    """Takes image (batch, 1, 6, 6), gives scores (batch, 4)."""

    def __init__(self, width=16):
        super().__init__()
        self.conv1 = nn.Conv2d(1, width, 3, padding=1)
        self.norm1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1)
        self.pool = nn.MaxPool2d(2)
        self.scores = nn.Linear(width * 9, 4)

    def forward(self, image):
        x = torch.relu(self.norm1(self.conv1(image)))
        x = self.pool(torch.relu(self.conv2(x)))
        return self.scores(x.flatten(1))
'''

DATA = '''
import numpy as np

COUNTS = {"train": 192, "calibration": 48, "evaluation": 160}


def load(seed=3):
    """Four noisy patterns."""
    draw = np.random.default_rng(seed)
    patterns = draw.normal(size=(4, 1, 6, 6))
    made = {}
    for name, count in COUNTS.items():
        labels = draw.integers(4, size=count)
        images = patterns[labels] + draw.normal(scale=0.5, size=(count, 1, 6, 6))
        made[name] = (images.astype(np.float32), labels)
    return made
'''

BASE: dict[str, Any] = {
    "version": 1,
    "name": "tiny",
    "data": {"python": {"function": "data.py:load"}},
    "metrics": ["accuracy"],
    "targets": [{"name": "here", "runtime": "onnxruntime-cpu"}],
    "gates": {"drop": "10 %"},
    # Sizes repeat themselves; latencies of a busy machine do not.
    "select": "smallest",
    "measure": {"rounds": 5, "cap": "100 ms"},
}

MODULE: dict[str, Any] = {
    **BASE,
    "model": {"factory": "net.py:Net", "weights": "weights.safetensors", "outputs": ["scores"]},
    "variants": {
        "int8": ["quantize"],
        "small": [{"prune": {"ratio": "50 %"}}, {"distil": {"epochs": 2}}, "quantize"],
    },
}

GRAPH: dict[str, Any] = {
    **BASE,
    "model": {"onnx": "model.onnx"},
    "variants": {"int8": ["quantize"], "signed": [{"quantize": {"activations": "int8"}}]},
}

PROGRAM: dict[str, Any] = {
    **BASE,
    "model": {"program": "model.pt2", "outputs": ["scores"]},
    "variants": {"int8": ["quantize"]},
}


@functools.cache
def network() -> Any:
    """The class of the small network."""
    held: dict[str, Any] = {"__name__": "net"}
    exec(NET, held)
    return held["Net"]


@functools.cache
def splits() -> dict[str, Any]:
    """The data that `data.py` gives."""
    held: dict[str, Any] = {}
    exec(DATA, held)
    made: dict[str, Any] = held["load"]()
    return made


def trained() -> Any:
    """The small network, good at its task; a new one each time."""
    net = network()()
    net.load_state_dict(_weights())
    return net.eval()


@functools.cache
def _weights() -> dict[str, Any]:
    import torch
    from torch.nn import functional

    # The number of threads decides the order of sums, and so the last bits.
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = network()()
        images, labels = (torch.from_numpy(each) for each in splits()["train"])
        optimizer = torch.optim.Adam(net.parameters(), lr=0.01)
        for _ in range(30):
            optimizer.zero_grad()
            functional.cross_entropy(net(images), labels).backward()  # type: ignore[no-untyped-call]
            optimizer.step()
    torch.set_num_threads(threads)
    made: dict[str, Any] = net.state_dict()
    return made


def furnish(folder: Path) -> None:
    """Write the model in all its forms, the data and the recipes."""
    import torch
    from safetensors.torch import save_file

    from lepton_compress.artifacts import Model, Split, TensorSpec
    from lepton_compress.export.lower import lower

    folder.mkdir(parents=True, exist_ok=True)
    (folder / "net.py").write_text(NET)
    (folder / "data.py").write_text(DATA)
    net = trained()
    save_file(net.state_dict(), folder / "weights.safetensors")
    images = splits()["calibration"][0]
    batch = {"image": {0: torch.export.Dim("batch")}}
    program = torch.export.export(net, (torch.from_numpy(images[:2]),), dynamic_shapes=batch)
    torch.export.save(program, folder / "model.pt2")
    spec = TensorSpec("image", "float32", ("batch", 1, 6, 6))
    graph = lower(Model("module", net, (spec,), ("scores",)), Split({"image": images})).value
    (folder / "model.onnx").write_bytes(graph.SerializeToString(deterministic=True))
    for name, recipe in {"module": MODULE, "graph": GRAPH, "program": PROGRAM}.items():
        write_recipe(folder / f"{name}.yaml", recipe)


def write_recipe(path: Path, values: Mapping[str, Any], /, **changes: Any) -> Path:
    """A recipe file; a change of None removes the key."""
    made = {key: held for key, held in {**values, **changes}.items() if held is not None}
    path.write_text(yaml.safe_dump(made, sort_keys=False))
    return path


@dataclass(frozen=True)
class Done:
    """A command that has ended."""

    code: int
    out: str
    err: str

    def __str__(self) -> str:
        return f"exit code {self.code}\n--- stdout\n{self.out}\n--- stderr\n{self.err}"


class Bench:
    """The command line in a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def recipe(self, values: Mapping[str, Any], file: str = "recipe", /, **changes: Any) -> Path:
        """A recipe file in the folder."""
        return write_recipe(self.folder / f"{file}.yaml", values, **changes)

    def start(
        self,
        *arguments: str | Path,
        python: tuple[str, ...] = (),
        path: tuple[Path, ...] = (),
        **options: Any,
    ) -> subprocess.Popen[str]:
        """Start a command. `path` holds folders to import from, `python` flags of Python."""
        # What these tests were started with stays, so that the same package runs.
        given = [each for each in [os.environ.get("PYTHONPATH")] if each]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join([*map(str, path), *given])}
        environment.pop("LEPTON_WORKSPACE", None)
        environment.pop("COLUMNS", None)
        return subprocess.Popen(
            [sys.executable, *python, "-m", "lepton_compress.cli", *map(str, arguments)],
            cwd=self.folder,
            env=environment,
            text=True,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            **options,
        )

    def lepton(self, *arguments: str | Path, **options: Any) -> Done:
        """Run a command to its end."""
        return finish(self.start(*arguments, **options))

    def result(self, out: str = "runs/tiny") -> dict[str, Any]:
        """The result.json of a run."""
        held: dict[str, Any] = json.loads((self.folder / out / "result.json").read_text())
        return held

    def digests(self, out: str = "runs/tiny") -> dict[str, str]:
        """Candidate to SHA-256 of its artifact."""
        return {each["candidate"]: each["sha256"] for each in self.result(out)["artifacts"]}

    def tree(self) -> dict[str, bytes | None]:
        """Everything in the folder: path to bytes, None for a folder."""
        return {
            each.relative_to(self.folder).as_posix(): None if each.is_dir() else each.read_bytes()
            for each in sorted(self.folder.rglob("*"))
            if "__pycache__" not in each.parts
        }

    def entries(self, workspace: str = ".lepton") -> dict[str, list[Path]]:
        """Label to the folders of the store's finished entries."""
        found: dict[str, list[Path]] = {}
        for about in self.folder.glob(f"{workspace}/store/??/*/entry.json"):
            found.setdefault(json.loads(about.read_text())["label"], []).append(about.parent)
        return found


def finish(process: subprocess.Popen[str], deadline: float = DEADLINE) -> Done:
    """Wait for a command to end, at most that many seconds."""
    try:
        out, err = process.communicate(timeout=deadline)
    except subprocess.TimeoutExpired:
        process.kill()
        out, err = process.communicate()
        raise AssertionError(f"the command hung\n{out}\n{err}") from None
    return Done(process.returncode, out, err)


def wait_until(condition: Callable[[], bool], process: subprocess.Popen[str]) -> bool:
    """Wait until something has come true while a process runs; False if it ended before."""
    end = time.monotonic() + DEADLINE
    while not condition():
        if process.poll() is not None:
            return False
        assert time.monotonic() < end, "it did not come true in time"
        time.sleep(0.005)
    return True


def kill(process: subprocess.Popen[str]) -> None:
    """End a process as the system does when it runs out of memory."""
    process.send_signal(signal.SIGKILL)
    process.communicate()


def copy_of(source: Path, folder: Path) -> Bench:
    """A bench with everything that stands in another folder."""
    shutil.copytree(source, folder)
    return Bench(folder)


PROGRESS = re.compile(r" +\d+\.\d s  \w")
"""What took over a second before the mistake could show."""


def refused(done: Done, says: tuple[str, ...]) -> None:
    """Check what a command that was refused has said."""
    assert done.code == EXIT_USER, done
    lines = [line for line in done.err.splitlines() if not PROGRESS.match(line)]
    assert len(lines) == len(says), done
    for line, pattern in zip(lines, says, strict=True):
        assert line.startswith("error: "), done
        assert re.search(pattern, line), done
    assert "Traceback" not in done.err + done.out
    assert done.out == ""
