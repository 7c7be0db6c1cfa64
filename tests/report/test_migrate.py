"""Results of older versions are read as if they had been written today."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from lepton_compress.artifacts import SCHEMA_VERSION
from lepton_compress.errors import InputError
from lepton_compress.provenance import digest
from lepton_compress.report.folder import read_result, to_json
from lepton_compress.report.migrate import STEPS, known
from tests.report.results import result


def version_1() -> dict[str, Any]:
    """What the first schema has of a result, without its head."""
    body = json.loads(to_json(result()))
    return {
        name: value
        for name, value in body.items()
        if name not in ("schema", "digest", "fronts", "labels")
    }


def written(folder: Path, body: dict[str, Any], version: Any = 1) -> Path:
    file = folder / "result.json"
    file.write_text(json.dumps({"schema": version, "digest": digest(body), **body}))
    return file


def test_there_is_a_step_from_every_version() -> None:
    assert sorted(STEPS) == list(range(1, SCHEMA_VERSION))
    assert all(known(version) for version in range(1, SCHEMA_VERSION + 1))


@pytest.mark.parametrize("version", [0, SCHEMA_VERSION + 1, True, 1.0, "1", None, [1]])
def test_other_versions_are_not_known(version: object) -> None:
    assert not known(version)


def test_the_first_gets_its_fronts(tmp_path: Path) -> None:
    # Its parity is broken, so int8 is not on the front, whatever it was measured at.
    found = read_result(written(tmp_path, version_1()))
    (front,) = found.fronts
    assert (front.target, front.members) == ("edge", (("baseline", "onnx"),))
    assert replace(found, folder=None, fronts=result().fronts, labels=(0, 1, 1, 0)) == result()
    assert found.labels == ()


def test_its_digest_is_that_of_what_was_written(tmp_path: Path) -> None:
    file = written(tmp_path, version_1())
    file.write_text(file.read_text().replace('"seed": 7', '"seed": 8'))
    with pytest.raises(InputError, match="its digest does not match"):
        read_result(file)


def test_one_that_lacks_more_is_refused(tmp_path: Path) -> None:
    body = version_1()
    del body["scores"]
    with pytest.raises(InputError, match="does not fit its schema"):
        read_result(written(tmp_path, body))
