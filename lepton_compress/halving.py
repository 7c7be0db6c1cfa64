"""Making a cut: the two files of an artifact, compared with the whole in the runtime."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lepton_compress import registry
from lepton_compress.artifacts import Split
from lepton_compress.errors import InputError, OutputError
from lepton_compress.place.cuts import Cut, Halves
from lepton_compress.registry import nearest
from lepton_compress.verify import BATCHES
from lepton_compress.weighing import Opened, open_artifact, weighed

if TYPE_CHECKING:
    import onnx

    from lepton_compress.place.cutting import Partition
    from lepton_compress.targets.runner import Runner
    from lepton_compress.weighing import Found

EDGE, CLOUD = "edge.onnx", "cloud.onnx"
ABOUT = "split.json"
"""What `halves` writes."""
RUNTIME = "onnxruntime-cpu"
SAMPLES = 32
"""On which halves are compared with the whole."""


def halves(artifact: Path, cut: Cut | str, samples: Split, out: Path) -> Halves:
    """Make a cut: `edge.onnx`, `cloud.onnx` and `split.json` in a folder.

    Args:
        artifact: as `cuts`.
        cut: one of those, or its name, or the name of a tensor or layer to cut behind.
        samples: real ones, on which the halves are compared with the whole.
        out: the folder, made where it is not there.

    Raises:
        InputError: there is no such cut, or the halves compute something else than the whole.
        OutputError: the folder cannot be written.
    """
    opened = open_artifact(artifact, samples)
    found = weighed(opened)
    name = cut.name if isinstance(cut, Cut) else named(found, cut, artifact)
    if name not in found:
        raise InputError(f"has no cut {name!r}", where=str(artifact))
    held, partition = found[name]
    try:
        out.mkdir(parents=True, exist_ok=True)
        made = write(opened, cut if isinstance(cut, Cut) else held, partition, out)
        from lepton_compress.report.folder import plain

        text = json.dumps({"version": 1, **_finite(plain(made))}, indent=1, allow_nan=False)
        (out / ABOUT).write_text(f"{text}\n", encoding="utf-8")
    except OSError as error:
        raise OutputError(f"cannot be written: {error.strerror}", where=str(out)) from error
    return made


def _finite(value: Any) -> Any:
    """Without times that were not taken, for which JSON has no number."""
    if isinstance(value, dict):
        return {key: _finite(each) for key, each in value.items()}
    return None if isinstance(value, float) and value != value else value


def runner(path: Path, **changes: str) -> Runner:
    """A file in the runtime on one thread, with changes to its session's settings."""
    made: Runner = registry.get("runtime", RUNTIME).function(path, 1, changes)
    return made


def write(opened: Opened, cut: Cut, partition: Partition, out: Path) -> Halves:
    """Both files in a folder that is there, compared with the whole.

    Raises:
        InputError: they compute something else.
    """
    from lepton_compress.place import comparing, cutting

    early, late = opened.cutting.halves(partition)
    _tell(opened.model, early, late)
    sizes = [
        cutting.write(half, opened.folder, out / name)
        for half, name in ((early, EDGE), (late, CLOUD))
    ]
    few = Split({name: array[:SAMPLES] for name, array in opened.samples.inputs.items()})
    batches = BATCHES if cut.stacks else (opened.batch,)
    paths = (opened.path, out / EDGE, out / CLOUD)
    usual = [runner(path) for path in paths]
    made = comparing.compare(usual[0], usual[1], usual[2], few, batches)
    if not made.holds:
        # The runtime rounds a fused integer operator otherwise than its parts, by a step here and
        # there. Whether the halves are right shows without fusions.
        plain = [runner(path, graph_optimization_level="ORT_DISABLE_ALL") for path in paths]
        if not comparing.compare(plain[0], plain[1], plain[2], few, batches).holds:
            raise InputError(
                f"the halves differ from the whole by {made.difference:.3g}",
                where=f"cut {cut.name}",
                mend="cut elsewhere",
            )
    return Halves(
        cut=replace(cut, difference=made.difference, edge_bytes=sizes[0]),
        edge=EDGE,
        cloud=CLOUD,
        inputs=tuple(opened.cutting.inputs),
        outputs=tuple(opened.cutting.outputs),
        crossing=partition.crossing,
        passed=partition.passed,
        early=partition.early,
        edge_bytes=sizes[0],
        cloud_bytes=sizes[1],
        exact=made.exact,
        difference=made.difference,
        samples=made.samples,
    )


def _tell(whole: onnx.ModelProto, early: onnx.ModelProto, late: onnx.ModelProto) -> None:
    """What the whole says of its inputs goes to the edge, of its outputs to the cloud."""
    from lepton_compress.preprocess.form import METADATA

    for each in whole.metadata_props:
        if each.key != METADATA:
            continue
        about = json.loads(each.value)
        for half, kept in ((early, ("inputs", "files")), (late, ("outputs",))):
            told = {key: value for key, value in about.items() if key in (*kept, "version")}
            half.metadata_props.add(key=METADATA, value=json.dumps(told, sort_keys=True))


def named(found: Found, given: str, artifact: Path) -> str:
    """The cut that a name means: its own, or that of what crosses alone.

    Raises:
        InputError: there is none.
    """
    if given in found:
        return given
    meant = [
        name
        for name, (cut, _) in found.items()
        if len(cut.crossing) == 1
        and given in (cut.crossing[0].tensor, cut.crossing[0].layer.rpartition("/")[0])
    ]
    if not meant:
        raise InputError(
            f"has no place to cut called {given!r}",
            where=str(artifact),
            mend=nearest(given, list(found)),
        )
    return meant[-1]  # a layer of several nodes is cut behind the last
