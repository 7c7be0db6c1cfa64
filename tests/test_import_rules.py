"""Who may import whom, who may import a framework, and who may print.

The tables below are the rules. A new module gets its line here when it is made.
"""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import lepton_compress
from lepton_compress.registry import BUILTIN

FOLDER = Path(lepton_compress.__file__).parent
PACKAGE = "lepton_compress"

FOUNDATION = [
    "errors",
    "artifacts",
    "overviews",
    "accounts",
    "comparison",
    "judgements",
    "predictions",
    "units",
    "provenance",
    "document",
    "registry",
    "findings",
]
FOUNDATION += ["use", "budget", "catalogue", "serving", "recipe", "store", "ranges"]
FOUNDATION += ["layers"]
FOUNDATION += ["placements"]
"""Lowest first: each may import those before it, and nothing else."""

FOR_ALL = {"errors", "artifacts", "overviews", "accounts", "units", "provenance", "registry"}
FOR_ALL |= {"comparison", "predictions"}
FOR_ALL |= {"budget", "judgements", "recipe", "store", "ranges"}
FOR_ALL |= {"layers"}
FOR_ALL |= {"placements"}
"""What every stage may import."""

STAGES = {
    "load": {"load"},
    "graph": {"load.forms"},
    "statistics": set[str](),
    "metrics": {"load.references"},
    "torch_metrics": {"metrics"},
    "alignment": set[str](),
    "compress": {"alignment", "compress", "graph", "load.forms", "load.external", "statistics"},
    "export": {"alignment", "export", "graph", "load.forms", "load.external"},
    "verify": {"graph", "load.forms", "statistics", "targets.runner"},
    "preprocess": {"preprocess", "load.files", "load.forms", "verify"},
    "evaluate": {"statistics", "targets.runner"},
    "behave": {"statistics"},
    "corrupt": set[str](),
    "targets": {"targets", "findings"},
    "profile": {"profile", "statistics", "targets.runner", "catalogue"},
    "readings": set[str](),
    "gate": {"readings"},
    "regress": {"gate", "readings", "evaluate"},
    "front": {"readings"},
    "outcomes": {"statistics"},
    # It reads what the loaders and the report wrote, by their own readers.
    "inspect": {"inspect", "graph", "load.forms", "load.model", "load.references", "load.weights"}
    | {"report.folder"},
    "predict": {
        "predict",
        "preprocess",
        "load.pictures",
        "load.sound",
        "load.text",
        "targets.litert_session",
        "targets.runner",
    },
    # It reads a run and its recipe's data as those who wrote and used them do.
    "explain": {"explain", "graph", "job", "load.forms", "load.model", "report.folder"}
    | {"targets.onnxruntime_session"},
    # It brings old results up to date, which lack what follows from the rest.
    "report": {"report", "front", "outcomes", "readings"},
}
STAGES["compress"].add("load.narrow")
STAGES["compress"].add("load.references")
STAGES["place"] = {"place", "document", "findings", "statistics", "use"}
STAGES["export"].add("targets.frames")
STAGES["export"] |= {"targets.frames", "findings"}
STAGES["preprocess"] |= {"export.comparable", "export.unrounded", "targets.frames"}
STAGES["profile"] |= {"targets.frames", "targets.listing", "targets.remedies"}
STAGES["profile"].add("targets.flatbuffer")
STAGES["targets"].add("graph")
STAGES["predict"].add("targets.stepping")
STAGES["explain"].add("targets.frames")
STAGES["explain"].add("targets.litert_session")
STAGES["place"] |= {"load.external", "verify", "targets.runner"}
STAGES["report"] |= {"place.cuts"}
STAGES["predict"].add("targets.executorch_session")
STAGES["export"].add("targets.executorch_session")
"""What a stage may import beside that: never another stage, only the helper modules named here."""

