"""The session of a runtime, opened by its portable module, in the terms of this package."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from lepton_compress.artifacts import Json, TensorSpec
from lepton_compress.errors import InputError
from lepton_compress.targets import stepping
from lepton_compress.targets.runner import Runner

if TYPE_CHECKING:
    from numpy.typing import NDArray

Specs = tuple[TensorSpec, ...]


@dataclass(frozen=True)
class _SessionRunner:
    inputs: Specs
    outputs: Specs
    session: Any
    refusal: type[Any]
    path: Path

    def run(self, feeds: Mapping[str, NDArray[Any]]) -> list[NDArray[Any]]:
        try:
            made: list[NDArray[Any]] = self.session.run(feeds)
        except self.refusal as error:
            raise InputError(error.problem, where=str(self.path)) from error
        return made


def opened(
    module: ModuleType,
    path: Path,
    threads: int,
    changes: Mapping[str, Json] | None,
    specs: Callable[[Any], tuple[Specs, Specs]],
) -> Runner:
    """An artifact whose `run` takes whole sequences, a step model's too.

    Args:
        module: has `opened` and `SessionError`.
        path: the artifact.
        threads: how many threads compute one call.
        changes: settings other than the module's own.
        specs: what a session takes and what it gives.

    Raises:
        InputError: the runtime cannot load the file.
        ImportError: the runtime is not installed.
    """
    try:
        session = module.opened(path, threads, changes)
        about = session.steps
    except module.SessionError as error:
        raise InputError(error.problem, where=str(path)) from error
    runner = _SessionRunner(*specs(session), session, module.SessionError, path)
    return runner if about is None else stepping.stepped(runner, about, str(path))
