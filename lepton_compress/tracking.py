"""A run's result in an MLflow tracking store (extra `mlflow`).

One MLflow run for the recipe's run, with the run folder as its artifacts, and below it one for each
candidate, with what it cost and what it scored. Nothing is computed here.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from lepton_compress.artifacts import Candidate, RunResult
from lepton_compress.errors import InputError, MissingExtraError

_LONGEST = 500
"""Characters of a parameter's value, which is what every store takes."""
_PARENT = "mlflow.parentRunId"
_NAME = "mlflow.runName"


def check(uri: str) -> None:
    """Find out before a long run whether its result can be tracked.

    Raises:
        MissingExtraError: mlflow is not installed.
        InputError: the store cannot be reached or is not supported.
    """
    _asked(uri, lambda client: client.search_experiments(max_results=1))


def log(result: RunResult, uri: str) -> str:
    """Log a result that lies in a folder.

    Args:
        uri: of the tracking store, as MLflow takes it: `http://host:5000`, `file:///folder`.

    Returns:
        The id of the MLflow run.

    Raises:
        MissingExtraError: mlflow is not installed.
        InputError: the store cannot be reached or refuses what it is given.
    """
    return str(_asked(uri, lambda client: _log(client, result)))


def _asked(uri: str, ask: Any) -> Any:
    """What a store answers; its refusals as one line."""
    # What a tool does for its user is not its vendor's to count.
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    # A store that does not answer must not be asked for minutes.
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
    try:
        from mlflow import MlflowClient
        from mlflow.exceptions import MlflowException
    except ImportError as error:
        raise MissingExtraError(
            f"tracking needs mlflow ({error})", mend="pip install 'lepton-compress[mlflow]'"
        ) from error
    try:
        return ask(MlflowClient(tracking_uri=uri, registry_uri=uri))
    except (MlflowException, OSError) as error:
        said = str(error).strip().splitlines() or [type(error).__name__]
        raise InputError(f"MLflow refuses it: {said[0]}", where=uri) from error


def _log(client: Any, result: RunResult) -> str:
    found = client.get_experiment_by_name(result.recipe)
    experiment = found.experiment_id if found else client.create_experiment(result.recipe)
    tags = {_NAME: result.started, "lepton.passed": str(result.passed).lower()}
    tags |= {f"lepton.chosen.{c.target}": c.candidate or "nothing" for c in result.chosen}
    whole = client.create_run(experiment, tags=_named(tags)).info.run_id
    _write(client, whole, _facts(result), {"seconds": result.seconds})
    for candidate in result.candidates:
        tags = {_NAME: candidate.id, _PARENT: whole}
        part = client.create_run(experiment, tags=tags).info.run_id
        _write(client, part, _steps(candidate), dict(_numbers(result, candidate)))
        client.set_terminated(part)
    if result.folder is not None:
        client.log_artifacts(whole, str(Path(result.folder)))
    client.set_terminated(whole)
    return str(whole)


def _write(
    client: Any, run: str, parameters: Mapping[str, Any], numbers: Mapping[str, float]
) -> None:
    for name, value in _named(parameters).items():
        client.log_param(run, name, str(value)[:_LONGEST])
    for name, number in _named(numbers).items():
        client.log_metric(run, name, float(number))


def _named(held: Mapping[str, Any]) -> dict[str, Any]:
    """With names that MLflow takes: letters, digits, `_`, `-`, `.`, blanks and slashes."""
    return {re.sub(r"[^\w\-./ ]", "_", name): value for name, value in held.items()}


def _facts(result: RunResult) -> dict[str, Any]:
    held = result.environment
    libraries = held.get("libraries") or {}
    return {
        "recipe_digest": result.recipe_digest,
        "data_fingerprint": result.data_fingerprint,
        "seed": result.seed,
        "cpu": (held.get("cpu") or {}).get("name", "unknown"),
        "python": held.get("python", "unknown"),
        **{f"version/{name}": version for name, version in libraries.items()},
    }


def _steps(candidate: Candidate) -> dict[str, Any]:
    """Parameters of all steps, numbered, for a step may stand twice."""
    found: dict[str, Any] = {"steps": " > ".join(record.step for record in candidate.history)}
    for number, record in enumerate(candidate.history):
        for name, value in record.parameters.items():
            found[f"{number}.{record.step}/{name}"] = value
    return found


def _numbers(result: RunResult, candidate: Candidate) -> Iterator[tuple[str, float]]:
    """Metrics in base units: seconds, bytes and the metric's own."""
    yield "parameters", candidate.parameters
    if candidate.macs is not None:
        yield "macs", candidate.macs
    several = len({artifact.format for artifact in result.artifacts}) > 1
    for artifact in result.artifacts:
        if artifact.candidate != candidate.id:
            continue
        end = f"/{artifact.format}" if several else ""
        key = (artifact.candidate, artifact.format)
        yield f"bytes{end}", artifact.bytes
        for score in result.scores:
            if (score.candidate, score.format) == key:
                yield f"score/{score.metric}{end}", score.value
                if score.drop is not None:
                    yield f"drop/{score.metric}{end}", score.drop
        for profile in result.profiles:
            if (profile.candidate, profile.format) != key:
                continue
            held = {f"latency_{name}": value for name, value in profile.latency.items()}
            held |= {
                name: getattr(profile, name) for name in ("ratio", "cold_start", "peak_memory")
            }
            for name, value in held.items():
                if value is not None:
                    yield f"{profile.target}/{name}{end}", value