COMPOSERS = ["job", "branches", "controls", "keys", "plan", "requirements", "plugins", "doctor"]
COMPOSERS += ["cache"]
COMPOSERS.insert(0, "launched")
COMPOSERS += ["compare", "joined", "tracking"]
COMPOSERS += ["devices", "elsewhere", "measuring"]
COMPOSERS += ["target_pages"]
COMPOSERS += ["sensing"]
COMPOSERS += ["weighing", "halving", "splitting", "deploying"]
COMPOSERS += ["placing"]
COMPOSERS += ["scaffold", "behaving", "verifying", "predicting", "pipeline", "library"]
COMPOSERS += ["crossing"]
COMPOSERS += ["remeasure", "judging", "during_training", "__init__"]
"""They put the stages together. Each may import every stage, and the composers before it."""

TERMINAL = ["boundary", "options", "gate_command", "asking", "commands", "reporting", "aiming"]
TERMINAL += ["sensitivity_command"]
TERMINAL += ["place_command"]
TERMINAL += ["split_command"]
TERMINAL += ["cli"]
"""The command line. It may import everything; nothing else may import it."""

PLACED = {*FOUNDATION, *STAGES, *COMPOSERS, *TERMINAL}

FRAMEWORKS = {"torch", "onnx", "onnxruntime", "onnxscript", "onnxsim", "numpy", "torch_pruning"}
FRAMEWORKS |= {
    "neural_compressor",
    "safetensors",
    "sklearn",
    "scipy",
    "torchmetrics",
    "pycocotools",
}
FRAMEWORKS |= {"PIL"}
FRAMEWORKS |= {"executorch"}
FRAMEWORKS |= {"tokenizers"}
FRAMEWORKS |= {"ethosu", "tflite_micro", "ai_edge_litert", "flatbuffers"}
FRAMEWORKS |= {"openvino", "onnxruntime_qnn"}
FRAMEWORKS |= {"jinja2", "markupsafe", "matplotlib", "mlflow"}

FRAMEWORKS |= {"starlette", "uvicorn", "prometheus_client", "urllib3"}

