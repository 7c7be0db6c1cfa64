"""The one way to extend the tool: a name, a parameter model and one function.

    @plugin("step", "prune", Prune)
    def prune(model: Model, params: Prune, context: StepContext) -> StepOutcome: ...

Kinds and what their functions take and give are in `PROTOCOLS`' table below; the types are in
`artifacts`. Built-ins stand in `BUILTIN`, name to dotted path, and are imported on use. A third
party offers plug-ins through the entry-point group `lepton_compress.plugins`, each entry named
`kind.name` and pointing at the decorated function. A plug-in's module must import without any
framework: torch, onnx and the runtimes are imported inside the function.
"""

from __future__ import annotations

import difflib
import functools
import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, Self, TypeVar, get_args

from pydantic import BaseModel, ConfigDict

from lepton_compress.errors import LeptonError, MissingExtraError, PluginError, RecipeError

Kind = Literal["step", "exporter", "runtime", "metric", "loader", "preprocessing", "postprocessing"]
KINDS: tuple[str, ...] = get_args(Kind)
GROUP = "lepton_compress.plugins"

BUILTIN: Mapping[tuple[str, str], str] = {
    ("step", "prune"): "lepton_compress.compress.prune:prune",
    ("step", "sparsify"): "lepton_compress.compress.sparsify:sparsify",
    ("step", "distil"): "lepton_compress.compress.distil:distil",
    ("step", "transfer"): "lepton_compress.compress.transfer:transfer",
    ("step", "finetune"): "lepton_compress.compress.finetune:finetune",
    ("step", "equalize"): "lepton_compress.compress.equalize:equalize",
    ("step", "smooth"): "lepton_compress.compress.smooth:smooth",
    ("step", "quantize"): "lepton_compress.compress.quantize:quantize",
    ("step", "quantize_auto"): "lepton_compress.compress.quantize_auto:quantize_auto",
    ("step", "quantize_aware"): "lepton_compress.compress.quantize_aware:quantize_aware",
    ("step", "quantize_dynamic"): "lepton_compress.compress.quantize_dynamic:quantize_dynamic",
    ("step", "quantize_weights"): "lepton_compress.compress.quantize_weights:quantize_weights",
    ("step", "float16"): "lepton_compress.compress.float16:float16",
    ("step", "restore"): "lepton_compress.compress.restore:restore",
    ("step", "restore_graph"): "lepton_compress.compress.restore:restore_graph",
    ("step", "bfloat16"): "lepton_compress.compress.bfloat16:bfloat16",
    ("exporter", "onnx"): "lepton_compress.export.onnx:export_onnx",
    ("exporter", "litert"): "lepton_compress.export.litert:export_litert",
    ("exporter", "executorch"): "lepton_compress.export.executorch:export_executorch",
    ("runtime", "onnxruntime-cpu"): "lepton_compress.targets.onnxruntime_cpu:onnxruntime_cpu",
    ("runtime", "onnxruntime-qnn"): "lepton_compress.targets.onnxruntime_qnn:onnxruntime_qnn",
    ("runtime", "openvino-cpu"): "lepton_compress.targets.openvino_cpu:openvino_cpu",
    ("runtime", "ethos-u"): "lepton_compress.targets.ethos_u:ethos_u",
    ("runtime", "tflite-micro"): "lepton_compress.targets.tflite_micro:tflite_micro",
    ("runtime", "litert-cpu"): "lepton_compress.targets.litert_cpu:litert_cpu",
    ("runtime", "executorch-cpu"): "lepton_compress.targets.executorch_cpu:executorch_cpu",
    ("metric", "accuracy"): "lepton_compress.metrics:accuracy",
    ("metric", "top_k"): "lepton_compress.metrics:top_k",
    ("metric", "mean_absolute_error"): "lepton_compress.metrics:mean_absolute_error",
    ("metric", "mean_squared_error"): "lepton_compress.metrics:mean_squared_error",
    ("metric", "python"): "lepton_compress.metrics:python",
    ("metric", "f1"): "lepton_compress.torch_metrics:f1",
    ("metric", "precision"): "lepton_compress.torch_metrics:precision",
    ("metric", "recall"): "lepton_compress.torch_metrics:recall",
    ("metric", "auroc"): "lepton_compress.torch_metrics:auroc",
    ("metric", "average_precision"): "lepton_compress.torch_metrics:average_precision",
    ("metric", "r2"): "lepton_compress.torch_metrics:r2",
    ("metric", "word_error_rate"): "lepton_compress.torch_metrics:word_error_rate",
    ("metric", "mean_average_precision"): "lepton_compress.torch_metrics:mean_average_precision",
    ("preprocessing", "image"): "lepton_compress.preprocess.image:image",
    ("postprocessing", "classes"): "lepton_compress.preprocess.classes:classes",
    ("loader", "python"): "lepton_compress.load.data:load_python",
    ("loader", "wav"): "lepton_compress.load.wav:load_wav",
    ("loader", "text"): "lepton_compress.load.text:load_text",
    ("preprocessing", "text"): "lepton_compress.preprocess.text:text",
    ("preprocessing", "audio"): "lepton_compress.preprocess.audio:audio",
    ("loader", "npz"): "lepton_compress.load.npz:load_npz",
    ("loader", "images"): "lepton_compress.load.images:load_images",
    ("loader", "idx"): "lepton_compress.load.idx:load_idx",
}


