"""What determines a result: equal things have equal digests, and every change is seen."""

from __future__ import annotations

import functools
import hashlib
import importlib.metadata
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pydantic
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lepton_compress import provenance
from lepton_compress.provenance import code_digest, digest, file_code_digest, file_digest

values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=10,
)


def backwards(value: Any) -> Any:
    """The same value with every mapping written in the other order."""
    if isinstance(value, dict):
        return {key: backwards(value[key]) for key in reversed(value)}
    return [backwards(each) for each in value] if isinstance(value, list) else value


@given(values)
def test_the_order_of_keys_does_not_matter(value: Any) -> None:
    assert digest(backwards(value)) == digest(value)
    assert digest(json.loads(json.dumps(value))) == digest(value)


@given(values, values)
def test_different_values_have_different_digests(one: Any, other: Any) -> None:
    same = json.dumps(one, sort_keys=True) == json.dumps(other, sort_keys=True)
    assert (digest(one) == digest(other)) == same


@pytest.mark.parametrize("value", [float("nan"), float("inf"), {1, 2}, object()])
def test_what_json_cannot_hold_has_no_digest(value: object) -> None:
    with pytest.raises((ValueError, TypeError)):
        digest({"deep": [value]})


def test_a_digest_is_the_same_in_another_process() -> None:
    code = "from lepton_compress.provenance import digest; print(digest({'b': 'ü', 'a': [1.5]}))"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONHASHSEED": "7"},
        capture_output=True,
        check=True,
    )
    assert done.stdout.decode().strip() == digest({"a": [1.5], "b": "ü"})


def test_the_digest_of_a_file_is_that_of_its_bytes(tmp_path: Path) -> None:
    path = tmp_path / "a.bin"
    path.write_bytes(b"\0" * 1_000_000)
    assert file_digest(path) == hashlib.sha256(b"\0" * 1_000_000).hexdigest()


class TestCode:
    """Of a project: a package with a step, its helpers, and what it does not use."""

    @pytest.fixture
    def project(self, tmp_path: Path) -> Path:
        files = {
            "house/__init__.py": "",
            "house/step.py": "from . import near\nfrom .deep.far import X\nimport house.plain\n",
            "house/near.py": "import side\nimport house.step\n",
            "house/plain.py": "",
            "house/unused.py": "",
            "house/deep/__init__.py": "",
            "house/deep/far.py": "from ..cousin import *\n",
            "house/cousin.py": "X = 1\n",
            "side.py": "",
            "stranger.py": "",
        }
        for name, source in files.items():
            path = tmp_path / "one" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(source)
        return tmp_path / "one"

    def of_step(self, project: Path) -> str:
        return file_code_digest(project / "house/step.py")

    @pytest.mark.parametrize(
        "changed",
        [
            *("house/step.py", "house/near.py", "house/plain.py", "house/deep/far.py", "side.py"),
            *("house/cousin.py", "house/deep/__init__.py", "house/__init__.py"),
        ],
    )
    def test_a_change_in_what_it_imports_counts(self, project: Path, changed: str) -> None:
        before = self.of_step(project)
        with (project / changed).open("a") as file:
            file.write("# changed\n")
        assert self.of_step(project) != before

    @pytest.mark.parametrize("changed", ["house/unused.py", "stranger.py"])
    def test_a_change_elsewhere_does_not(self, project: Path, changed: str) -> None:
        before = self.of_step(project)
        (project / changed).write_text("CHANGED = True\n")
        assert self.of_step(project) == before

    def test_another_folder_does_not_matter(self, project: Path, tmp_path: Path) -> None:
        shutil.copytree(project, tmp_path / "two")
        assert self.of_step(tmp_path / "two") == self.of_step(project)

    def test_the_name_of_the_file_counts(self, project: Path) -> None:
        for name in ("a", "b"):
            (project / f"{name}.py").write_text("X = 1\n")
        assert file_code_digest(project / "a.py") != file_code_digest(project / "b.py")

    def test_a_helper_that_appears_or_goes_counts(self, project: Path) -> None:
        with_it = self.of_step(project)
        (project / "side.py").unlink()
        without = self.of_step(project)
        (project / "side.py").write_text("")
        assert with_it == self.of_step(project) != without

    @pytest.mark.parametrize("source", [b"def (", b"\0", b"\xff\xfe", b"# coding: nonsense\n"])
    def test_what_does_not_parse_counts_by_its_bytes(self, tmp_path: Path, source: bytes) -> None:
        path = tmp_path / "broken.py"
        path.write_bytes(source)
        before = file_code_digest(path)
        path.write_bytes(source + b"\n")
        assert file_code_digest(path) != before

    @pytest.mark.parametrize(
        ("changed", "counts"), [("heavy/__init__.py", False), ("plug/other.py", True)]
    )
    def test_an_installed_package_counts_as_a_whole_and_others_do_not(
        self, tmp_path: Path, changed: str, counts: bool
    ) -> None:
        found: list[str] = []
        for text in ("", "X = 1\n"):
            # What is installed does not change while a process runs: each has its own.
            site = tmp_path / str(len(found)) / "site-packages"
            for name in ("plug", "heavy"):
                (site / name).mkdir(parents=True)
                (site / name / "__init__.py").write_text("")
            (site / "plug/step.py").write_text("import heavy\n")
            (site / changed).write_text(text)
            found.append(file_code_digest(site / "plug/step.py"))
        assert (found[0] != found[1]) is counts

    def test_code_of_a_large_library_is_read_once(self) -> None:
        before = provenance._package_digest.cache_info().misses
        for function in (pydantic.create_model, pydantic.TypeAdapter):
            code_digest(function)
        assert provenance._package_digest.cache_info().misses <= before + 1

    def test_the_package_itself_is_read_quickly_and_without_running_it(self) -> None:
        code = (
            "import sys; from pathlib import Path; from lepton_compress import provenance\n"
            "folder = Path(provenance.__file__).parent\n"
            "provenance.file_code_digest(folder / 'compress' / 'prune.py')\n"
            "seen = provenance._read_code.cache_info().currsize\n"
            "print(seen, 'torch' in sys.modules, 'lepton_compress.compress.prune' in sys.modules)"
        )
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)
        assert re.fullmatch(r"[1-9]\d{0,2} False False\n", done.stdout.decode()), done.stdout


