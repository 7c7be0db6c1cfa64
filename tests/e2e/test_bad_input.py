"""Wrong input: one clear line a mistake that names the place and the mend, exit code 2, and nothing
written."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from lepton_compress.errors import EXIT_OK, EXIT_UNEXPECTED, EXIT_USER
from tests.bench import BASE, DATA, GRAPH, MODULE, NET, Bench, refused

NO_SUCH_PACKAGE = """
import a_package_that_nobody_has
from lepton_compress.registry import Params, plugin


@plugin("step", "polish", Params, form="graph")
def polish(model, params, context):
    '''Needs a package.'''
"""

PLUGINS = """
from lepton_compress.registry import Params, plugin
from lepton_compress.artifacts import StepOutcome


@plugin("step", "idle", Params, form="graph")
def idle(model, params, context):
    '''Finds nothing to do.'''
    return StepOutcome(model, changed=False, notes=("there is no moon",))


@plugin("step", "crash", Params, form="graph")
def crash(model, params, context):
    '''Divides by zero.'''
    return 1 / 0
"""


def offer(bench: Bench, entries: dict[str, str], **modules: str) -> Path:
    """Install somebody else's plug-ins beside the bench and return the folder to import from."""
    folder = bench.folder.parent / "site"
    about = folder / "acme-0.dist-info"
    about.mkdir(parents=True)
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: acme\nVersion: 0\n")
    lines = [f"{name} = {path}" for name, path in entries.items()]
    (about / "entry_points.txt").write_text("[lepton_compress.plugins]\n" + "\n".join(lines) + "\n")
    for module, source in modules.items():
        (folder / f"{module}.py").write_text(source)
    return folder


def data(bench: Bench, code: str) -> None:
    """Replace the loader by one whose splits go through `code`."""
    loader = DATA.replace("return made", "train, calibration, evaluation = made.values()\n    MORE")
    (bench.folder / "data.py").write_text(loader.replace("MORE", f"{code}\n    return made"))


def net(bench: Bench, code: str) -> None:
    """Add a factory called `make`."""
    (bench.folder / "net.py").write_text(f"{NET}\n\ndef make():\n    {code}\n")


def checkpoint(bench: Bench, name: str, make: Callable[[Any], Any]) -> None:
    """Save something made from the trained state dict with torch.save."""
    import torch
    from safetensors.torch import load_file

    torch.save(make(load_file(bench.folder / "weights.safetensors")), bench.folder / name)


def outside(bench: Bench) -> None:
    """Move the ONNX file's tensors into the folder above it."""
    import onnx

    model = onnx.load(bench.folder / "model.onnx")
    name = "weights.bin"
    onnx.external_data_helper.convert_model_to_external_data(model, location=name, size_threshold=0)
    onnx.save(model, bench.folder / "model.onnx")
    text = (bench.folder / "model.onnx").read_bytes()
    # Of equal length, so that the lengths written in the file stay right.
    (bench.folder / "model.onnx").write_bytes(text.replace(b"weights.bin", b"../ghts.bin"))
    (bench.folder / name).rename(bench.folder.parent / "ghts.bin")


def cut(path: Path) -> None:
    """Leave the first half of a file."""
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def model(**changes: Any) -> dict[str, Any]:
    """The recipe of the module with another `model` section."""
    return {**MODULE, "model": {**MODULE["model"], **changes}}


def torch_file(bench: Bench, content: str) -> None:
    (bench.folder / "weights.pt").write_text(content)


@dataclass(frozen=True)
class Case:
    """A mistake.

    Attributes:
        recipe: in which it is made, or by which it is found.
        says: patterns; each must stand in the line of stderr with that number.
        prepare: makes the mistake in the bench's files.
    """

    recipe: dict[str, Any]
    says: tuple[str, ...]
    prepare: Callable[[Bench], object] = lambda bench: None


