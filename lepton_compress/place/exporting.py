"""A deployment in a folder: for each side its artifact, a manifest and a program that runs it.

    deployment.json      all of it in one place
    README.md            how to start both sides
    edge/                manifest.json, requirements.txt, edge.py, uplink.py, measure.py,
                         manifest.py, artifact
    cloud/               manifest.json, requirements.txt, cloud.py, batching.py, manifest.py,
                         artifact
    link.py              a link to try it across

The programs need nothing of this package. What loads an artifact is the file that every measurement
used, so that a deployment runs under the settings that its figures were measured with.
"""

from __future__ import annotations

import importlib.metadata
import json
import re
import shutil
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from lepton_compress import provenance, registry
from lepton_compress.artifacts import Json, TensorSpec
from lepton_compress.errors import InputError, OutputError
from lepton_compress.load import external
from lepton_compress.place.deployment import Deployment, Part, Rule

RUNNERS = Path(__file__).parent / "runners"
MANIFEST = "manifest.json"
SHARED = "manifest.py"
"""What both sides read theirs with."""
DEPLOYMENT = "deployment.json"
VERSION = 1
_EDGE = ("safetensors", "urllib3")
_CLOUD = ("safetensors", "starlette", "uvicorn", "prometheus-client")
PATIENCE = 30.0
"""Seconds that a request may wait in the cloud: whoever sent it has given up by then."""


def export(deployment: Deployment, folder: Path) -> Path:
    """Write a deployment.

    Args:
        deployment: what to write.
        folder: where to; made where it is not there, and empty where it is.

    Returns:
        The folder.

    Raises:
        InputError: a part is missing, or an artifact cannot be loaded by its runtime.
        OutputError: the folder holds something already, or cannot be written.
    """
    deployment.check()
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise OutputError("is there already", where=str(folder), mend="name a new folder")
    sides: dict[str, Json] = {}
    try:
        sides["edge"] = _edge(deployment, folder / "edge")
        if deployment.cloud is not None:
            sides["cloud"] = _cloud(deployment, deployment.cloud, folder / "cloud")
            shutil.copyfile(RUNNERS / "link.py", folder / "link.py")
        about = {"version": VERSION, "name": deployment.name, "kind": deployment.kind, **sides}
        _write_json(folder / DEPLOYMENT, about)
        (folder / "README.md").write_text(readme(deployment), encoding="utf-8")
    except OSError as error:
        raise OutputError(f"cannot be written: {error.strerror}", where=str(folder)) from error
    return folder


def _edge(deployment: Deployment, folder: Path) -> dict[str, Json]:
    folder.mkdir(parents=True)
    about: dict[str, Json] = {
        "version": VERSION,
        "name": deployment.name,
        "kind": deployment.kind,
        "labels": list(deployment.labels),
    }
    packages = ["numpy"]
    if deployment.edge is not None:
        about["model"], packages = _part(deployment.edge, folder)
    # Of a split the edge's half has the inputs of the whole; one that goes up is among them.
    source = deployment.edge or deployment.cloud
    assert source is not None  # noqa: S101 - checked
    about["inputs"] = [_plain(spec) for spec in _specs(source)[0]]
    if deployment.kind == "split":
        for name in ("crossing", "passed", "early", "outputs"):
            about[name] = list(getattr(deployment, name))
        about["inputs"] = _with_passed(deployment, about["inputs"])
    if deployment.rule is not None:
        about["confidence"] = _confidence(deployment.rule, about["model"])
    if deployment.kind != "edge":
        about["link"] = {
            "timeout": deployment.timeout,
            "retries": deployment.retries,
            "backoff": deployment.backoff,
        }
        packages += _EDGE
    for name in ("edge.py", "uplink.py", "measure.py", SHARED):
        shutil.copyfile(RUNNERS / name, folder / name)
    _write_json(folder / MANIFEST, about)
    _requirements(folder, packages)
    return about


def _with_passed(deployment: Deployment, inputs: list[Json]) -> list[Json]:
    """The inputs of the whole, those included that only the cloud's half takes."""
    assert deployment.cloud is not None  # noqa: S101 - checked
    held = {each["name"]: each for each in inputs}
    late = {spec.name: _plain(spec) for spec in _specs(deployment.cloud)[0]}
    held |= {name: late[name] for name in deployment.passed if name not in held}
    return list(held.values())


def _cloud(deployment: Deployment, part: Part, folder: Path) -> dict[str, Json]:
    folder.mkdir(parents=True)
    model, packages = _part(part, folder)
    sizes = [each["shape"][0] for each in model["inputs"] if each["shape"]]
    fixed = [size for size in sizes if isinstance(size, int)]
    outputs = [each["shape"][0] if each["shape"] else 1 for each in model["outputs"]]
    stacks = deployment.stacks and all(isinstance(size, str) for size in outputs)
    single = bool(fixed) or not stacks or _mixes(part.path)
    about: dict[str, Json] = {
        "version": VERSION,
        "name": deployment.name,
        "kind": deployment.kind,
        "model": model,
        "serving": {
            "replicas": deployment.replicas,
            "max_batch": max(fixed, default=1) if single else deployment.max_batch,
            "max_wait": deployment.max_wait,
            "queue": deployment.queue,
            "patience": PATIENCE,
            "max_body": deployment.max_body,
        },
    }
    for name in ("cloud.py", "batching.py", SHARED):
        shutil.copyfile(RUNNERS / name, folder / name)
    _write_json(folder / MANIFEST, about)
    _requirements(folder, [*packages, *_CLOUD])
    return about


