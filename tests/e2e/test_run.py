"""`lepton-compress run` as a user runs it: in processes of its own, on real files."""

from __future__ import annotations

import functools
import json
import re
import shutil
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest

from lepton_compress.artifacts import SCHEMA_VERSION
from lepton_compress.errors import EXIT_GATE, EXIT_INTERRUPTED, EXIT_OK, EXIT_USER
from lepton_compress.report.folder import read_result
from tests.bench import GRAPH, MODULE, Bench, Done, copy_of, finish, kill, wait_until

ROOT = Path(__file__).parents[2]
LINE = re.compile(r" +\d+\.\d s  \w[^\n]*|    note  here: the baseline against itself[^\n]*")
"""What the tool itself writes on stderr while all goes well."""

LIST_MODULES = """
import atexit, os, sys

def write():
    with open(f"modules-{os.getpid()}", "w") as file:
        file.write("\\n".join(sys.modules))

atexit.register(write)
"""

SMALL = ["prune", "distil", "lower", "quantize"]
"""What the variant `small` goes through."""


def clean(done: Done) -> None:
    """Check that nothing of a library's got through."""
    for line in done.err.splitlines():
        assert LINE.fullmatch(line), done


def history(bench: Bench, candidate: str, out: str = "runs/tiny") -> dict[str, bool]:
    """Step to whether it came from the store."""
    found = next(each for each in bench.result(out)["candidates"] if each["id"] == candidate)
    return {each["step"]: each["cached"] for each in found["history"]}


@pytest.fixture(scope="session")
def ran(furnished: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Bench, Done]:
    """The small module's recipe after its first run. Look, do not touch."""
    bench = copy_of(furnished, tmp_path_factory.mktemp("ran") / "bench")
    done = bench.lepton("run", "module.yaml")
    assert done.code == EXIT_OK, done
    return bench, done


@pytest.fixture
def again(ran: tuple[Bench, Done], tmp_path: Path) -> Bench:
    """A copy of that folder, in another place."""
    return copy_of(ran[0].folder, tmp_path / "again")


