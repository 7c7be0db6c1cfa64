"""The state of an installation is told without importing it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from lepton_compress import doctor, provenance
from lepton_compress.doctor import examine, int8
from lepton_compress.requirements import Requirement

if TYPE_CHECKING:
    from tests.conftest import Cli, Install


def ask(monkeypatch: pytest.MonkeyPatch, *asked: Requirement) -> None:
    monkeypatch.setattr(doctor, "requirements", lambda _: asked)


def test_this_installation_is_whole(tmp_path: Path) -> None:
    made = examine(tmp_path / "none" / ".lepton")
    assert made.problems == ()
    assert made.python.met
    assert {each.name for each in made.libraries} >= set(provenance.LIBRARIES) - {doctor.TOOL}
    assert all(each.met and each.version and each.wanted for each in made.libraries)
    assert made.free > 0
    assert not (tmp_path / "none").exists()


def test_a_missing_and_an_unfitting_library_are_problems(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    ask(monkeypatch, Requirement("numpy", ">=99, <100"), Requirement("no-such-package", ">=1"))
    made = examine(tmp_path)
    missing, wrong = sorted(made.problems)
    assert missing == "no-such-package is not installed; pip install 'no-such-package>=1'"
    assert wrong.startswith("numpy ")
    assert wrong.endswith("is not >=99, <100; pip install 'numpy>=99,<100'")


def test_extras_say_how_to_get_them(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    ask(
        monkeypatch,
        Requirement("numpy", "", extra="there"),
        Requirement("numpy", "", extra="lacking"),
        Requirement("no-such-package", "", extra="lacking"),
    )
    lacking, there = examine(tmp_path).extras
    assert there.met
    assert not lacking.met
    assert lacking.install == "pip install 'lepton-compress[lacking]'"
    assert examine(tmp_path).problems == (), "an extra is nobody's duty"


def test_plugins_that_fail_are_warnings(third_party: Install, tmp_path: Path) -> None:
    third_party({"step.halve": "halves:halve"}, halves="import no_such_module\n")
    (warning,) = examine(tmp_path).warnings
    assert "step 'halve' cannot be imported" in warning
    assert examine(tmp_path).problems == ()


def test_little_room_is_a_warning(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(doctor, "_ROOM", float("inf"))
    assert any("cache prune" in warning for warning in examine(tmp_path).warnings)


@pytest.mark.parametrize(
    ("extensions", "said"),
    [
        (["avx2", "avx512f", "avx512_vnni"], "avx512_vnni: int8 products are summed in 32 bits"),
        (["asimddp", "i8mm"], "asimddp, i8mm: int8 products are summed in 32 bits"),
        (["avx2"], "avx2 without VNNI: sums of two int8 products saturate"),
        ([], "no int8 instructions"),
    ],
)
def test_what_the_processor_means_for_int8(extensions: list[str], said: str) -> None:
    assert int8({"extensions": extensions}).startswith(said)


def test_no_framework_is_imported() -> None:
    code = (
        "import sys; from pathlib import Path; from lepton_compress.doctor import examine;"
        "examine(Path()); print(*sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"torch", "onnx", "onnxruntime", "numpy"} & set(done.stdout.split())


class TestCommand:
    def test_a_whole_installation(self, tmp_path: Path, cli: Cli) -> None:
        done = cli("doctor", cwd=tmp_path, OMP_NUM_THREADS="3")
        assert done.returncode == 0
        for said in ("ok  torch", "int8", "OMP_NUM_THREADS=3", "ready", "digits"):
            assert said in done.stdout

    def test_json(self, tmp_path: Path, cli: Cli) -> None:
        found = json.loads(cli("doctor", "--json", "--workspace", "here", cwd=tmp_path).stdout)
        assert found["workspace"] == "here"
        assert found["problems"] == []

    def test_a_problem_ends_in_exit_code_one(self, tmp_path: Path, cli: Cli) -> None:
        about = tmp_path / "site" / "torch_pruning-0.1.dist-info"
        about.mkdir(parents=True)
        (about / "METADATA").write_text(
            "Metadata-Version: 2.1\nName: torch-pruning\nVersion: 0.1\n"
        )
        done = cli("doctor", cwd=tmp_path, PYTHONPATH=str(tmp_path / "site"))
        assert done.returncode == 1
        assert "torch-pruning 0.1 is not >=1.6.1, <1.7; pip install" in done.stdout
        assert "ready" not in done.stdout
