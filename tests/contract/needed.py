"""What each plug-in needs beside its defaults, and what to try it on. A new plug-in is covered as
soon as it stands in the registry; one with required parameters gets its line here."""

from __future__ import annotations

import copy
import functools
import tempfile
import wave
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lepton_compress import registry
from lepton_compress.artifacts import Dataset, Model, Split, TensorSpec
from lepton_compress.load import forms
from lepton_compress.load.data import make_dataset
from lepton_compress.registry import Params
from tests.bench import splits, trained

PLUGINS = sorted(registry.table())

PARAMETERS: dict[tuple[str, str], dict[str, Any]] = {
    ("step", "prune"): {"ratio": "50 %"},
    ("step", "distil"): {"epochs": 1},
    ("step", "finetune"): {"epochs": 1},
    ("step", "transfer"): {"epochs": 1, "head_epochs": 1},
    ("step", "quantize_aware"): {"epochs": 1},
    ("metric", "top_k"): {"k": 2},
    ("metric", "python"): {"function": "own.py:metric"},
    **{("metric", name): {"resamples": 20} for name in ("f1", "precision", "recall", "auroc")},
    **{("metric", name): {"resamples": 20} for name in ("average_precision", "r2")},
    ("metric", "word_error_rate"): {"resamples": 20},
    ("preprocessing", "audio"): {"rate": 8000},
    ("preprocessing", "text"): {"tokenizer": "tokenizer.json", "length": 8},
    ("runtime", "ethos-u"): {"accelerator": "ethos-u55-128"},
    ("runtime", "onnxruntime-qnn"): {"architecture": "v73"},
    ("loader", "python"): {"function": "own.py:load", "args": {"count": 20}},
    ("loader", "images"): {"path": "pictures"},
    ("loader", "idx"): {"images": "images.idx", "labels": "labels.idx"},
    ("loader", "npz"): {"path": "data.npz", "inputs": ["x", "side"], "targets": "y"},
    ("loader", "text"): {"path": "texts.csv"},
    ("loader", "wav"): {"path": "sounds", "rate": 8000, "samples": 400},
}

OWN = """
import numpy as np


def metric(outputs, targets):
    return (outputs["y"].argmax(axis=1) == targets).astype(float)


def load(count):
    draw = np.random.default_rng(0)
    return {
        name: (draw.normal(size=(count, 3)), draw.integers(3, size=count))
        for name in ("train", "calibration", "evaluation")
    }
"""


def of_kind(kind: str) -> list[str]:
    """The names of one kind."""
    return [name for each, name in PLUGINS if each == kind]


def installed(names: list[str]) -> list[Any]:
    """Of plug-ins, as parameters of tests; those whose extra is absent are skipped, and why."""
    import importlib.util

    import pytest

    found: list[Any] = []
    for name in names:
        extra = EXTRAS.get(name)
        absent = extra is not None and importlib.util.find_spec(extra) is None
        skip = pytest.mark.skip(reason=f"the extra `{extra}` is not installed")
        found.append(pytest.param(name, marks=skip) if absent else name)
    return found


EXTRAS = {name: "executorch" for _, name in PLUGINS if name.startswith("executorch")}
"""Plug-ins whose extra need not be installed, with its package."""


def parameters(kind: str, name: str) -> Params:
    """The defaults, with what is needed."""
    given = PARAMETERS.get((kind, name), {})
    if name in ("restore", "restore_graph"):
        given = {"folder": str(_session().parent / name)}
    return registry.get(kind, name).params.model_validate(given)


@functools.cache
def _session() -> Path:
    """A folder for each form of model that a training session has saved."""
    import torch

    from lepton_compress.during_training.session import TrainingSession

    folder = Path(tempfile.mkdtemp()) / "restore"
    for name, asked in (
        ("restore", {"prune": {"ratio": "50 %", "begin": "0 %", "end": "0 %", "times": 1}}),
        ("restore_graph", {"quantize_aware": {"begin": "0 %"}}),
    ):
        model = copy.deepcopy(_trained())
        optimizer = torch.optim.SGD(model.parameters(), 1e-3)
        with TrainingSession(
            model, data=splits(), updates=2, outputs=("scores",), threads=1, **asked
        ) as session:
            for rows in torch.split(torch.from_numpy(splits()["train"][0]), 8)[:2]:
                optimizer.zero_grad()
                model(rows).square().mean().backward()
                optimizer.step()
                session.update(optimizer)
        session.save(folder.parent / name)
    return folder