class TestFirstRun:
    def test_one_table_is_printed(self, ran: tuple[Bench, Done]) -> None:
        _, done = ran
        lines = done.out.splitlines()
        assert lines[0] == "tiny"
        heading = r" variant +accuracy +drop \(95 %\) +size +p50 +ratio \(95 %\) +gates *"
        assert re.fullmatch(heading, lines[1])
        names = [line.split()[1 if ">" in line else 0] for line in lines[2:5]]
        assert names == ["baseline", "int8", "small"]
        assert lines[4].startswith(" > small")
        assert "…" not in done.out
        assert lines[-2:] == ["written to runs/tiny", "passed"]
        assert "\x1b" not in done.out + done.err

    def test_nothing_of_a_library_gets_through(self, ran: tuple[Bench, Done]) -> None:
        clean(ran[1])

    def test_the_run_folder_is_complete(self, ran: tuple[Bench, Done]) -> None:
        bench, _ = ran
        folder = bench.folder / "runs" / "tiny"
        files = {each.relative_to(folder).as_posix() for each in folder.rglob("*")}
        assert files == {
            "answers",
            "answers/onnx",
            "answers/onnx/baseline.npz",
            "answers/onnx/int8.npz",
            "answers/onnx/small.npz",
            "artifacts",
            "artifacts/baseline.onnx",
            "artifacts/int8.onnx",
            "artifacts/small.onnx",
            "manifest.json",
            "ranges",
            "ranges/int8.json",
            "ranges/small.json",
            "recipe.yaml",
            "report.html",
            "report.md",
            "result.json",
            "run.log",
        }
        assert [each.name for each in (bench.folder / "runs").iterdir()] == ["tiny"]
        assert bench.result()["schema"] == SCHEMA_VERSION
        assert "begin lower" in (folder / "run.log").read_text()

    def test_the_result_reads_back_and_is_whole(self, ran: tuple[Bench, Done]) -> None:
        result = read_result(ran[0].folder / "runs" / "tiny")
        assert result.passed
        assert [each.id for each in result.candidates] == ["baseline", "int8", "small"]
        assert len(result.artifacts) == len(result.scores) == len(result.profiles) == 3
        # Each lowering and each artifact, at two batch sizes.
        assert {parity.batch for parity in result.parities} == {1, 7}
        assert all(parity.holds for parity in result.parities)
        assert {each.status for each in result.profiles} == {"measured"}
        assert [record.step for record in result.candidates[2].history] == SMALL
        assert result.candidates[2].parameters < result.candidates[0].parameters

    def test_an_artifact_runs_by_itself(self, ran: tuple[Bench, Done]) -> None:
        import onnxruntime

        from tests.bench import splits

        bench, _ = ran
        images, labels = splits()["evaluation"]
        path = bench.folder / "runs" / "tiny" / "artifacts" / "small.onnx"
        session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
        (scores,) = session.run(["scores"], {"image": images})
        held = read_result(bench.folder / "runs" / "tiny")
        (score,) = [each for each in held.scores if each.candidate == "small"]
        assert float((scores.argmax(1) == labels).mean()) == score.value

    def test_the_report_says_the_same(self, ran: tuple[Bench, Done]) -> None:
        report = (ran[0].folder / "runs" / "tiny" / "report.md").read_text()
        assert report.startswith("# tiny: passed\n")
        assert "- On **here**: **small**" in report
        shown = r"100\.00 % \(control \d+\.\d\d %\)"
        assert re.search(rf"\| \*\*small\*\* \(chosen(, front)?\) \| {shown} \|", report)
        for digest in ran[0].digests().values():
            assert f"sha256 `{digest}`" in report
        assert str(ran[0].folder) not in report

    def test_nothing_in_the_artifacts_tells_where_they_were_made(
        self, ran: tuple[Bench, Done]
    ) -> None:
        bench, _ = ran
        for file in (bench.folder / "runs" / "tiny" / "artifacts").iterdir():
            held = file.read_bytes()
            assert str(bench.folder).encode() not in held
            assert b"net.py" not in held
            assert b"pkg.torch" not in held


class TestSecondRun:
    def test_only_measures_and_needs_no_torch(self, again: Bench, tmp_path: Path) -> None:
        first = again.digests()
        (tmp_path / "sitecustomize.py").write_text(LIST_MODULES)
        done = again.lepton("run", "module.yaml", path=(tmp_path,))
        assert done.code == EXIT_OK, done
        clean(done)
        assert again.digests() == first
        assert history(again, "small") == dict.fromkeys(SMALL, True)
        assert history(again, "int8") == {"lower": True, "quantize": True}
        (modules,) = again.folder.glob("modules-*")
        loaded = set(modules.read_text().split("\n"))
        assert "numpy" in loaded
        assert not loaded & {"torch", "onnx", "onnxruntime", "onnxscript", "torch_pruning"}

    def test_json_is_all_that_stdout_holds(self, again: Bench) -> None:
        done = again.lepton("run", "module.yaml", "--json")
        assert done.code == EXIT_OK, done
        assert done.err == ""
        assert json.loads(done.out) == again.result()

    def test_the_last_step_changed_is_all_that_is_made_again(self, again: Bench) -> None:
        first = again.digests()
        small = [*MODULE["variants"]["small"][:-1], {"quantize": {"activations": "int8"}}]
        again.recipe(MODULE, "module", variants={**MODULE["variants"], "small": small})
        done = again.lepton("run", "module.yaml")
        assert done.code == EXIT_OK, done
        assert history(again, "small") == {**dict.fromkeys(SMALL, True), "quantize": False}
        assert history(again, "int8") == {"lower": True, "quantize": True}
        second = again.digests()
        assert second["small"] != first["small"]
        assert (second["int8"], second["baseline"]) == (first["int8"], first["baseline"])

    def test_a_run_folder_is_replaced_as_a_whole(self, again: Bench) -> None:
        (again.folder / "runs" / "tiny" / "artifacts" / "old.onnx").write_text("of another run")
        assert again.lepton("run", "module.yaml").code == EXIT_OK
        held = sorted(each.stem for each in (again.folder / "runs/tiny/artifacts").iterdir())
        assert held == ["baseline", "int8", "small"]
        assert [each.name for each in (again.folder / "runs").iterdir()] == ["tiny"]

    @pytest.mark.slow
    def test_a_damaged_entry_is_noticed_and_made_again(self, again: Bench) -> None:
        first = again.digests()
        entry = smallest(again.entries()["distil"], "weights.safetensors")
        weights = entry / "weights.safetensors"
        held = bytearray(weights.read_bytes())
        held[-5] ^= 1
        weights.write_bytes(held)
        # What was made from it still stands; without it the damage would not matter.
        for label in ("quantize", "export onnx"):
            for folder in again.entries()[label]:
                shutil.rmtree(folder)
        shutil.rmtree(smallest(again.entries()["lower"]))
        done = again.lepton("run", "module.yaml")
        assert done.code == EXIT_OK, done
        assert again.digests() == first
        assert history(again, "small")["distil"] is False
        note = rf"store entry {entry.name[:12]} is damaged \(weights\.safetensors .*\)"
        (said,) = [each for each in again.result()["notes"] if "store entry" in each]
        assert re.match(note, said)
        assert re.search(f"note: {note}", done.out)