class Params(BaseModel):
    """Base of every parameter model: frozen, and an unknown key is an error."""

    # Built on first use: a model inside another would be built a second time by itself.
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, defer_build=True)

    def files(self) -> tuple[str, ...]:
        """Files that a step with these parameters reads, relative to the recipe; the step is
        carried out again when their contents change."""
        return ()

    def references(self) -> tuple[str, ...]:
        """The user's own functions, as `path/to/file.py:name`, that a step with these parameters
        calls; it is carried out again when their code changes."""
        return ()

    @property
    def measured(self) -> bool:
        """Whether a step that is declared with `measures` does so with these parameters."""
        return True

    @property
    def aligns(self) -> bool:
        """Whether a step with these parameters makes layers as wide as the targets like it."""
        return False

    def models(self) -> tuple[dict[str, Any], ...]:
        """Other models that a step with these parameters takes, each as the `model` of a recipe
        says one; the step is carried out again when one of them changes."""
        return ()

    @property
    def replaces(self) -> bool:
        """Whether a step with these parameters puts another model in the place of the one that it
        is given."""
        return False

    @property
    def narrows(self) -> bool:
        """Whether an exporter with these parameters rounds weights that the graph does not."""
        return False

    @property
    def plain(self) -> Self:
        """The same of an exporter that rounds nothing which the graph does not."""
        return self

    @property
    def batches(self) -> tuple[int, ...]:
        """How many samples one call of an exporter's artifacts may hold; empty for any."""
        return ()


@dataclass(frozen=True)
class Plugin:
    """A registered plug-in.

    Attributes:
        kind: one of `KINDS`.
        name: what a recipe calls it.
        params: the pydantic model of its parameters.
        function: what it does; its signature belongs to its kind.
        form: for steps, the form of model it works on ("module" or "graph").
        measures: for steps, whether the result depends on the targets and the first metric, where
            `Params.measured` says so.
        requires: `requires(params, target_names)` yields reasons why the step or runtime cannot
            run, before anything is computed.
        origin: "built-in", or the distribution that brought it.
        gives: for steps, the form of model that comes out: "graph" of a step that takes a module
            and ends in a graph; empty where it is the form that went in.
        quantizes: for steps, whether it takes a float model and leaves a quantised one; two of
            these in one variant are refused before anything is computed.
        prunes: for steps, whether it takes weights away; a variant that is trained after one stands
            beside a control without it.
        trains: for steps, whether it trains the model.
        streams: whether a step on graphs takes large ones, whose tensors stay in files.
        formats: for runtimes, the exporters whose artifacts it loads.
        simulates: for runtimes, whether it tells how an artifact would fare on a device instead of
            running it there; its function then gives a `Fit` and no `Runner`.
        evaluates: for exporters, the runtime that its artifacts are verified and evaluated in.
        trains: for steps, whether it trains: it is given a place for checkpoints, and its result
            depends on the first metric.
        tells: for runtimes that simulate, what they can tell of "time", "ram" and "flash"; empty
            where that is not said.
        alone: for runtimes that simulate, whether the device has no processor beside it for what
            it does not take.
    """

    kind: str
    name: str
    params: type[Params]
    function: Callable[..., Any]
    form: str = ""
    requires: Callable[..., list[str]] | None = None
    origin: str = "built-in"
    measures: bool = False
    gives: str = ""
    quantizes: bool = False
    streams: bool = False
    formats: tuple[str, ...] = ()
    simulates: bool = False
    evaluates: str = ""
    prunes: bool = False
    trains: bool = False
    tells: tuple[str, ...] = ()
    alone: bool = False

    @property
    def summary(self) -> str:
        """The first line of the function's docstring."""
        return (self.function.__doc__ or "").strip().split("\n")[0]

    def call(self, *given: Any) -> Any:
        """Run the function.

        Raises:
            LeptonError: it raised one of the tool's errors.
            PluginError: it raised anything else, which is a defect in it.
        """
        try:
            return self.function(*given)
        except (LeptonError, MemoryError):
            raise
        except Exception as error:
            raise PluginError(
                f"raised {type(error).__name__}: {error}",
                where=f"{self.kind} {self.name} ({self.origin})",
            ) from error


F = TypeVar("F", bound=Callable[..., Any])