IN_RECIPE = {
    "unknown key": Case(
        {**GRAPH, "gate": {"drop": "1 %"}}, (r"recipe\.yaml:\d+: gate: .*did you mean 'gates'",)
    ),
    "wrong unit": Case(
        {**GRAPH, "gates": {"size": "2 ms"}}, (r"recipe\.yaml:\d+: gates\.size.*'ms'.*150 KB",)
    ),
    "several mistakes": Case(
        {**GRAPH, "gates": {"size": "2 ms"}, "select": "fast"},
        (r"recipe\.yaml:\d+: select.*'fastest'", r"recipe\.yaml:\d+: gates\.size"),
    ),
    "unknown step": Case(
        {**GRAPH, "variants": {"a": ["quantise"]}},
        (r"recipe\.yaml:\d+: variants\.a\[0\].*unknown step.*did you mean 'quantize'",),
    ),
    "unknown parameter": Case(
        {**GRAPH, "variants": {"a": [{"quantize": {"sample": 3}}]}},
        (r"recipe\.yaml:\d+: variants\.a\[0\]\.quantize\.sample.*did you mean 'samples'",),
    ),
    "unknown runtime": Case(
        {**GRAPH, "targets": [{"name": "edge", "runtime": "onnxruntime-cup"}]},
        (r"recipe\.yaml:\d+: targets\[0\]\.runtime.*did you mean 'onnxruntime-cpu'",),
    ),
    "unknown metric": Case(
        {**GRAPH, "metrics": ["acuracy"]},
        (r"recipe\.yaml:\d+: metrics\[0\].*did you mean 'accuracy'",),
    ),
    "a step that the model's form forbids": Case(
        {**GRAPH, "variants": {"a": [{"prune": {"ratio": "50 %"}}]}},
        (r"recipe\.yaml:\d+: variants\.a\[0\].*torch module.*ONNX graph; give the model as",),
    ),
    "a torch step behind a graph step": Case(
        {**MODULE, "variants": {"a": ["quantize", "finetune"]}},
        (r"recipe\.yaml:\d+: variants\.a\[1\].*quantize has made it.*; put it before quantize",),
    ),
    "no recipe": Case(
        GRAPH, (r"recipe\.yaml: no such file",), lambda b: (b.folder / "recipe.yaml").unlink()
    ),
}

IN_MODEL = {
    "missing weights": Case(model(weights="no.safetensors"), (r"no\.safetensors: no such file",)),
    "missing factory file": Case(model(factory="no.py:Net"), (r"no\.py: no such file",)),
    "missing factory": Case(
        model(factory="net.py:Nett"), (r"net\.py.*'Nett'; did you mean 'Net'",)
    ),
    "missing onnx file": Case(
        {**GRAPH, "model": {"onnx": "no.onnx"}}, (r"no\.onnx: no such file",)
    ),
    "a factory that raises": Case(
        model(factory="net.py:make"),
        (r"net\.py:make: the factory raised ValueError: two lines of text; check",),
        lambda b: net(b, 'raise ValueError("two lines\\nof text")'),
    ),
    "a factory file that raises": Case(
        model(factory="net.py:Net"),
        (r"net\.py:Net: importing it raised NameError: .*nonsense",),
        lambda b: (b.folder / "net.py").write_text("nonsense"),
    ),
    "a factory that makes no module": Case(
        model(factory="net.py:make"),
        (r"net\.py:make: the factory returned dict, not a torch\.nn\.Module",),
        lambda b: net(b, "return {}"),
    ),
    "wrong arguments of the factory": Case(
        model(args={"depth": 3}),
        (r"net\.py:Net: the factory raised TypeError.*depth.*model\.args",),
    ),
    "weights of another width": Case(
        model(args={"width": 8}),
        (r"weights\.safetensors: .*do not fit.*conv1\.bias is \[16\].*\[8\]",),
    ),
    "weights with other names": Case(
        model(weights="weights.pt"),
        (r"weights\.pt: .*do not fit.*missing: conv1\.bias.*not in the model: x\.conv1\.bias",),
        lambda b: checkpoint(b, "weights.pt", lambda s: {f"x.{k}": v for k, v in s.items()}),
    ),
    "truncated weights": Case(
        model(), (r"weights\.safetensors: not a safetensors file",),
        lambda b: cut(b.folder / "weights.safetensors"),
    ),
    "a pickle": Case(
        model(weights="weights.pt"),
        (r"weights\.pt: holds pickled objects.*safetensors, or pass --trust-pickle",),
        lambda b: checkpoint(b, "weights.pt", lambda s: {"state_dict": s, "when": Path("x")}),
    ),
    "no checkpoint at all": Case(
        model(weights="weights.pt"), (r"weights\.pt: not a torch checkpoint",),
        lambda b: torch_file(b, "once upon a time"),
    ),
    "outputs that there are not": Case(
        model(outputs=["a", "b"]), (r"net\.py:Net: the model gives 1 outputs, but 2 are named",)
    ),
    "corrupt onnx": Case(
        GRAPH, (r"model\.onnx: not a valid ONNX model.*; export it again",),
        lambda b: (b.folder / "model.onnx").write_bytes(b"\x08\x07garbage"),
    ),
    "truncated onnx": Case(
        GRAPH, (r"model\.onnx: not a valid ONNX model.*; export it again",),
        lambda b: cut(b.folder / "model.onnx"),
    ),
    "empty onnx": Case(
        GRAPH, (r"model\.onnx: .*; export it again",),
        lambda b: (b.folder / "model.onnx").write_bytes(b""),
    ),
    "external data outside its folder": Case(
        GRAPH,
        (r"model\.onnx: keeps the tensor .* outside its folder, in '\.\./ghts\.bin'",),
        outside,
    ),
    "truncated program": Case(
        {**GRAPH, "model": {"program": "model.pt2"}},
        (r"model\.pt2: not an exported program .*; use torch\.export\.save",),
        lambda b: cut(b.folder / "model.pt2"),
    ),
}  # fmt: skip

