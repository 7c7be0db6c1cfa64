"""What `explain --layers` was given: a LiteRT artifact, the graph that it was written from, the
float counterpart of that graph, and real data."""

from __future__ import annotations

from pathlib import Path

from lepton_compress import layers
from lepton_compress.accounts import Divergence, LayerGap
from lepton_compress.artifacts import Observer
from lepton_compress.errors import InputError, RecipeError
from lepton_compress.explain import subject
from lepton_compress.explain.subject import LITERT, Subject
from lepton_compress.targets.frames import METADATA


def divergence(
    artifact: str,
    *,
    against: Path | None,
    recipe_path: Path | None,
    data: Path | None,
    samples: int,
    observer: Observer,
) -> Divergence:
    """Compare a LiteRT artifact with its source, layer by layer.

    Args:
        artifact: a .tflite file, or `run folder:candidate`.
        against: the graph that it was written from; the candidate's .onnx artifact by default.
        recipe_path, data: as of `subject.explain`.
        samples: at most this many, and at least one call's.

    Raises:
        UserError: a file is missing or cannot be used.
    """
    from lepton_compress.explain import divergence as measuring

    if recipe_path and data:
        raise RecipeError("goes with --data or --recipe, not with both", where="explain")
    if against is not None and not against.is_file():
        raise InputError("no such file", where=str(against), mend="give an .onnx file")
    found = subject.find(artifact, LITERT)
    if found.path.suffix != LITERT:
        raise InputError(
            "is no LiteRT file, whose layers are compared",
            where=str(found.path),
            mend=f"give a {LITERT} file, or run folder:candidate",
        )
    held = layers.read(found.path)
    if held is None:
        raise InputError(
            f"has no list of its layers beside it ({layers.beside(found.path).name})",
            where=str(found.path),
            mend="only what the exporter `litert` writes has one; run the recipe again",
        )
    source, plain, notes = _sources(found, against)
    graph = subject.read_graph(source)
    if any(each.key == METADATA for each in graph.metadata_props):
        raise InputError(
            "is a step model, which a LiteRT file is not written from",
            where=str(source),
            mend="name the graph of whole sequences by --against",
        )
    split, _, more = subject.samples_of(found, graph, recipe_path, data)
    with observer.work("comparing layers"):
        gaps, count, delegate = measuring.compare(
            found.path,
            held,
            graph,
            subject.named(graph, split),
            samples,
            subject.read_graph(plain) if plain else None,
        )
    return Divergence(
        artifact=str(found.path),
        source=str(source),
        reference=str(plain or ""),
        samples=count,
        layers=gaps,
        first=first(gaps),
        delegate=delegate,
        notes=(*notes, *more),
    )


def first(gaps: tuple[LayerGap, ...]) -> str:
    """The first layer that computes something else; empty where none does."""
    return next((each.layer for each in gaps if each.parts), "")


def _sources(found: Subject, against: Path | None) -> tuple[Path, Path | None, tuple[str, ...]]:
    """The graph that an artifact was written from, its float counterpart, and notes."""
    source = against or subject.artifact_of(found, ".onnx")
    if source is None:
        raise InputError(
            "the graph that it was written from is not known",
            where=str(found.path),
            mend="name it by --against, or add `onnx` to the recipe's exports",
        )
    plain, notes = subject.counterpart(found)
    # Of a float candidate that is the artifact's source itself.
    return source, plain if plain != source else None, notes if found.run else ()
