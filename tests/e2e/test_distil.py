"""Other teachers and students by the command line: kept, reloaded, made again when they change, and
refused before anything is trained."""

from __future__ import annotations

from typing import Any

import pytest

from tests.bench import MODULE, Bench, refused

NARROW = {"distil": {"student": {"args": {"width": 8}}, "epochs": 2, "features": "auto"}}
ALONE: dict[str, Any] = {"control": False, "gates": None}


def test_a_student_is_reloaded_and_made_again_if_its_factory_changes(bench: Bench) -> None:
    recipe = bench.recipe(MODULE, "asked", variants={"narrow": [NARROW]}, **ALONE)
    done = bench.lepton("run", recipe)
    assert done.code == 0, done
    sizes = {each["id"]: each["parameters"] for each in bench.result()["candidates"]}
    assert sizes["narrow"] < sizes["baseline"] / 2
    # Another process goes on from what was kept.
    bench.recipe(MODULE, "asked", variants={"narrow": [NARROW, "quantize"]}, **ALONE)
    done = bench.lepton("run", recipe)
    assert done.code == 0, done
    record = next(each for each in bench.result()["candidates"] if each["id"] == "narrow")
    assert record["history"][0]["cached"]
    assert set(record["history"][0]["statistics"]["terms"]) == {"outputs", "features", "labels"}
    source = bench.folder / "net.py"
    source.write_text(source.read_text().replace("MaxPool2d", "AvgPool2d"))
    assert bench.lepton("plan", recipe).out.count("cached") == 0


def test_the_teacher_counts(bench: Bench) -> None:
    step = {"distil": {"teacher": {"onnx": "teacher.onnx"}, "epochs": 1}}
    (bench.folder / "teacher.onnx").write_bytes((bench.folder / "model.onnx").read_bytes())
    recipe = bench.recipe(MODULE, "asked", variants={"taught": [step]}, **ALONE)
    done = bench.lepton("run", recipe)
    assert done.code == 0, done
    held = next(each for each in bench.result()["candidates"] if each["id"] == "taught")
    assert held["history"][0]["statistics"]["teacher"] == {"onnx": "teacher.onnx"}
    import onnx

    model = onnx.load(bench.folder / "teacher.onnx")
    model.doc_string = "another"
    onnx.save(model, bench.folder / "teacher.onnx")
    assert "distil (teacher.onnx teacher.onnx, epochs 1)  to do" in bench.lepton("plan", recipe).out


@pytest.mark.parametrize(
    ("steps", "says"),
    [
        (
            [{"distil": {"teacher": {"onnx": "none.onnx"}}}],
            r"asked\.yaml:.*variants\.asked\[0\]: .*none\.onnx: no such file",
        ),
        (
            [{"prune": {"ratio": "50 %"}}, NARROW],
            r"distil with a `student` puts another model in.*; put it first",
        ),
        (
            [{"distil": {"teacher": {"factory": "other.py:Two"}}}],
            r"distil: teacher: the outputs of the teacher do not match: it gives \[batch, 2\]",
        ),
        (
            [{"distil": {"student": {"factory": "other.py:Two"}}}],
            r"distil: student: the outputs of the student do not match",
        ),
        (
            [{"distil": {"features": {"conv1": "conv9"}}}],
            r"the teacher has no layer 'conv9' that gives values; did you mean 'conv",
        ),
        ([{"distil": {"weights": {"output": 1}}}], r"unknown key 'output'; did you mean 'outputs'"),
    ],
)
def test_what_cannot_be_is_one_line(bench: Bench, steps: list[Any], says: str) -> None:
    (bench.folder / "other.py").write_text(
        "from torch import nn\n\n\n"
        "class Two(nn.Sequential):\n"
        "    def __init__(self):\n"
        "        super().__init__(nn.Flatten(), nn.Linear(36, 2))\n\n"
        "    def forward(self, image):\n"
        "        return super().forward(image)\n"
    )
    recipe = bench.recipe(MODULE, "asked", variants={"asked": steps}, control=False)
    refused(bench.lepton("run", recipe), (says,))