def smallest(entries: list[Path], file: str = "model.onnx") -> Path:
    """The entry of the pruned model."""
    return min(entries, key=lambda each: (each / file).stat().st_size)


class TestOtherForms:
    def test_an_onnx_file_is_compressed(self, bench: Bench) -> None:
        done = bench.lepton("run", "graph.yaml")
        assert done.code == EXIT_OK, done
        clean(done)
        assert history(bench, "int8") == {"lower": False, "quantize": False}
        assert bench.result()["passed"]

    def test_an_exported_program_is_compressed(self, bench: Bench) -> None:
        done = bench.lepton("run", "program.yaml")
        assert done.code == EXIT_OK, done
        clean(done)
        assert [each["name"] for each in bench.result()["artifacts"][0]["inputs"]] == ["image"]
        against = [each["against"] for each in bench.result()["parities"]]
        assert against == ["program", "program", "graph", "graph"] * 2

    def test_a_torch_step_on_an_onnx_file_is_refused_before_anything_runs(
        self, bench: Bench
    ) -> None:
        bench.recipe(GRAPH, variants={"a": [{"prune": {"ratio": "50 %"}}, "quantize"]})
        done = bench.lepton("run", "recipe.yaml")
        assert done.code == EXIT_USER
        assert "prune works on a torch module, but the model is an ONNX graph" in done.err
        assert not (bench.folder / ".lepton").exists()


class TestExitCodes:
    def test_a_gate_that_fails_is_1(self, bench: Bench) -> None:
        bench.recipe(GRAPH, gates={"size": "100 B"}, variants={"int8": ["quantize"]})
        done = bench.lepton("run", "recipe.yaml")
        assert done.code == EXIT_GATE, done
        assert "FAIL size" in done.out
        assert done.out.splitlines()[-1] == "failed: see the gates"
        assert not bench.result()["passed"]

    def test_an_interrupted_run_is_130_and_goes_on(self, bench: Bench) -> None:
        process = bench.start("run", "graph.yaml")
        making = bench.folder / ".lepton" / "store" / "tmp"
        assert wait_until(lambda: making.is_dir() and any(making.iterdir()), process)
        process.send_signal(signal.SIGINT)
        done = finish(process)
        assert done.code == EXIT_INTERRUPTED, done
        assert done.err.splitlines()[-1].startswith("interrupted; the same command goes on")
        assert "Traceback" not in done.err
        assert not (bench.folder / "runs").exists()
        assert not any(making.iterdir())
        assert bench.lepton("run", "graph.yaml").code == EXIT_OK

    def test_a_reader_who_leaves_is_no_error(self, bench: Bench) -> None:
        process = bench.start("schema")
        assert process.stdout is not None
        process.stdout.close()
        _, said = process.communicate()
        assert said == ""