IN_DATA = {
    "missing loader": Case(
        {**GRAPH, "data": {"python": {"function": "data.py:lod"}}},
        (r"data\.py.*'lod'; did you mean 'load'",),
    ),
    "a loader that raises": Case(
        GRAPH, (r"data\.py:load: raised ZeroDivisionError",), lambda b: data(b, "1 / 0")
    ),
    "empty": Case(
        GRAPH, (r"recipe\.yaml:\d+: data: train: .*empty; give at least one",),
        lambda b: data(b, 'made["train"] = (train[0][:0], train[1][:0])'),
    ),
    "NaN": Case(
        GRAPH, (r"data: calibration: input has a NaN.* in sample 2; drop it",),
        lambda b: data(b, "calibration[0][2, 0, 3, 3] = np.nan"),
    ),
    "overlapping splits": Case(
        GRAPH, (r"data: sample 5 of evaluation also stands in train; make the splits disjoint",),
        lambda b: data(b, "evaluation[0][5] = train[0][9]"),
    ),
    "labels outside the range": Case(
        GRAPH,
        (r"recipe\.yaml:\d+: metrics\[0\]: .*labels run from 0 to 4.*4 classes.*; renumber",),
        lambda b: data(b, "evaluation[1][3] = 4"),
    ),
    "another shape": Case(
        GRAPH, (r"model\.onnx: ",),
        lambda b: data(b, 'made = {k: (x[..., :5], y) for k, (x, y) in made.items()}'),
    ),
    "a missing split": Case(
        GRAPH, (r"data: expected a mapping with the keys train, calibration, evaluation, not",),
        lambda b: data(b, 'del made["calibration"]'),
    ),
}  # fmt: skip

IN_STEPS = {
    "labels of the train split outside the range": Case(
        {**MODULE, "variants": {"a": ["finetune"]}},
        (r"recipe\.yaml:\d+: variants\.a\[0\]: data: train: the loss .* fails: .*; check the",),
        lambda b: data(b, "train[1][3] = 4"),
    ),
    "matches nothing": Case(
        {**GRAPH, "variants": {"a": ["idle"]}},
        (r"recipe\.yaml:\d+: variants\.a\[0\]: the step idle matches nothing .*no moon.*; change",),
    ),
    "a layer that there is not": Case(
        {**MODULE, "variants": {"a": [{"prune": {"ratio": "50 %", "keep": ["conv9"]}}]}},
        (r"recipe\.yaml:\d+: variants\.a\[0\]: prune: keep: the model has no layer 'conv9'",),
    ),
    "a budget that cannot be met": Case(
        {**MODULE, "variants": {"a": [{"prune": {"to": {"macs": "0.001x"}}}]}},
        (r"recipe\.yaml:\d+: variants\.a\[0\]: prune: to: macs cannot go below 0\.\d+x",),
    ),
}


