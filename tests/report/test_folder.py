"""The run folder: what is written is read back, whole or not at all."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lepton_compress.artifacts import SCHEMA_VERSION, Parity, RunResult, Score
from lepton_compress.errors import InputError, OutputError
from lepton_compress.provenance import digest
from lepton_compress.recipe import Source
from lepton_compress.report import folder
from lepton_compress.report.folder import check_writable, plain, read_result, restore, write
from tests.measured import parity, profile, recipe, score
from tests.report.results import result

NAN, INF = math.nan, math.inf


def rich() -> RunResult:
    """A result with everything in it that JSON finds hard."""
    return result(
        parities=(parity("baseline", NAN), parity("int8", INF)),
        scores=(
            score("baseline", 0.5, 0.0, outcomes=(1.0, 0.0), drop_interval=None),
            score("int8", NAN, NAN, interval=(NAN, NAN), drop_interval=(-INF, INF)),
        ),
        profiles=(
            profile("baseline", None, status="failed", reason="it crashed"),
            profile("int8"),
        ),
    )


def same(one: Any, other: Any) -> bool:
    """Equal in type and value, NaN and all."""
    return type(one) is type(other) and repr(one) == repr(other)


@pytest.fixture
def written(tmp_path: Path) -> Path:
    """A run folder."""
    out = tmp_path / "runs" / "one"
    write(rich(), {}, out, Source(recipe(), tmp_path))
    return out


class TestRoundTrip:
    def test_a_result_is_read_as_it_was(self, written: Path) -> None:
        for path in (written, written / "result.json"):
            read = read_result(path)
            assert read.folder == written
            assert same(replace(read, folder=None), rich())

    def test_its_text_is_json_that_any_reader_takes(self) -> None:
        def refuse(name: str) -> None:
            raise AssertionError(f"{name} is no JSON")

        body = json.loads(folder.to_json(rich()), parse_constant=refuse)
        assert body["schema"] == SCHEMA_VERSION
        assert [each["value"] for each in body["parities"]] == ["NaN", "Infinity"]
        assert "folder" not in body

    @given(
        st.floats(),
        st.tuples(st.floats(), st.floats()),
        st.none() | st.floats(),
        st.none() | st.lists(st.floats(), max_size=3).map(tuple),
    )
    def test_every_number_survives(
        self,
        value: float,
        interval: tuple[float, float],
        drop: float | None,
        outcomes: tuple[float, ...] | None,
    ) -> None:
        made = Score("a", "onnx", "m", True, value, interval, 3, outcomes, drop)
        through = json.loads(json.dumps(plain(made), allow_nan=False))
        assert same(restore(Score, through), made)

    def test_a_broken_parity_stays_broken(self) -> None:
        for value in (NAN, INF):
            read = restore(Parity, plain(parity("a", value)))
            assert not read.holds


class TestRefused:
    @staticmethod
    def edit(path: Path, change: Callable[[dict[str, Any]], None], *, sign: bool = False) -> None:
        file = path / "result.json"
        body = json.loads(file.read_text())
        change(body)
        if sign:
            held = {key: body[key] for key in body if key not in ("schema", "digest")}
            body["digest"] = digest(held)
        file.write_text(json.dumps(body))

    def test_an_edited_one(self, written: Path) -> None:
        self.edit(written, lambda body: body.update(passed=False))
        with pytest.raises(InputError, match="was edited or damaged: its digest does not"):
            read_result(written)

    @pytest.mark.parametrize("version", [0, SCHEMA_VERSION + 1, -1, "1", None, True, 1.5, [1]])
    def test_one_of_another_schema(self, written: Path, version: Any) -> None:
        self.edit(written, lambda body: body.update(schema=version))
        with pytest.raises(InputError, match=r"has schema version .*, this tool reads 1 to 2; run"):
            read_result(written)

    @pytest.mark.parametrize(
        "change",
        [
            lambda body: body.pop("scores"),
            lambda body: body.update(more=1),
            lambda body: body["scores"][0].pop("value"),
            lambda body: body.update(scores=[1]),
            lambda body: body["verdicts"][0].update(status="FINE"),
            lambda body: body["scores"][0].update(interval=[1.0]),
            lambda body: body["scores"][0].update(value=None),
        ],
    )
    def test_one_that_does_not_fit(
        self, written: Path, change: Callable[[dict[str, Any]], None]
    ) -> None:
        self.edit(written, change, sign=True)
        with pytest.raises(InputError, match="does not fit its schema"):
            read_result(written)

    @pytest.mark.parametrize(
        "content",
        [b"", b"[]", b"null", b"{}", b'{"schema": 1}', b"\xff\xfe", b"[" * 100_000, b"plain text"],
        ids=["empty", "list", "null", "object", "no digest", "bytes", "deep", "text"],
    )
    def test_something_else(self, tmp_path: Path, content: bytes) -> None:
        file = tmp_path / "result.json"
        file.write_bytes(content)
        with pytest.raises(InputError, match="is not a result, or is truncated") as caught:
            read_result(tmp_path)
        assert str(file) in str(caught.value)

    @pytest.mark.parametrize("share", [0.1, 0.5, 0.99])
    def test_half_of_one(self, written: Path, share: float) -> None:
        file = written / "result.json"
        text = file.read_text()
        file.write_text(text[: int(len(text) * share)])
        with pytest.raises(InputError, match="is not a result, or is truncated"):
            read_result(written)

    def test_a_number_that_json_lacks(self, written: Path) -> None:
        file = written / "result.json"
        file.write_text(file.read_text().replace('"seconds": 12.5', '"seconds": NaN'))
        with pytest.raises(InputError, match="is not a result, or is truncated"):
            read_result(written)

    def test_a_missing_one(self, tmp_path: Path) -> None:
        with pytest.raises(InputError, match=r"result\.json: no such file; run the recipe first"):
            read_result(tmp_path)
        with pytest.raises(InputError, match="no such file"):
            read_result(tmp_path / "nowhere")


class TestWrite:
    def source(self, tmp_path: Path) -> Source:
        return Source(recipe(), tmp_path)

    def test_artifacts_lie_where_the_result_says(self, tmp_path: Path) -> None:
        file = tmp_path / "kept.onnx"
        file.write_bytes(b"a model")
        out = tmp_path / "deep" / "runs" / "one"
        made = write(rich(), {"artifacts/x/a.onnx": file}, out, self.source(tmp_path))
        assert made.folder == out
        assert (out / "artifacts/x/a.onnx").read_bytes() == b"a model"
        assert (out / "report.md").read_text().startswith("# tiny: ")
        assert sorted(each.name for each in out.iterdir()) == [
            "artifacts",
            "manifest.json",
            "report.html",
            "report.md",
            "result.json",
        ]
        assert [each.name for each in out.parent.iterdir()] == ["one"]

    def test_others_may_read_it(self, written: Path) -> None:
        assert written.stat().st_mode & 0o777 == 0o755

    def test_an_earlier_one_is_replaced_whole(self, written: Path, tmp_path: Path) -> None:
        (written / "left-over").touch()
        write(replace(rich(), seed=7), {}, written, self.source(tmp_path))
        assert read_result(written).seed == 7
        assert not (written / "left-over").exists()
        assert [each.name for each in written.parent.iterdir()] == ["one"]

    def test_an_earlier_one_stays_if_writing_fails(self, written: Path, tmp_path: Path) -> None:
        before = (written / "result.json").read_bytes()
        with pytest.raises(FileNotFoundError):
            write(rich(), {"a.onnx": tmp_path / "gone"}, written, self.source(tmp_path))
        assert (written / "result.json").read_bytes() == before
        assert [each.name for each in written.parent.iterdir()] == ["one"]

    def test_several_at_once_leave_one_of_them(self, tmp_path: Path) -> None:
        out = tmp_path / "runs" / "one"
        files = {}
        for seed in range(8):
            files[seed] = tmp_path / f"{seed}.onnx"
            files[seed].write_text(str(seed))

        def one(seed: int) -> None:
            made = replace(rich(), seed=seed)
            write(made, {"a.onnx": files[seed]}, out, self.source(tmp_path))

        with ThreadPoolExecutor(8) as pool:
            list(pool.map(one, range(8)))
        assert (out / "a.onnx").read_text() == str(read_result(out).seed)
        assert [each.name for each in out.parent.iterdir()] == ["one"]


class TestCheckWritable:
    def test_a_new_place_is_fine_and_is_not_made(self, tmp_path: Path) -> None:
        check_writable(tmp_path / "a" / "b", tmp_path / ".lepton")
        assert list(tmp_path.iterdir()) == []

    def test_an_earlier_run_is_fine(self, written: Path, tmp_path: Path) -> None:
        check_writable(written, tmp_path / ".lepton")

    def test_an_empty_folder_is_fine(self, tmp_path: Path) -> None:
        (tmp_path / "empty").mkdir()
        check_writable(tmp_path / "empty", tmp_path / ".lepton")

    def test_a_folder_of_other_things_is_kept(self, tmp_path: Path) -> None:
        (tmp_path / "thesis.tex").touch()
        with pytest.raises(OutputError, match=r"is not empty and holds no result\.json; name"):
            check_writable(tmp_path, tmp_path.parent / ".lepton")

    @pytest.mark.parametrize("below", [".", "runs/one"])
    def test_a_file_is_no_folder(self, tmp_path: Path, below: str) -> None:
        (tmp_path / "file").touch()
        with pytest.raises(OutputError, match="is a file, not a folder"):
            check_writable(tmp_path / "file" / below, tmp_path / ".lepton")

    @pytest.mark.parametrize("workspace", [".lepton", "."])
    def test_the_workspace_must_not_lie_in_it(self, tmp_path: Path, workspace: str) -> None:
        with pytest.raises(OutputError, match="would replace the workspace, which lies in it"):
            check_writable(tmp_path, tmp_path / workspace)

    @pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
    def test_a_place_that_cannot_be_written(self, tmp_path: Path) -> None:
        (tmp_path / "locked").mkdir(mode=0o555)
        with pytest.raises(OutputError, match="cannot be written"):
            check_writable(tmp_path / "locked" / "runs", tmp_path / ".lepton")