def _mixes(path: Path) -> bool:
    """Whether an answer depends on what else is in the batch: dynamic quantisation takes one range
    for all samples of a call."""
    import onnx

    if path.suffix != ".onnx":
        return False
    graph = onnx.load(path, load_external_data=False).graph
    return any(node.op_type.startswith("DynamicQuantize") for node in graph.node)


def _part(part: Part, folder: Path) -> tuple[dict[str, Json], list[str]]:
    """Copy an artifact with what loads it; what the manifest says of it, and the packages."""
    program, packages = _program(part)
    inputs, outputs = _specs(part)
    name = re.sub(r"[^\w.-]", "_", part.path.name)
    shutil.copyfile(part.path, folder / name)
    for each in dict.fromkeys((*part.beside, *external.beside(part.path))):
        shutil.copyfile(each, folder / each.name)
    for each in (program, program.with_name("frames.py")):
        shutil.copyfile(each, folder / each.name)
    about = {
        "file": name,
        "sha256": provenance.file_digest(folder / name),
        "bytes": part.path.stat().st_size,
        "runtime": part.runtime,
        "program": program.stem,
        "threads": part.threads,
        "inputs": [_plain(spec) for spec in inputs],
        "outputs": [_plain(spec) for spec in outputs],
    }
    return about, packages


def _program(part: Part) -> tuple[Path, list[str]]:
    """The file that stands for a runtime without this package, and what it imports."""
    module: Any = sys.modules[registry.get("runtime", part.runtime).function.__module__]
    program: Path | None = getattr(module, "PROGRAM", None)
    if program is None:
        raise InputError(
            f"the runtime {part.runtime} runs nowhere without this package",
            where=str(part.path),
            mend="deploy the artifact of another target",
        )
    return program, [each.partition(".")[0].replace("_", "-") for each in module.PACKAGES]


def inputs_of(part: Part) -> tuple[str, ...]:
    """Names of what an artifact takes."""
    return tuple(spec.name for spec in _specs(part)[0])


def _specs(part: Part) -> tuple[tuple[TensorSpec, ...], tuple[TensorSpec, ...]]:
    if not part.path.is_file():
        raise InputError("no such file", where=str(part.path), mend="run the recipe again")
    runner = registry.get("runtime", part.runtime).function(part.path, part.threads)
    return runner.inputs, runner.outputs


def _confidence(rule: Rule, model: dict[str, Json]) -> dict[str, Json]:
    names = [each["name"] for each in model["outputs"]]
    output = rule.output or names[0]
    if output not in names:
        raise InputError(f"the edge's artifact has no output {output!r}", mend=", ".join(names))
    return {
        "output": output,
        "scores": rule.scores,
        "temperature": rule.temperature,
        "threshold": rule.threshold,
    }


def _plain(spec: TensorSpec) -> dict[str, Json]:
    return {"name": spec.name, "dtype": spec.dtype, "shape": list(spec.shape)}


def _write_json(path: Path, value: Json) -> None:
    text = json.dumps(value, indent=1, allow_nan=False)
    path.write_text(f"{text}\n", encoding="utf-8")


def _requirements(folder: Path, packages: Iterable[str]) -> None:
    """The versions that are installed here: those that the figures were measured with."""
    lines = []
    for name in dict.fromkeys(packages):
        try:
            lines.append(f"{name}=={importlib.metadata.version(name)}")
        except importlib.metadata.PackageNotFoundError:
            lines.append(name)
    (folder / "requirements.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")


def readme(deployment: Deployment) -> str:
    """How to start both sides."""
    lines = [f"# {deployment.name}", "", _KINDS[deployment.kind], ""]
    install = "python -m venv .venv && .venv/bin/pip install -r {0}/requirements.txt"
    if deployment.cloud is not None:
        lines += [
            "The cloud:",
            "",
            "```sh",
            install.format("cloud"),
            "LEPTON_TOKEN=secret .venv/bin/python cloud/cloud.py --port 8080",
            "```",
            "",
            "It listens on this machine alone. For others give `--host 0.0.0.0` with a token and",
            "`--certificate` and `--key`, or put it behind a proxy that ends TLS. `GET /healthz`",
            "says whether it is ready, `GET /metrics` what it did (Prometheus).",
            "",
        ]
    url = " --url http://127.0.0.1:8080" if deployment.cloud is not None else ""
    lines += [
        "The edge, and a measurement from end to end (`samples.npz` holds the inputs, and `labels`",
        "if they are known):",
        "",
        "```sh",
        install.format("edge"),
        f"LEPTON_TOKEN=secret .venv/bin/python edge/edge.py samples.npz{url}",
        f"LEPTON_TOKEN=secret .venv/bin/python edge/measure.py samples.npz --rate 20{url}",
        "```",
        "",
    ]
    if deployment.cloud is not None:
        lines += [
            "Across a link of 40 ms and 1 Mbit/s up: start",
            "`python link.py --to 127.0.0.1:8080 --round-trip 0.04 --up 1e6 --down 4e6` and give",
            "the address that it prints as `--url`.",
            "",
        ]
    return "\n".join(lines)


_KINDS = {
    "edge": "The model on the device answers every request.",
    "cloud": "Every request goes up; without the link there is no answer.",
    "cascade": "The device answers what it is sure of and sends up the rest; without the link its "
    "own answers stand.",
    "split": "The first half runs on the device and the second in the cloud; without the link "
    "there is no answer.",
}