class TestDisturbed:
    @pytest.mark.slow
    def test_killed_again_and_again_it_ends_with_the_same_artifacts(
        self, ran: tuple[Bench, Done], bench: Bench
    ) -> None:
        def busy_after(finished: int) -> bool:
            """Whether that many results are finished, and another one is being made."""
            making = (bench.folder / ".lepton" / "store" / "tmp").glob("*")
            return sum(map(len, bench.entries().values())) >= finished and any(making)

        kills = 0
        for finished in (0, 2, 4, 6, 9):
            process = bench.start("run", "module.yaml")
            if wait_until(functools.partial(busy_after, finished), process):
                kill(process)
                kills += 1
            else:
                finish(process)
        assert kills >= 3
        assert not (bench.folder / "runs").exists()
        done = bench.lepton("run", "module.yaml")
        assert done.code == EXIT_OK, done
        assert bench.digests() == ran[0].digests()
        assert not any("damaged" in note for note in bench.result()["notes"])
        assert True in history(bench, "small").values()

    @pytest.mark.slow
    def test_two_at_once_do_not_harm_each_other(
        self, ran: tuple[Bench, Done], bench: Bench
    ) -> None:
        outs = ("runs/one", "runs/two", "runs/two")
        processes: list[subprocess.Popen[str]] = [
            bench.start("run", "module.yaml", "--out", out) for out in outs
        ]
        for done in [finish(process) for process in processes]:
            assert done.code == EXIT_OK, done
        assert bench.digests("runs/one") == bench.digests("runs/two") == ran[0].digests()
        # Each result was made once, by one of them; the control is trained too.
        counts = {label: len(folders) for label, folders in bench.entries().items()}
        assert (counts["prune"], counts["distil"], counts["lower"]) == (1, 2, 3)
        assert sorted(each.name for each in (bench.folder / "runs").iterdir()) == ["one", "two"]


@pytest.fixture(scope="session")
def digits(tmp_path_factory: pytest.TempPathFactory) -> tuple[Bench, Done]:
    """The shipped recipe after its first run. Look, do not touch."""
    bench = Bench(tmp_path_factory.mktemp("digits"))
    recipe = ROOT / "recipes" / "digits-cnn.yaml"
    done = bench.lepton("run", recipe, "--out", "out")
    # Whether its latency gate holds depends on what else the machine does.
    assert done.code in (EXIT_OK, EXIT_GATE), done
    return bench, done


@pytest.mark.slow
class TestDigits:
    def test_the_table_shows_every_variant_on_every_target(
        self, digits: tuple[Bench, Done]
    ) -> None:
        bench, done = digits
        targets = len(read_result(bench.folder / "out").chosen)
        rows = [line.split() for line in done.out.splitlines()]
        for name in ("baseline", "int8", "pruned", "pruned-int8"):
            # The target and the mark of the chosen one may stand in front of it.
            assert sum(name in row[:3] and "KB" in row for row in rows) == targets
        assert done.out.count("chosen on ") == targets
        assert "…" not in done.out

    def test_stderr_holds_the_tool_s_own_lines_alone(self, digits: tuple[Bench, Done]) -> None:
        own = re.compile(r" +\d+\.\d s  \w[^\n]*|    note  \w+: the baseline against itself[^\n]*")
        for line in digits[1].err.splitlines():
            assert own.fullmatch(line), digits[1]

    def test_the_compressed_models_are_small_and_good(self, digits: tuple[Bench, Done]) -> None:
        result = read_result(digits[0].folder / "out")
        best = result.artifact("pruned-int8")
        assert best.bytes < 100_000
        drops: dict[str, Any] = {each.candidate: each.drop for each in result.scores}
        assert max(drops.values()) <= 0.02
        assert all(each.holds for each in result.parities)
        steps = [each.step for each in result.candidates[3].history]
        assert steps == ["prune", "distil", "lower", "quantize"]
        macs = [each.macs for each in result.candidates]
        assert macs[0] is not None
        assert macs[3] is not None
        # Pruned to 0.35; the first layer's channels are then filled up to four.
        assert macs[3] <= 0.37 * macs[0]
