"""Target files: each is what it says, names are unique, and a recipe's own words come first."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from lepton_compress import catalogue, registry
from lepton_compress.catalogue import Limits, find, listed, read
from lepton_compress.errors import RecipeError
from lepton_compress.recipe import TargetSpec, from_target, from_values
from lepton_compress.target_pages import listing, page

if TYPE_CHECKING:
    from tests.conftest import Cli, Install

FILES = sorted(catalogue.BUILTIN.glob("*.yaml"))
OWN = """\
name: door
about: Our door sensor
runtime: tflite-micro
dtypes: [int8]
limits: {ram: 96 KiB, flash: 384 KiB}
source: Linker map
"""
VALUES: dict[str, Any] = {
    "version": 1,
    "name": "own",
    "model": {"onnx": "model.onnx"},
    "data": {"python": {"function": "data.py:load"}},
    "metrics": ["accuracy"],
}


@pytest.fixture(autouse=True)
def _alone(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.delenv(catalogue.FOLDER, raising=False)
    catalogue._read.cache_clear()
    yield
    catalogue._read.cache_clear()


def write(folder: Path, name: str = "door", **changes: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    text = OWN.replace("name: door", f"name: {name}")
    for old, new in changes.items():
        (line,) = [each for each in text.splitlines() if each.startswith(f"{old}:")]
        text = text.replace(line, new)
    (folder / f"{name}.yaml").write_text(text)
    return folder / f"{name}.yaml"


class TestOurs:
    @pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
    def test_each_is_right(self, file: Path) -> None:
        made = read(file)
        plugin = registry.get("runtime", made.runtime)
        assert plugin.params.model_validate(made.options)
        assert made.operators == "as the runtime says"
        if made.limits != Limits():
            assert plugin.simulates

    def test_every_accelerator_has_one(self) -> None:
        from lepton_compress.targets.ethos_u import ACCELERATORS

        held = {find(name).options.get("accelerator") for name in ACCELERATORS}
        assert held == set(ACCELERATORS)

    def test_a_configuration_fits_the_accelerator(self) -> None:
        # What does not is refused by the runtime's parameters, so that reading is the test.
        assert all(read(file).options for file in FILES if file.stem.startswith("ethos"))

    @pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
    def test_each_can_be_named_in_a_recipe(self, file: Path) -> None:
        device = read(file)
        host = {"host": "user@device"} if device.needs_host else {}
        made = from_target({"device": device.name, **host})
        assert (made.name, made.runtime) == (device.name, device.runtime)
        assert (made.threads, made.limits) == (device.threads, device.limits)
        assert made.options == device.options
        # A target that was read says all of it, so that it may be read again.
        assert TargetSpec.model_validate({k: v for k, v in made if k in made.model_fields_set})


class TestOwn:
    def test_one_beside_the_recipe(self, tmp_path: Path) -> None:
        write(tmp_path / "targets")
        with catalogue.beside(tmp_path):
            made = from_target({"device": "door"})
        assert made.limits == Limits.model_validate({"ram": "96 KiB", "flash": "384 KiB"})
        with pytest.raises(RecipeError, match="unknown target 'door'"):
            from_target({"device": "door"})

    def test_a_recipe_finds_those_beside_it(self, tmp_path: Path) -> None:
        write(tmp_path / "targets", runtime="runtime: onnxruntime-cpu", limits="threads: 2")
        made = from_values(VALUES | {"targets": ["door"]}, tmp_path)
        (target,) = made.recipe.targets
        assert (target.name, target.device, target.threads) == ("door", "door", 2)

    def test_one_in_the_folder_of_the_environment(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        write(tmp_path / "mine")
        monkeypatch.setenv(catalogue.FOLDER, str(tmp_path / "mine"))
        assert find("door").about == "Our door sensor"
        monkeypatch.setenv(catalogue.FOLDER, str(tmp_path / "none"))
        with pytest.raises(RecipeError, match=r"LEPTON_TARGETS: no folder .*; name a folder"):
            find("door")

    def test_one_of_a_package(self, third_party: Install) -> None:
        folder = third_party({}, name="sensors")
        about = folder / "sensors-0.dist-info" / "entry_points.txt"
        about.write_text(f"[{catalogue.GROUP}]\nours = sensor_targets\n")
        write(folder / "sensor_targets")
        (folder / "sensor_targets" / "__init__.py").write_text("raise RuntimeError('imported')\n")
        assert listed()["door"].origin == "sensors"
        assert find("door").runtime == "tflite-micro"

    def test_a_package_without_a_folder_is_told(self, third_party: Install) -> None:
        folder = third_party({}, name="sensors")
        about = folder / "sensors-0.dist-info" / "entry_points.txt"
        about.write_text(f"[{catalogue.GROUP}]\nours = nowhere.at_all\n")
        with pytest.raises(RecipeError, match="where sensors offers targets, is no package"):
            listed()

    def test_either_ending(self, tmp_path: Path) -> None:
        file = write(tmp_path / "targets")
        file.rename(file.with_suffix(".yml"))
        assert find("door", tmp_path).about == "Our door sensor"
        write(tmp_path / "targets")
        with pytest.raises(RecipeError, match=r"door.yml: the target 'door' stands in .*door.yaml"):
            listed(tmp_path)

    def test_what_it_takes_is_the_target_s(self, tmp_path: Path) -> None:
        more = "operators: [CONV_2D, ADD]"
        write(tmp_path / "targets", limits=more)
        with catalogue.beside(tmp_path):
            made = from_target({"device": "door"})
            other = from_target({"device": "door", "dtypes": ["int8", "int16"]})
        assert (made.operators, made.dtypes) == (["CONV_2D", "ADD"], ["int8"])
        assert other.dtypes == ["int8", "int16"]

    def test_a_catalogue_that_is_wrong_is_told_once(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv(catalogue.FOLDER, str(tmp_path / "none"))
        with pytest.raises(RecipeError) as caught:
            from_values(VALUES | {"targets": ["door", "gate", {"device": "other"}]}, tmp_path)
        assert str(caught.value).startswith("LEPTON_TARGETS: no folder ")
        assert caught.value.others == ()


class TestNames:
    """The lists of operators are those of the installed packages."""

    def held(self, name: str) -> set[str]:
        text = (catalogue.OPERATORS / f"{name}.yaml").read_text()
        return {line[2:] for line in text.splitlines() if line.startswith("- ")}

    def test_of_litert(self) -> None:
        schema = pytest.importorskip("ai_edge_litert.schema_py_generated")
        known = {name for name, each in vars(schema.BuiltinOperator).items() if type(each) is int}
        assert self.held("litert") == known - {"PLACEHOLDER_FOR_GREATER_OP_CODES"}

    def test_of_onnx(self) -> None:
        from onnx import defs

        assert self.held("onnx") == {e.name for e in defs.get_all_schemas() if not e.domain}


class TestMistakes:
    def test_a_name_that_stands_twice(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        first = write(tmp_path / "mine")
        second = write(tmp_path / "targets")
        monkeypatch.setenv(catalogue.FOLDER, str(tmp_path / "mine"))
        with pytest.raises(RecipeError) as caught:
            listed(tmp_path)
        assert str(caught.value) == (
            f"{second}: the target 'door' stands in {first} too; give one of the two another name"
        )

    def test_one_of_ours_is_not_replaced(self, tmp_path: Path) -> None:
        write(tmp_path / "targets", "ethos-u55-128")
        with pytest.raises(RecipeError, match=r"'ethos-u55-128' stands in .* too"):
            listed(tmp_path)

    def test_a_runtime_s_name(self, tmp_path: Path) -> None:
        write(tmp_path / "targets", "ethos-u")
        with pytest.raises(RecipeError, match="'ethos-u' is a runtime's name"):
            listed(tmp_path)

    def test_an_unknown_one_has_its_nearest(self) -> None:
        with pytest.raises(RecipeError, match="'ethos-u55-129'; did you mean 'ethos-u55-128'"):
            find("ethos-u55-129")

    def test_in_a_recipe_too(self) -> None:
        for target in ("ethos-u55-129", {"device": "ethos-u55-129"}):
            with pytest.raises(RecipeError, match=r"ethos-u55-129'; did you mean 'ethos-u55-128'"):
                from_values(VALUES | {"targets": [target]}, Path())

    @pytest.mark.parametrize(
        ("changes", "says"),
        [
            ({"about": "speed: 3"}, "speed: unknown key 'speed'"),
            ({"about": ""}, "the key 'about' is missing"),
            ({"runtime": "runtime: tflite"}, "runtime: unknown runtime 'tflite'; did you mean"),
            ({"limits": "limits: {ram: 96}"}, "limits.ram: 96 is not a number with a unit"),
            ({"limits": "options: {arena: 3}"}, "options.arena: 3 is not a number with a unit"),
            ({"dtypes": "dtypes: []"}, "dtypes: must not be empty"),
            ({"dtypes": "dtypes: [int7]"}, "dtypes[0]: unknown element type 'int7'; did you mean"),
            (
                {"limits": "operators: [ADD, CONV2D]"},
                "operators[1]: unknown operator 'CONV2D' of litert files; did you mean 'CONV_2D'?",
            ),
            ({"limits": "needs_host: true"}, "needs_host: tflite-micro simulates the device on"),
            ({"limits": "threads: 2"}, "threads: tflite-micro tells nothing of threads; drop it"),
            ({"runtime": "runtime: litert-cpu"}, "limits: litert-cpu is measured and not simul"),
            (
                {"runtime": "runtime: litert-cpu", "limits": "operators: [CONV_2D]"},
                "operators: litert-cpu is measured and runs them or not",
            ),
        ],
        ids=lambda each: each if isinstance(each, str) else "",
    )
    def test_a_file_that_is_wrong_says_where(
        self, changes: dict[str, str], says: str, tmp_path: Path
    ) -> None:
        file = write(tmp_path / "targets", **changes)
        with pytest.raises(RecipeError) as caught:
            find("door", tmp_path)
        said = [caught.value, *caught.value.others]
        assert any(f"{file}:" in str(each) and says in str(each) for each in said), said
        (row,) = [row for row in listing(tmp_path) if row.name == "door"]
        assert row.broken.startswith(f"{file}:")

    def test_a_file_of_another_name(self, tmp_path: Path) -> None:
        file = write(tmp_path / "targets")
        other = file.rename(file.with_name("gate.yaml"))
        with pytest.raises(RecipeError, match=f"{other}:1: name: 'door' is not what the file"):
            find("gate", tmp_path)


class TestOverrides:
    def test_options_and_limits_are_joined_key_by_key(self) -> None:
        made = from_target(
            {
                "device": "ethos-u55-128",
                "name": "npu",
                "options": {"optimise": "Size"},
                "limits": {"ram": "64 KiB"},
            }
        )
        assert made.name == "npu"
        assert made.options["accelerator"] == "ethos-u55-128"
        assert made.options["optimise"] == "Size"
        assert made.limits == Limits.model_validate({"ram": "64 KiB"})

    def test_one_limit_leaves_the_other(self) -> None:
        made = from_target({"device": "cortex-m4-256k", "limits": {"ram": "64 KiB"}})
        assert made.limits == Limits.model_validate({"ram": "64 KiB", "flash": "1 MiB"})

    def test_another_runtime_has_options_of_its_own(self) -> None:
        made = from_target({"device": "raspberry-pi-5", "runtime": "litert-cpu", "host": "a@b"})
        assert (made.runtime, made.threads, made.options) == ("litert-cpu", 4, {})

    @pytest.mark.parametrize(
        ("target", "says"),
        [
            ({"device": "raspberry-pi-5"}, "raspberry-pi-5 is another machine; give its `host`"),
            ({"device": "ethos-u55-128", "host": "a@b"}, "host: ethos-u simulates the device on"),
            ({"device": "ethos-u55-128", "batch": 8}, "batch: ethos-u tells of one sample"),
            ({"device": "ethos-u55-128", "batch": [1, 8]}, "ethos-u tells of one sample"),
            (
                {"device": "ethos-u55-128", "threads": 4},
                "threads: ethos-u tells nothing of threads",
            ),
            (
                {"device": "ethos-u55-128", "runtime": "onnxruntime-cpu"},
                "runtime: ethos-u55-128 is simulated by ethos-u, and onnxruntime-cpu is not about",
            ),
            (
                {"device": "raspberry-pi-5", "threads": 1, "runtime": "tflite-micro"},
                "raspberry-pi-5 is another machine; give its `host`",
            ),
            (
                {"runtime": "ethos-u", "name": "npu"},
                "the key 'accelerator' is missing; say it in `options`, or take a `device`",
            ),
            ("onnxruntime-qnn", "the key 'architecture' is missing; say it in `options`"),
            (
                {"device": "ethos-u55-128", "options": {"system_config": "Ethos_U85_SYS_DRAM_Low"}},
                "options.system_config: Ethos_U85_SYS_DRAM_Low does not belong to ethos-u55-128",
            ),
            ({"runtime": "onnxruntime-cpu", "options": {"a": 1}}, "options.a: unknown key 'a'"),
            (
                {"runtime": "onnxruntime-cpu", "limits": {"ram": "1 MB"}},
                "limits: onnxruntime-cpu is measured and not simulated; use the gates",
            ),
        ],
    )
    def test_what_does_not_go_together(self, target: Any, says: str) -> None:
        with pytest.raises(RecipeError) as caught:
            from_values(VALUES | {"targets": [target]}, Path())
        assert says in str(caught.value)


class TestCommand:
    def test_the_listing(self, cli: Cli, tmp_path: Path) -> None:
        done = cli("targets", "--json", cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        rows = {row["name"]: row for row in json.loads(done.stdout)}
        assert set(rows) == {file.stem for file in FILES}
        assert rows["cortex-m4-256k"]["ram"] == 256 * 1024
        assert list(rows).index("ethos-u55-32") < list(rows).index("ethos-u55-128")
        shown = cli("targets", cwd=tmp_path).stdout
        assert all(name in shown for name in rows)

    def test_own_ones_are_listed_too_and_the_broken_say_why(self, cli: Cli, tmp_path: Path) -> None:
        write(tmp_path / "targets")
        write(tmp_path / "mine", "broken", runtime="runtime: none")
        more = {catalogue.FOLDER: str(tmp_path / "mine")}
        done = cli("targets", "--recipe", "recipe.yaml", cwd=tmp_path, **more)
        assert done.returncode == 2, done.stderr
        assert "broken: 1 of " in done.stderr
        assert "Our door sensor" in done.stdout
        assert "broken: " in done.stdout
        assert "origin" in done.stdout

    def test_one_is_shown(self, cli: Cli, tmp_path: Path) -> None:
        done = cli("targets", "show", "cortex-m4-256k", cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        for each in ("tflite-micro, simulated", "262,144 bytes", "targets: [cortex-m4-256k]"):
            assert each in done.stdout
        made = json.loads(cli("targets", "show", "raspberry-pi-5", "--json", cwd=tmp_path).stdout)
        assert made["needs_host"]
        assert made["use"] == "targets: [{device: raspberry-pi-5, host: user@device}]"

    def test_options_in_front_of_show_count(self, cli: Cli, tmp_path: Path) -> None:
        write(tmp_path / "targets")
        done = cli("targets", "--recipe", "r.yaml", "--json", "show", "door", cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout)["name"] == "door"

    def test_an_unknown_one_ends_in_two(self, cli: Cli, tmp_path: Path) -> None:
        done = cli("targets", "show", "ethos-u55-12", cwd=tmp_path)
        assert done.returncode == 2
        assert done.stderr.strip().startswith("error: unknown target 'ethos-u55-12'; did you mean")
        assert "Traceback" not in done.stderr


def test_a_page_tells_what_the_file_says(tmp_path: Path) -> None:
    file = write(tmp_path / "targets", dtypes="dtypes: [int8]\noperators: [ADD, CONV_2D]")
    made = page("door", tmp_path)
    assert (made.file, made.origin) == (str(file), str(tmp_path / "targets"))
    assert made.operators == ("ADD", "CONV_2D")
