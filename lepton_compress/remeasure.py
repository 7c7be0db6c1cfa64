"""Measuring the latency of a run's artifacts again, on the machine at hand."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from lepton_compress import provenance
from lepton_compress.artifacts import Artifact, Observer, RunResult
from lepton_compress.budget import Gates
from lepton_compress.errors import InputError
from lepton_compress.job import artifact_data
from lepton_compress.measuring import profiles
from lepton_compress.report.folder import kept_recipe


def remeasure(result: RunResult, gates: Gates, observer: Observer) -> RunResult:
    """The result with profiles measured now, by its recipe's targets and on its data.

    Args:
        result: read from its run folder.
        gates: the latency gates that the measurement should decide.

    Raises:
        InputError: the folder lacks an artifact or the recipe, or holds another file than the run
            measured.
        UserError: the recipe's data cannot be loaded.
    """
    where = str(result.folder)
    source = kept_recipe(result)
    if source is None or result.folder is None:
        raise InputError(
            "its recipe is not known any more, and with it the data to measure on",
            where=where,
            mend="run the recipe again",
        )
    files = [(each, _file(result.folder, each)) for each in result.artifacts]
    evaluation = artifact_data(source).evaluation
    found = profiles(source, gates, files, evaluation, seed=result.seed, observer=observer)
    environment = {**result.environment, **provenance.environment()}
    return replace(result, profiles=tuple(found), environment=environment)


def _file(folder: Path, artifact: Artifact) -> Path:
    file, *others = [folder / each for each in (artifact.path, *artifact.beside)]
    for each in (file, *others):
        if not each.is_file():
            raise InputError("no such file", where=str(each), mend="give the whole run folder")
    if provenance.files_digest([file, *others]) != artifact.sha256:
        raise InputError(
            "is another file than the run measured", where=str(file), mend="run the recipe again"
        )
    return file