IMPLEMENTATIONS = {
    "during_training.narrowing": {"torch"},
    "during_training.rounding": {"torch"},
    "alignment": {"numpy", "onnx"},
    "preprocess.attach": {"numpy", "onnx"},
    "preprocess.nodes": {"numpy", "onnx"},
    "preprocess.pixels": {"numpy"},
    "preprocess.probabilities": {"numpy", "scipy"},
    "preprocess.surrounded": {"onnx"},
    "report.sensitivity_figure": {"numpy"},
    "compress.channels": {"torch"},
    "compress.latency_fit": {"numpy"},
    "compress.latency_table": {"numpy", "onnx"},
    "compress.layer_graphs": {"numpy", "onnx"},
    "compress.layer_shapes": {"torch"},
    "compress.narrowing": {"numpy"},
    "compress.prune_to_latency": {"numpy"},
    "compress.pruning": {"numpy"},
    "compress.pruning_sensitivity": {"numpy"},
    "compress.cutting": {"torch"},
    "compress.heads": {"torch"},
    "compress.importance": {"torch"},
    "compress.observing": {"torch"},
    "compress.exporting": {"numpy"},
    "compress.stand_ins": {"torch"},
    "compress.tracing": {"torch", "torch_pruning"},
    "compress.trying": {"torch"},
    "load.narrow": {"torch"},
    "compress.absorb": {"onnx"},
    "compress.account": {"numpy", "onnx"},
    "compress.attention": {"numpy", "onnx"},
    "compress.block_graph": {"numpy", "onnx"},
    "compress.block_rounding": {"numpy", "torch"},
    "compress.blocks": {"numpy"},
    "compress.bfloat_graph": {"numpy", "onnx"},
    "compress.calibration": {"numpy", "onnx", "onnxruntime"},
    "compress.distillation": {"torch"},
    "compress.hints": {"torch"},
    "compress.masks": {"torch"},
    "compress.sparsity": {"torch"},
    "compress.watching": {"torch"},
    "compress.dynamic_int8": {"numpy", "onnx"},
    "compress.clips": {"numpy", "onnx"},
    "compress.equalization": {"numpy"},
    "compress.facts": {"numpy", "onnx"},
    "compress.aware": {"numpy", "torch"},
    "compress.fake_quantization": {"torch"},
    "compress.half_graph": {"numpy", "onnx"},
    "compress.layout": {"numpy", "onnx"},
    "compress.half_precision": {"numpy", "onnx"},
    "compress.high_biases": {"numpy", "onnx"},
    "compress.layer_error": {"numpy", "onnx", "onnxruntime"},
    "compress.moving": {"numpy", "onnx"},
    "compress.noise": {"numpy"},
    "compress.observed": {"numpy"},
    "compress.placement": {"numpy", "onnx", "torch"},
    "compress.prepare": {"numpy", "onnx"},
    "compress.products": {"numpy", "onnx"},
    "compress.race": {"numpy", "onnx"},
    "compress.rounding": {"numpy", "onnx", "onnxruntime", "torch"},
    "compress.saturation": {"numpy"},
    "compress.layer_costs": {"numpy", "onnx"},
    "compress.sensitivity": {"numpy", "onnx"},
    "compress.regions": {"numpy", "onnx", "scipy"},
    "compress.saved_ranges": {"onnx"},
    "compress.session": {"onnx", "onnxruntime"},
    "compress.smoothing": {"numpy", "onnx"},
    "compress.soundness": {"numpy"},
    "compress.stages": {"numpy", "onnx", "onnxruntime"},
    "compress.static_int8": {"numpy", "onnx", "onnxruntime"},
    "compress.traced": {"numpy", "torch"},
    "compress.trained_graph": {"numpy", "onnx", "onnxruntime"},
    "compress.batch_norm": {"torch"},
    "compress.checkpoint": {"safetensors", "torch"},
    "compress.head": {"numpy", "torch"},
    "compress.loop": {"numpy", "torch"},
    "compress.losses": {"torch"},
    "compress.schedule": {"torch"},
    "compress.training": {"torch"},
    "compress.validation": {"numpy"},
    "compress.workers": {"torch"},
    "compress.trial": {"numpy"},
    "compress.weight_channels": {"numpy", "onnx"},
    "compress.weight_only": {"numpy", "onnx", "torch"},
    "compress.weight_stream": {"numpy", "onnx"},
    "export.aten.elementwise_operators": {"torch"},
    "export.aten.layer_operators": {"numpy", "torch"},
    "export.aten.movement_operators": {"torch"},
    "export.aten.network": {"numpy", "torch"},
    "export.aten.program": {"executorch", "torch"},
    "export.aten.recurrent_operators": {"torch"},
    "export.aten.rounding": {"torch"},
    "export.flatbuffer.activations": {"numpy"},
    "export.flatbuffer.arithmetic": {"numpy"},
    "export.flatbuffer.builder": {"ai_edge_litert", "flatbuffers", "numpy"},
    "export.flatbuffer.convert": {"numpy"},
    "export.flatbuffer.converter": {"numpy"},
    "export.flatbuffer.convolution_operators": {"numpy"},
    "export.flatbuffer.elementwise_operators": {"numpy"},
    "export.flatbuffer.graph": {"numpy"},
    "export.flatbuffer.movement_operators": {"numpy"},
    "export.flatbuffer.pool_operators": {"numpy"},
    "export.flatbuffer.product_operators": {"numpy"},
    "export.flatbuffer.quantization": {"numpy"},
    "export.flatbuffer.reduction_operators": {"numpy"},
    "export.flatbuffer.recurrent_operators": {"numpy"},
    "export.flatbuffer.recurrent_steps": {"numpy"},
    "export.flatbuffer.resize_operators": {"numpy", "onnx", "onnxruntime"},
    "export.flatbuffer.rewrite": {"numpy"},
    "export.flatbuffer.trace": {"numpy", "onnx", "onnxruntime"},
    "export.flatbuffer.weights": {"numpy"},
    "load.sound": {"numpy"},
    "export.along_time": {"numpy", "onnx"},
    "export.comparable": {"onnx"},
    "export.framing": {"numpy", "onnx"},
    "export.recurrence": {"numpy", "onnx"},
    "export.rewriting": {"numpy", "onnx"},
    "export.stepwise": {"onnx"},
    "export.unrounded": {"numpy", "onnx"},
    "export.windows": {"onnx"},
    "preprocess.mel": {"numpy"},
    "preprocess.tokens": {"numpy"},
    "profile.extras": {"numpy"},
    "profile.lanes": {"numpy"},
    "profile.measure": {"numpy"},
    "profile.places": {"numpy"},
    "profile.process": {"numpy"},
    "profile.rates": {"numpy"},
    "profile.session": {"numpy"},
    "profile.tune": {"numpy"},
    "profile.turns": {"numpy"},
    "place.cutting": {"onnx"},
    "place.runners.batching": {"numpy", "prometheus_client"},
    "place.runners.cloud": {"numpy", "prometheus_client", "safetensors", "starlette", "uvicorn"},
    "place.runners.uplink": {"numpy"},
    "place.runners.edge": {"numpy"},
    "place.runners.measure": {"numpy"},
    "statistics": {"numpy"},
    "place.cascade": {"numpy", "scipy"},
    "place.distribution": {"numpy", "scipy"},
    "place.evidence": {"numpy"},
    "place.finding": {"numpy"},
    "place.queueing": {"numpy", "scipy"},
    "place.program": {"numpy", "scipy"},
    "place.simulation": {"numpy"},
    "place.resting": {"numpy"},
}
"""The modules that import a framework when they are imported. All others do so on use."""