def files(folder: Path) -> Path:
    """The folder, with the files that the parameters name."""
    draw = np.random.default_rng(0)
    (folder / "own.py").write_text(OWN)
    arrays = {"x": draw.normal(size=(40, 3)), "side": draw.normal(size=(40, 2))}
    np.savez(folder / "data.npz", y=draw.integers(3, size=40), **arrays)  # type: ignore[arg-type]
    write_pictures(folder / "pictures")
    write_idx(folder / "images.idx", draw.integers(256, size=(40, 4, 5)).astype(np.uint8))
    write_idx(folder / "labels.idx", draw.integers(10, size=40).astype(np.uint8))
    rows = [f"sentence {index},word{index % 2}" for index in range(20)]
    (folder / "texts.csv").write_text("\n".join(["text,label", *rows]), encoding="utf-8")
    for index in range(20):
        place = folder / "sounds" / f"word{index % 2}"
        place.mkdir(parents=True, exist_ok=True)
        with wave.open(str(place / f"{index}.wav"), "wb") as file:
            file.setparams((1, 2, 8000, 0, "NONE", ""))
            file.writeframes(draw.integers(-9000, 9000, 300).astype("<i2").tobytes())
    return folder


def write_pictures(folder: Path, count: int = 40) -> None:
    """Pictures of 5x4 in a folder for each of two labels."""
    from PIL import Image

    draw = np.random.default_rng(0)
    for row in range(count):
        path = folder / f"label{row % 2}" / f"{row}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(draw.integers(256, size=(4, 5, 3)).astype(np.uint8)).save(path)


def write_idx(path: Path, array: NDArray[np.uint8]) -> None:
    """An IDX file of bytes."""
    head = bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">u4").tobytes()
    path.write_bytes(head + array.tobytes())


def image_data() -> Dataset:
    """What the small network was trained on."""
    return make_dataset(splits(), "data")


def module() -> Model:
    """The small trained network."""
    spec = TensorSpec("image", "float32", ("batch", 1, 6, 6))
    return Model("module", copy.deepcopy(_trained()), (spec,), ("scores",))


@functools.cache
def _trained() -> Any:
    net = trained()
    net.zero_grad(set_to_none=True)
    return net


@functools.cache
def _lowered() -> Model:
    from lepton_compress.export.lower import lower

    return lower(module(), Split({"image": splits()["calibration"][0]}))


def graph() -> Model:
    """The small trained network as an ONNX graph."""
    return forms.duplicate(_lowered())


def several() -> Model:
    """An ONNX graph of two inputs, one of whole numbers, and two outputs."""
    from onnx import TensorProto, checker, helper, numpy_helper

    draw = np.random.default_rng(0)
    weights = {"table": draw.normal(size=(9, 4)), "mix": draw.normal(size=(4, 3))}
    value, floats, integers = helper.make_tensor_value_info, TensorProto.FLOAT, TensorProto.INT64
    nodes = [
        helper.make_node("Gather", ["table", "ids"], ["rows"], "embed"),
        helper.make_node("Add", ["rows", "side"], ["sum"], "add"),
        helper.make_node("MatMul", ["sum", "mix"], ["scores"], "mix"),
        helper.make_node("ArgMax", ["scores"], ["label"], "pick", axis=1, keepdims=0),
    ]
    made = helper.make_model(
        helper.make_graph(
            nodes,
            "several",
            [value("ids", integers, ["batch"]), value("side", floats, ["batch", 4])],
            [value("scores", floats, ["batch", 3]), value("label", integers, ["batch"])],
            [numpy_helper.from_array(a.astype(np.float32), name) for name, a in weights.items()],
        ),
        opset_imports=[helper.make_opsetid("", 20)],
        ir_version=10,
    )
    checker.check_model(made, full_check=True)
    return Model("graph", made, *forms.signature(made))


GRAPHS = {"image": graph, "several": several}


def feeds(model: Model, batch: int) -> dict[str, NDArray[Any]]:
    """A batch for any model."""
    draw = np.random.default_rng(batch)
    made = {}
    for spec in model.inputs:
        shape = (batch, *(int(size) for size in spec.shape[1:]))
        whole = spec.dtype.startswith("int")
        made[spec.name] = (
            draw.integers(9, size=shape) if whole else draw.normal(size=shape)
        ).astype(spec.dtype)
    return made
