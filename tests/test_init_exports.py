"""The public surface: what `import lepton_compress` offers, and what it costs."""

from __future__ import annotations

import inspect
import subprocess
import sys
from pathlib import Path

import pytest

import lepton_compress
from tests.test_import_rules import FRAMEWORKS

PUBLIC = {
    # to run
    "compress",
    "TrainingSession",
    "place",
    "read_result",
    "run",
    # what comes out
    "Artifact",
    "Candidate",
    "Choice",
    "Parity",
    "Profile",
    "RunResult",
    "Score",
    "Status",
    "Verdict",
    # to write plug-ins and loaders with
    "Dataset",
    "MetricOutcome",
    "Model",
    "Params",
    "Split",
    "StepContext",
    "StepOutcome",
    "plugin",
    # to catch
    "LeptonError",
    "UserError",
    "__version__",
}
"""A name that leaves this table breaks somebody's script."""


def test_the_public_names() -> None:
    assert set(lepton_compress.__all__) == PUBLIC
    assert list(lepton_compress.__all__) == sorted(lepton_compress.__all__)


@pytest.mark.parametrize("name", sorted(PUBLIC - {"__version__"}))
def test_each_can_be_had_and_says_what_it_is(name: str) -> None:
    held = getattr(lepton_compress, name)
    assert inspect.isclass(held) or inspect.isfunction(held)
    assert inspect.getdoc(held)
    assert held.__name__ == name


def test_everything_can_be_imported_at_once() -> None:
    held: dict[str, object] = {}
    exec("from lepton_compress import *", held)
    assert set(held) >= PUBLIC - {"__version__"}


def test_a_name_that_is_not_there_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="'lepton_compress' has no attribute 'quantise'"):
        lepton_compress.quantise  # noqa: B018


def test_importing_it_imports_no_framework_and_no_validation() -> None:
    code = "import sys, lepton_compress; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True)
    loaded = {name.partition(".")[0] for name in done.stdout.split()}
    assert "lepton_compress" in loaded
    assert loaded & (FRAMEWORKS | {"pydantic", "rich", "typer", "yaml"}) == set()


def test_types_are_offered_to_checkers() -> None:
    assert Path(lepton_compress.__file__).with_name("py.typed").is_file()


def test_the_version_is_one_of_three_numbers() -> None:
    parts = lepton_compress.__version__.split(".")
    assert len(parts) == 3
    assert all(part.isdigit() for part in parts)