MAY_PRINT = {"cli", "boundary", "report.terminal", "profile.worker", "profile.agent"}
MAY_PRINT |= {f"place.runners.{name}" for name in ("cloud", "edge", "measure", "link")}
"""The workers, the agent and what runs in a deployment are programs of their own."""


def parse(name: str) -> ast.Module:
    return ast.parse(MODULES[name].read_text(encoding="utf-8"))


def name_of(path: Path) -> str:
    parts = path.relative_to(FOLDER).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" and len(parts) > 1 else parts)


MODULES = {name_of(path): path for path in sorted(FOLDER.rglob("*.py"))}


def stage_of(module: str) -> str:
    return module.partition(".")[0]


def imported(nodes: Iterator[ast.AST]) -> Iterator[str]:
    """Dotted names that import statements name, those of this package without its name."""
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute here"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def edges(module: str) -> set[str]:
    """The modules of this package that a module imports, anywhere in it."""
    found = set()
    for dotted in imported(ast.walk(parse(module))):
        parts = dotted.split(".")
        if parts[0] != PACKAGE or dotted == f"{PACKAGE}.__version__":
            continue
        # `lepton_compress.load.forms.spec` is the module `load.forms`.
        names = [".".join(parts[1:end]) for end in range(len(parts), 1, -1)]
        found.add(next((name for name in names if name in MODULES), "__init__"))
    return found - {module}