class TestFunctions:
    def load(self, path: Path) -> Any:
        spec = importlib.util.spec_from_file_location(path.stem, path)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module

    def test_functions_and_classes_count_by_their_file(self, tmp_path: Path) -> None:
        path = tmp_path / "nets.py"
        path.write_text("def make(): ...\nclass Net: ...\n")
        module = self.load(path)
        module.Net.__module__ = "nets"
        assert code_digest(module.make) == file_code_digest(path)

    def test_a_class_counts_by_its_file(self) -> None:
        assert code_digest(TestFunctions) == file_code_digest(Path(__file__).resolve())

    def test_a_decorated_function_counts_by_its_own_file(self, tmp_path: Path) -> None:
        (tmp_path / "far").mkdir()
        wrappers = tmp_path / "far" / "wrappers.py"
        wrappers.write_text(
            "import functools\n"
            "def wrap(f):\n"
            "    @functools.wraps(f)\n"
            "    def inner(): return f()\n"
            "    return inner\n"
        )
        path = tmp_path / "nets.py"
        path.write_text("def make(): return 1\n")
        wrapped = self.load(wrappers).wrap(self.load(path).make)
        assert code_digest(wrapped) == file_code_digest(path) != file_code_digest(wrappers)

    def test_a_function_without_a_file_counts_by_its_name(self) -> None:
        scope: dict[str, Callable[[], None]] = {}
        exec("def one(): ...\ndef two(): ...", {"__name__": "console"}, scope)
        assert code_digest(scope["one"]) == digest("console.one")
        assert code_digest(scope["one"]) != code_digest(scope["two"])
        assert code_digest(len) == digest("builtins.len")


class TestEnvironment:
    def test_it_fits_into_json_and_names_what_ran(self) -> None:
        found = json.loads(json.dumps(provenance.environment()))
        assert found["python"] == ".".join(map(str, sys.version_info[:3]))
        assert found["libraries"]["torch"] == importlib.metadata.version("torch")
        assert found["cpu"]["cores"] >= 1
        assert found["cpu"]["name"]

    def test_absent_libraries_are_left_out(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(provenance, "LIBRARIES", ("numpy", "no-such-library"))
        monkeypatch.setattr(provenance, "OPTIONAL", ("no-such-runtime",))
        versions: Any = functools.partial(provenance.library_versions.__wrapped__)
        assert versions() == {"numpy": importlib.metadata.version("numpy")}
