"""The store on disks that are full, not folders, or not ours to write to."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from lepton_compress import store
from lepton_compress.errors import OutputError
from lepton_compress.store import Store, write_atomically

KEY = store.key("test", of=1)
DEADLINE = 30.0


def never(folder: Path) -> dict[str, Any]:
    raise AssertionError("built without a place to build in")


FILLER = """
import resource, sys
from pathlib import Path
from lepton_compress.errors import OutputError
from lepton_compress.store import Store, write_atomically

resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
folder = Path(sys.argv[1])

def build(made):
    (made / "weights.bin").write_bytes(bytes(5000))
    return {}

for write in (
    lambda: Store(folder).make("0" * 64, "", build),
    lambda: Store(folder).make("1" * 64, "", lambda made: {"long": "x" * 5000}),
    lambda: write_atomically(folder / "report.txt", "x" * 5000),
):
    try:
        write()
    except OutputError as error:
        print(error)
"""


class TestDisk:
    def test_a_full_one_is_told_in_one_line_and_leaves_nothing(self, tmp_path: Path) -> None:
        (tmp_path / "report.txt").write_text("old")
        command = [sys.executable, "-c", FILLER, str(tmp_path)]
        done = subprocess.run(command, capture_output=True, check=True, timeout=DEADLINE)
        lines = done.stdout.decode().splitlines()
        places = [str(tmp_path / name) for name in ("store", "store", "report.txt")]
        assert [line.partition(": ")[0] for line in lines] == places
        assert all("no space is left" in line and "free some" in line for line in lines)
        assert (tmp_path / "report.txt").read_text() == "old"
        assert sorted(each.name for each in tmp_path.iterdir()) == ["report.txt", "store"]
        assert list((tmp_path / "store" / "tmp").iterdir()) == []
        assert list(Store(tmp_path).entries()) == []

    def test_a_workspace_that_is_a_file_is_refused(self, tmp_path: Path) -> None:
        path = tmp_path / "workspace"
        path.write_text("")
        assert Store(path).get(KEY) is None
        with pytest.raises(OutputError, match=r"cannot be written .*name a folder") as caught:
            Store(path).make(KEY, "", never)
        assert str(caught.value).startswith(str(path))
        assert path.read_text() == ""

    def test_a_workspace_below_a_file_is_refused(self, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("")
        with pytest.raises(OutputError, match="cannot be written"):
            Store(tmp_path / "file" / "deep" / "workspace").make(KEY, "", never)

    def test_a_name_that_is_too_long_is_refused(self, tmp_path: Path) -> None:
        with pytest.raises(OutputError, match="cannot be written"):
            write_atomically(tmp_path / ("x" * 300) / "report.txt", "text")

    @pytest.mark.parametrize("kind", [PermissionError, FileExistsError, NotADirectoryError])
    def test_an_error_about_another_file_is_not_blamed_on_it(
        self, tmp_path: Path, kind: type[OSError]
    ) -> None:
        def fail(folder: Path) -> dict[str, Any]:
            number = {PermissionError: 13, FileExistsError: 17, NotADirectoryError: 20}[kind]
            raise OSError(number, "about the data", "/elsewhere/data.npz")

        with pytest.raises(kind, match=r"/elsewhere/data\.npz"):
            Store(tmp_path / "workspace").make(KEY, "", fail)


class TestWriteAtomically:
    def test_it_makes_folders_and_replaces(self, tmp_path: Path) -> None:
        path = tmp_path / "deep" / "er" / "result.json"
        write_atomically(path, "ü")
        write_atomically(path, "new")
        assert path.read_text(encoding="utf-8") == "new"
        assert list(path.parent.iterdir()) == [path]

    def test_others_may_read_it_as_the_umask_says(self, tmp_path: Path) -> None:
        (tmp_path / "plain").write_text("")
        write_atomically(tmp_path / "atomic", "")
        modes = {(tmp_path / name).stat().st_mode for name in ("plain", "atomic")}
        assert len(modes) == 1

    def test_a_folder_in_the_way_is_told_and_left(self, tmp_path: Path) -> None:
        (tmp_path / "report").mkdir()
        with pytest.raises(OutputError, match="report: cannot be written"):
            write_atomically(tmp_path / "report", "text")
        assert [each.name for each in tmp_path.iterdir()] == ["report"]

    def test_text_that_cannot_be_encoded_leaves_the_old_file(self, tmp_path: Path) -> None:
        path = tmp_path / "result.json"
        write_atomically(path, "old")
        with pytest.raises(UnicodeEncodeError):
            write_atomically(path, "\ud800")
        assert path.read_text() == "old"
        assert list(tmp_path.iterdir()) == [path]