def at_import(node: ast.AST) -> Iterator[ast.AST]:
    """The statements that run when a module is imported."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            continue
        if isinstance(child, ast.If) and ast.unparse(child.test) == "TYPE_CHECKING":
            continue
        yield child
        yield from at_import(child)


def allowed(module: str) -> set[str]:
    """Modules, and packages as a whole, that a module may import."""
    stage = stage_of(module)
    if module in FOUNDATION:
        return set(FOUNDATION[: FOUNDATION.index(module)])
    if stage in COMPOSERS:
        inside = {stage} if stage != module else set[str]()
        return {*FOUNDATION, *STAGES, *COMPOSERS[: COMPOSERS.index(stage)], *inside}
    if module in TERMINAL:
        return {*FOUNDATION, *STAGES, *COMPOSERS, *TERMINAL[: TERMINAL.index(module)]}
    return FOR_ALL | STAGES[stage]


def test_every_module_has_its_place_in_the_tables() -> None:
    assert {stage_of(module) for module in MODULES} == PLACED, "give a new one its line above"


@pytest.mark.parametrize("module", [name for name in MODULES if stage_of(name) in PLACED])
def test_imports_go_one_way(module: str) -> None:
    may = allowed(module)
    wrong = {each for each in edges(module) if each not in may and stage_of(each) not in may}
    assert wrong == set(), f"{module} may import {sorted(may)}"


@pytest.mark.parametrize("module", [name for name in MODULES if name not in TERMINAL])
def test_only_the_command_line_renders_for_a_terminal(module: str) -> None:
    assert "report.terminal" not in edges(module)


@pytest.mark.parametrize("module", ["errors", "artifacts"])
def test_the_ground_stands_on_the_standard_library(module: str) -> None:
    tops = {dotted.partition(".")[0] for dotted in imported(ast.walk(parse(module)))}
    assert tops
    assert tops <= sys.stdlib_module_names


@pytest.mark.parametrize("module", ["gate", "readings"])
def test_judging_does_no_io(module: str) -> None:
    tree = parse(module)
    tops = {dotted.partition(".")[0] for dotted in imported(ast.walk(tree))}
    assert not tops & {"io", "os", "pathlib", "shutil", "subprocess", "tempfile", *FRAMEWORKS}
    assert edges(module) <= {"artifacts", "budget", "readings", "recipe", "units"}
    calls = {ast.unparse(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call)}
    assert "open" not in calls


@pytest.mark.parametrize("module", MODULES)
def test_frameworks_are_imported_on_use(module: str) -> None:
    tops = {dotted.partition(".")[0] for dotted in imported(at_import(parse(module)))}
    assert tops & FRAMEWORKS == IMPLEMENTATIONS.get(module, set())


def test_faces_of_plugins_are_no_implementations() -> None:
    faces = {path.partition(":")[0].removeprefix(f"{PACKAGE}.") for path in BUILTIN.values()}
    assert faces <= set(MODULES)
    for face in faces:
        assert face not in IMPLEMENTATIONS
        heavy = set(imported(at_import(parse(face)))) & {f"{PACKAGE}.{m}" for m in IMPLEMENTATIONS}
        assert heavy == set(), f"{face} imports a framework through {heavy}"


@pytest.mark.parametrize("module", [name for name in MODULES if name not in MAY_PRINT])
def test_only_the_command_line_prints_or_exits(module: str) -> None:
    nodes = list(ast.walk(parse(module)))
    called = {ast.unparse(node.func) for node in nodes if isinstance(node, ast.Call)}
    assert not called & {"print", "exit", "quit", "sys.exit", "os._exit", "sys.stdout.write"}
    assert not called & {"SystemExit", "sys.stderr.write", "typer.echo"}
    raised = {ast.unparse(node.exc) for node in nodes if isinstance(node, ast.Raise) and node.exc}
    assert "SystemExit" not in raised


@pytest.mark.parametrize("module", ["", ".recipe", ".cli", ".store", ".gate", ".registry"])
def test_a_light_module_loads_no_framework(module: str) -> None:
    code = f"import sys, {PACKAGE}{module}; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)
    loaded = set(done.stdout.decode().split())
    assert f"{PACKAGE}{module}" in loaded
    assert loaded & FRAMEWORKS == set()


class TestTheTestItself:
    """A rule that cannot be broken guards nothing."""

    def test_on_use_and_at_import_are_told_apart(self) -> None:
        source = "import a\nif x:\n    import b\ntry:\n    import c\nexcept E:\n    import d\n"
        source += (
            "class K:\n    import e\ndef f():\n    import g\nif TYPE_CHECKING:\n    import h\n"
        )
        assert set(imported(at_import(ast.parse(source)))) == {"a", "b", "c", "d", "e"}

    def test_names_are_traced_to_their_modules(self) -> None:
        assert "units" in edges("recipe")
        assert "registry" in edges("recipe")
        assert edges("errors") == set()

    def test_a_stage_may_not_import_another(self) -> None:
        assert "compress" not in allowed("profile.measure")
        assert "load" not in allowed("compress.prune")
        assert "recipe" not in allowed("registry")
        assert "pipeline" not in allowed("job")
