"""Bringing a `result.json` that an older version wrote up to the schema of today.

One function for each step from a version to the next, on plain JSON, so that a result of any age
goes through the steps that it lacks. A step is never changed once results were written by it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from lepton_compress.artifacts import SCHEMA_VERSION

Body = dict[str, Any]


def migrate(body: Body, version: int) -> Body:
    """The body of a result, without `schema` and `digest`, as today's schema has it.

    Raises:
        KeyError: the version is unknown, or newer than this tool.
    """
    for step in range(version, SCHEMA_VERSION):
        body = STEPS[step](body)
    return body


def known(version: object) -> bool:
    """Whether results of that version can be read. True is no version, though it equals 1."""
    return type(version) is int and (version == SCHEMA_VERSION or version in STEPS)


def _add_fronts_and_labels(body: Body) -> Body:
    """1 to 2. The labels are not known; the fronts follow from what was measured."""
    from lepton_compress import front
    from lepton_compress.artifacts import Artifact, Parity, Profile, Score
    from lepton_compress.report.folder import plain, restore

    kinds: dict[str, Any] = {
        "artifacts": Artifact,
        "parities": Parity,
        "scores": Score,
        "profiles": Profile,
    }
    held: dict[str, Any] = {
        name: [restore(kind, row) for row in body[name]] for name, kind in kinds.items()
    }
    fronts = [plain(front.front(choice["target"], **held)) for choice in body["chosen"]]
    return {**body, "fronts": fronts, "labels": []}


STEPS: Mapping[int, Callable[[Body], Body]] = {1: _add_fronts_and_labels}
"""By the version that each takes."""