@pytest.mark.parametrize("name", [*IN_RECIPE, *IN_MODEL, *IN_DATA])
def test_wrong_input_is_refused_and_nothing_is_written(bench: Bench, name: str) -> None:
    case = {**IN_RECIPE, **IN_MODEL, **IN_DATA}[name]
    bench.recipe(case.recipe)
    case.prepare(bench)
    before = bench.tree()
    refused(bench.lepton("run", "recipe.yaml"), case.says)
    assert bench.tree() == before


@pytest.mark.slow
@pytest.mark.parametrize("name", IN_STEPS)
def test_a_step_that_cannot_do_its_work_leaves_no_run_folder(bench: Bench, name: str) -> None:
    case = IN_STEPS[name]
    bench.recipe(case.recipe)
    case.prepare(bench)
    site = offer(bench, {"step.idle": "plugs:idle"}, plugs=PLUGINS)
    before = bench.tree()
    refused(bench.lepton("run", "recipe.yaml", path=(site,)), case.says)
    # What earlier steps found stays in the workspace, for the next run; the step left nothing.
    kept = bench.tree().keys() - before.keys()
    assert all(path.startswith(".lepton") for path in kept)
    assert set(bench.entries()) <= {"check", "lower", "export onnx"}
    assert not list(bench.folder.glob(".lepton/store/tmp/*"))


def test_a_missing_extra_names_what_brought_the_plugin(bench: Bench) -> None:
    bench.recipe({**GRAPH, "variants": {"a": ["polish"]}})
    site = offer(bench, {"step.polish": "polishing:polish"}, polishing=NO_SUCH_PACKAGE)
    before = bench.tree()
    done = bench.lepton("run", "recipe.yaml", path=(site,))
    pattern = (
        r"recipe\.yaml:\d+: variants\.a\[0\]: .*'polish'.*a_package_that_nobody_has.*; install"
    )
    refused(done, (pattern + ".*acme",))
    assert bench.tree() == before


@pytest.mark.slow
def test_a_pickle_is_loaded_when_it_is_trusted(bench: Bench) -> None:
    checkpoint(bench, "weights.pt", lambda state: {"state_dict": state, "when": Path("x")})
    bench.recipe({**model(weights="weights.pt"), "variants": {}})
    done = bench.lepton("run", "recipe.yaml", "--trust-pickle")
    assert done.code == EXIT_OK, done


class TestUnexpected:
    def test_the_log_of_a_broken_plugin_is_named_and_holds_the_traceback(
        self, bench: Bench
    ) -> None:
        bench.recipe({**GRAPH, "variants": {"a": ["crash"]}})
        site = offer(bench, {"step.crash": "plugs:crash"}, plugs=PLUGINS)
        done = bench.lepton("run", "recipe.yaml", path=(site,))
        assert done.code == EXIT_UNEXPECTED, done
        first, second = done.err.splitlines()[-2:]
        assert first == "error: step crash (acme): raised ZeroDivisionError: division by zero"
        log = Path(second.removeprefix("the log is "))
        text = log.read_text()
        log.unlink()
        assert "Traceback" in text
        assert "return 1 / 0" in text
        assert not (bench.folder / "runs").exists()


def test_json_carries_the_errors_too(bench: Bench) -> None:
    import json

    bench.recipe({**BASE, "model": {"onnx": "no.onnx"}})
    done = bench.lepton("run", "recipe.yaml", "--json")
    assert done.code == EXIT_USER
    held = json.loads(done.out)
    assert held["exit_code"] == EXIT_USER
    assert [f"error: {line}" for line in held["errors"]] == done.err.splitlines()
