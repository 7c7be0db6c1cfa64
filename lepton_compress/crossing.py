"""Cuts of the artifacts of results, measured for the targets that a fleet has."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from lepton_compress import splitting
from lepton_compress.artifacts import Observer, RunResult
from lepton_compress.errors import InputError
from lepton_compress.place.evidence import target_of
from lepton_compress.place.fleet import Fleet
from lepton_compress.placements import Cut
from lepton_compress.report.folder import read_result


def crossings(paths: Sequence[Path], fleet: Fleet, observer: Observer) -> list[Cut]:
    """The cuts of every ONNX artifact, each measured on the targets of both ends of every link.

    An artifact that cannot be cut, as one of a recurrent model by the frame, is noted.

    Args:
        paths: folders of runs, whose recipes are still there: samples come from their data.
        fleet: whose links are looked at.
        observer: told of progress, and of what cannot be cut.

    Raises:
        UserError: a result, or the data of its recipe, cannot be read.
    """
    found: list[Cut] = []
    for path in paths:
        result = read_result(path)
        for edge, cloud in dict.fromkeys(_ends(result, fleet)):
            for candidate in _candidates(result, edge, cloud):
                try:
                    made = splitting.split(
                        f"{result.folder}:{candidate}",
                        at=None,
                        out=None,
                        recipe_path=None,
                        data=None,
                        edge=edge,
                        cloud=cloud,
                        measured=splitting.MEASURED,
                        observer=observer,
                    )
                except InputError as error:
                    observer.note(f"no split of {result.recipe}:{candidate}: {error.problem}")
                    continue
                found += splitting.planned(made, candidate, result=result.recipe)
    return found


def _ends(result: RunResult, fleet: Fleet) -> Iterator[tuple[str, str]]:
    """The targets at both ends of every link, by the names that the result has for them."""
    for link in fleet.links:
        edge, cloud = (target_of(result, fleet.site(name))[0] for name in (link.edge, link.cloud))
        yield edge, cloud


def _candidates(result: RunResult, edge: str, cloud: str) -> list[str]:
    """Those with an ONNX artifact that was measured on both."""
    held = {(p.candidate, p.target) for p in result.profiles if p.format == "onnx"}
    names = dict.fromkeys(a.candidate for a in result.artifacts if a.format == "onnx")
    return [name for name in names if {(name, edge), (name, cloud)} <= held]