def plugin(
    kind: Kind,
    name: str,
    params: type[Params],
    *,
    form: str = "",
    requires: Callable[..., list[str]] | None = None,
    measures: bool = False,
    gives: str = "",
    quantizes: bool = False,
    streams: bool = False,
    formats: tuple[str, ...] = (),
    simulates: bool = False,
    evaluates: str = "",
    prunes: bool = False,
    trains: bool = False,
    tells: tuple[str, ...] = (),
    alone: bool = False,
) -> Callable[[F], F]:
    """Declare a function to be a plug-in. It is registered when its table entry is resolved.

    Raises:
        PluginError: the kind is unknown, or a step does not say which form of model it takes, a
            runtime which formats, or an exporter what its artifacts are evaluated in.
    """
    if kind not in KINDS:
        raise PluginError(f"unknown plug-in kind {kind!r}; kinds are {', '.join(KINDS)}")
    if kind == "step" and form not in ("module", "graph"):
        raise PluginError(f"step {name!r} must say form='module' or form='graph'")
    if kind == "runtime" and not formats:
        raise PluginError(f"runtime {name!r} must say which formats it loads, as formats=('onnx',)")
    if kind == "exporter" and not evaluates:
        raise PluginError(
            f"exporter {name!r} must say which runtime its artifacts are evaluated in"
        )
    if gives not in ("", form, "graph"):
        raise PluginError(
            f"step {name!r} cannot give {gives!r}: from a {form} only a graph follows"
        )

    def mark(function: F) -> F:
        function.__lepton_plugin__ = Plugin(  # type: ignore[attr-defined]
            kind,
            name,
            params,
            function,
            form,
            requires,
            measures=measures,
            gives=gives,
            quantizes=quantizes,
            streams=streams,
            formats=formats,
            simulates=simulates,
            evaluates=evaluates,
            prunes=prunes,
            trains=trains,
            tells=tells,
            alone=alone,
        )
        return function

    return mark


@functools.cache
def table() -> dict[tuple[str, str], tuple[str, str]]:
    """(kind, name) to (dotted path, origin) for built-ins and entry points.

    Raises:
        PluginError: two plug-ins of one kind share a name, or an entry's name is malformed.
    """
    import importlib.metadata  # takes as long as all the rest of this module

    found = {key: (path, "built-in") for key, path in BUILTIN.items()}
    for entry in importlib.metadata.entry_points(group=GROUP):
        kind, _, name = entry.name.partition(".")
        origin = entry.dist.name if entry.dist else "unknown"
        if kind not in KINDS or not name:
            raise PluginError(
                f"entry point {entry.name!r} of {origin} is not named kind.name",
                mend=f"kinds are {', '.join(KINDS)}",
            )
        if (kind, name) in found:
            raise PluginError(
                f"{kind} {name!r} is offered twice, by {found[kind, name][1]} and {origin}",
                mend="uninstall one of the two",
            )
        # What stands in brackets behind it are extras, for installers.
        found[kind, name] = (entry.value.partition("[")[0].strip(), origin)
    return found


def names(kind: str) -> list[str]:
    """The names of one kind, sorted."""
    return sorted(name for each, name in table() if each == kind)


def takes(runtime: Plugin, exporter: str) -> bool:
    """Whether a runtime takes what an exporter writes: files of its format, or of the format of the
    runtime that its artifacts are evaluated in.

    Raises:
        LeptonError: one of the plug-ins cannot be imported.
    """
    if exporter in runtime.formats:
        return True
    evaluates = get("exporter", exporter).evaluates
    return bool(set(get("runtime", evaluates).formats) & set(runtime.formats))


def nearest(name: str, known: list[str]) -> str:
    """A mend that suggests the closest known name, or lists them all."""
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.6)
    return f"did you mean {close[0]!r}?" if close else f"known are {', '.join(known) or 'none'}"


def get(kind: str, name: str) -> Plugin:
    """The plug-in of that kind and name, imported now.

    Raises:
        RecipeError: no plug-in has that name.
        MissingExtraError: its module needs a package that is not installed.
        PluginError: its module fails, or what its table entry points at is not that plug-in.
    """
    path, origin = BUILTIN.get((kind, name), ""), "built-in"
    if not path:
        if (kind, name) not in table():
            raise RecipeError(f"unknown {kind} {name!r}", mend=nearest(name, names(kind)))
        path, origin = table()[kind, name]
    module_name, _, attribute = path.partition(":")
    try:
        module = importlib.import_module(module_name)
    except ImportError as error:
        raise MissingExtraError(
            f"{kind} {name!r} cannot be imported: {error}",
            mend=f"install what {origin} needs for it (see `lepton-compress doctor`)",
        ) from error
    except Exception as error:
        raise PluginError(
            f"{kind} {name!r} of {origin} fails on import: {type(error).__name__}: {error}"
        ) from error
    made = getattr(getattr(module, attribute, None), "__lepton_plugin__", None)
    if not isinstance(made, Plugin) or (made.kind, made.name) != (kind, name):
        raise PluginError(f"{path} (of {origin}) is not the {kind} {name!r}")
    return made if origin == "built-in" else Plugin(**{**vars(made), "origin": origin})
