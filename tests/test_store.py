"""The store: results are made once, whole or not at all, and never used when damaged."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lepton_compress import store
from lepton_compress.store import Entry, Store

KEY = store.key("test", of=1)
DEADLINE = 30.0
"""Seconds that a test waits for another process before it fails."""

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)
determinants = st.dictionaries(st.text(), json_values, min_size=1, max_size=5)


def build(folder: Path) -> dict[str, Any]:
    (folder / "deep").mkdir()
    (folder / "deep" / "weights.bin").write_bytes(bytes(1000))
    (folder / "graph.txt").write_text("graph")
    return {"value": 1.5, "shape": (1, 2), "by number": {10: "a", 9: "b"}}


def never(folder: Path) -> dict[str, Any]:
    raise AssertionError("built again")


def made(workspace: Path) -> Entry:
    return Store(workspace).make(KEY, "a label", build)


def left_in_tmp(workspace: Path) -> list[str]:
    return sorted(each.name for each in (workspace / "store" / "tmp").iterdir())


def wait_for(condition: Callable[[], bool], process: subprocess.Popen[bytes]) -> None:
    end = time.monotonic() + DEADLINE
    while not condition():
        assert time.monotonic() < end, "the other process did not get there in time"
        assert process.poll() is None, "the other process ended early"
        time.sleep(0.005)


class TestKey:
    @given(determinants)
    def test_the_order_of_determinants_does_not_matter(self, given: dict[str, Any]) -> None:
        assert store.key("s", of=dict(reversed(given.items()))) == store.key("s", of=given)

    @given(determinants, st.data())
    def test_every_determinant_matters(self, given: dict[str, Any], data: st.DataObject) -> None:
        name = data.draw(st.sampled_from(sorted(given)))
        other = data.draw(json_values.filter(lambda each: repr(each) != repr(given[name])))
        assert store.key("s", of=given | {name: other}) != store.key("s", of=given)
        less = {each: given[each] for each in given if each != name}
        assert store.key("s", of=less) != store.key("s", of=given)

    def test_stage_names_and_determinants_are_told_apart(self) -> None:
        keys = {
            store.key("a", b=1),
            store.key("b", a=1),
            store.key("a", c=1),
            store.key("a", b="1"),
        }
        assert len(keys) == 4

    def test_the_libraries_matter(self, monkeypatch: pytest.MonkeyPatch) -> None:
        before = store.key("s")
        monkeypatch.setattr(store, "library_versions", lambda: {"torch": "0"})
        assert store.key("s") != before

    def test_what_json_cannot_hold_is_refused(self) -> None:
        with pytest.raises(ValueError, match="JSON"):
            store.key("s", of=float("nan"))


class TestMake:
    def test_a_result_is_made_once_and_found_again(self, tmp_path: Path) -> None:
        first = made(tmp_path)
        assert first.fresh
        assert first.label == "a label"
        again = Store(tmp_path).make(KEY, "a label", never)
        assert not again.fresh
        assert again.details == first.details
        assert (again.folder / "deep" / "weights.bin").read_bytes() == bytes(1000)
        assert Store(tmp_path).get(KEY) is not None
        assert left_in_tmp(tmp_path) == []

    def test_details_are_what_json_makes_of_them(self, tmp_path: Path) -> None:
        expected = {"value": 1.5, "shape": [1, 2], "by number": {"10": "a", "9": "b"}}
        assert made(tmp_path).details == expected

    def test_its_size_counts_every_file(self, tmp_path: Path) -> None:
        entry = made(tmp_path)
        files = [each for each in entry.folder.rglob("*") if each.is_file()]
        assert len(files) == 3
        assert entry.bytes == sum(each.stat().st_size for each in files) > 1005

    def test_what_was_never_made_is_not_there(self, tmp_path: Path) -> None:
        found = Store(tmp_path)
        assert found.get(KEY) is None
        assert list(found.entries()) == []
        assert found.notes == []
        assert list(tmp_path.iterdir()) == []

    @pytest.mark.parametrize("error", [RuntimeError("no"), KeyboardInterrupt()])
    def test_a_failed_build_leaves_nothing(self, tmp_path: Path, error: BaseException) -> None:
        def fail(folder: Path) -> dict[str, Any]:
            build(folder)
            raise error

        with pytest.raises(type(error)):
            Store(tmp_path).make(KEY, "", fail)
        assert Store(tmp_path).get(KEY) is None
        assert left_in_tmp(tmp_path) == []
        assert made(tmp_path).fresh

    def test_details_that_are_no_json_leave_nothing(self, tmp_path: Path) -> None:
        with pytest.raises(ValueError, match="JSON"):
            Store(tmp_path).make(KEY, "", lambda folder: {"value": float("nan")})
        assert Store(tmp_path).get(KEY) is None

    def test_asking_renews_when_it_was_used(self, tmp_path: Path) -> None:
        entry = made(tmp_path)
        os.utime(entry.folder / "entry.json", (1, 1))
        assert next(Store(tmp_path).entries()).used == 1
        Store(tmp_path).get(KEY)
        assert next(Store(tmp_path).entries()).used > 1

    def test_removing_takes_one_entry_away(self, tmp_path: Path) -> None:
        other = store.key("test", of=2)
        made(tmp_path)
        Store(tmp_path).make(other, "", build)
        Store(tmp_path).remove(KEY)
        Store(tmp_path).remove(KEY)
        assert [each.key for each in Store(tmp_path).entries()] == [other]
        assert left_in_tmp(tmp_path) == []


def edit(change: Callable[[dict[str, Any]], Any]) -> Callable[[Path], None]:
    """A damage: entry.json with one thing changed, still valid JSON."""

    def damage(folder: Path) -> None:
        path = folder / "entry.json"
        about = json.loads(path.read_text())
        change(about)
        path.write_text(json.dumps(about))

    return damage


def flip_a_byte(folder: Path) -> None:
    path = folder / "deep" / "weights.bin"
    data = bytearray(path.read_bytes())
    data[500] ^= 1
    path.write_bytes(data)


def replace_by_a_file(folder: Path) -> None:
    folder.rename(folder.with_name("away"))
    folder.write_text("not a folder")


DAMAGES: dict[str, Callable[[Path], Any]] = {
    "a flipped byte": flip_a_byte,
    "a shorter file": lambda folder: os.truncate(folder / "deep" / "weights.bin", 999),
    "a missing file": lambda folder: (folder / "graph.txt").unlink(),
    "other details": edit(lambda about: about["details"].update(value=2)),
    "another label": edit(lambda about: about.update(label="other")),
    "another key": edit(lambda about: about.update(key="0" * 64)),
    "another format": edit(lambda about: about.update(format=0)),
    "a file less": edit(lambda about: about["files"].pop("graph.txt")),
    "another digest": edit(lambda about: about.update(digest="0" * 64)),
    "no digest": edit(lambda about: about.pop("digest")),
    "no entry.json": lambda folder: (folder / "entry.json").unlink(),
    "an empty entry.json": lambda folder: (folder / "entry.json").write_text(""),
    "a list": lambda folder: (folder / "entry.json").write_text("[]"),
    "deep nesting": lambda folder: (folder / "entry.json").write_text("[" * 100_000),
    "not UTF-8": lambda folder: (folder / "entry.json").write_bytes(b"\xff"),
    "a file instead": replace_by_a_file,
}


class TestDamage:
    @pytest.mark.parametrize("damage", DAMAGES)
    def test_it_is_found_noted_and_mended(self, tmp_path: Path, damage: str) -> None:
        entry = made(tmp_path)
        DAMAGES[damage](entry.folder)

        reader = Store(tmp_path)
        assert reader.get(KEY) is None
        assert [KEY[:12] in note and "is damaged" in note for note in reader.notes] == [True]

        maker = Store(tmp_path)
        mended = maker.make(KEY, "a label", build)
        assert mended.fresh
        assert [KEY[:12] in note and "made again" in note for note in maker.notes] == [True]
        assert (mended.folder / "deep" / "weights.bin").read_bytes() == bytes(1000)
        assert Store(tmp_path).make(KEY, "a label", never).details == entry.details
        assert left_in_tmp(tmp_path) == []

    def test_a_reader_leaves_a_damaged_entry_to_its_maker(self, tmp_path: Path) -> None:
        # Taken away without the lock, it could be the entry that another process just mended.
        entry = made(tmp_path)
        flip_a_byte(entry.folder)
        Store(tmp_path).get(KEY)
        assert entry.folder.is_dir()

    def test_the_note_says_what_is_wrong(self, tmp_path: Path) -> None:
        entry = made(tmp_path)
        flip_a_byte(entry.folder)
        reader = Store(tmp_path)
        reader.get(KEY)
        assert "(deep/weights.bin has other bytes than were written)" in reader.notes[0]

    def test_other_entries_stay_listed(self, tmp_path: Path) -> None:
        entry = made(tmp_path)
        other = Store(tmp_path).make(store.key("test", of=2), "", build)
        (entry.folder / "entry.json").write_text("")
        assert [each.key for each in Store(tmp_path).entries()] == [other.key]


# A builder in a process of its own: it says when it builds, and goes on when it is told to.
BUILDER = """
import sys
from pathlib import Path
from lepton_compress.store import Store

workspace, key, signs = Path(sys.argv[1]), sys.argv[2], Path(sys.argv[3])

def build(folder):
    (folder / "part.bin").write_bytes(b"part")
    (signs / f"building-{len(list(signs.iterdir()))}").touch()
    if sys.argv[4] == "wait":
        sys.stdin.read()
    return {"by": "a process"}

(signs.parent / f"started-{sys.argv[5]}").touch()
print(Store(workspace).make(key, "", build).fresh)
"""


class TestProcesses:
    @pytest.fixture
    def signs(self, tmp_path: Path) -> Path:
        folder = tmp_path / "signs"
        folder.mkdir()
        return folder

    def start(self, tmp_path: Path, mode: str, name: str) -> subprocess.Popen[bytes]:
        arguments = [str(tmp_path), KEY, str(tmp_path / "signs"), mode, name]
        return subprocess.Popen(
            [sys.executable, "-c", BUILDER, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )

    def test_two_that_want_the_same_build_it_once(self, tmp_path: Path, signs: Path) -> None:
        first = self.start(tmp_path, "wait", "first")
        wait_for(lambda: any(signs.iterdir()), first)
        second = self.start(tmp_path, "go", "second")
        wait_for((tmp_path / "started-second").exists, second)
        assert Store(tmp_path).get(KEY) is None, "half an entry was seen"
        said = [first.communicate(timeout=DEADLINE)[0], second.communicate(timeout=DEADLINE)[0]]
        assert [each.decode().strip() for each in said] == ["True", "False"]
        assert len(list(signs.iterdir())) == 1

    def test_one_killed_while_it_builds_leaves_no_entry(self, tmp_path: Path, signs: Path) -> None:
        process = self.start(tmp_path, "wait", "killed")
        wait_for(lambda: any(signs.iterdir()), process)
        process.send_signal(signal.SIGKILL)
        process.communicate(timeout=DEADLINE)

        after = Store(tmp_path)
        assert after.get(KEY) is None
        assert list(after.entries()) == []
        assert len(left_in_tmp(tmp_path)) == 1
        assert after.make(KEY, "a label", build).fresh
        assert after.notes == []
        assert after.sweep(older_than=-1) == 1
        assert left_in_tmp(tmp_path) == []
        assert Store(tmp_path).make(KEY, "a label", never).label == "a label"

    def test_an_entry_in_the_making_is_neither_swept_nor_removed(
        self, tmp_path: Path, signs: Path
    ) -> None:
        process = self.start(tmp_path, "wait", "slow")
        wait_for(lambda: any(signs.iterdir()), process)
        Store(tmp_path).remove(KEY)
        assert Store(tmp_path).sweep(older_than=-1) == 0
        assert len(left_in_tmp(tmp_path)) == 1
        assert process.communicate(timeout=DEADLINE)[0].decode().strip() == "True"
        found = Store(tmp_path).get(KEY)
        assert found is not None
        assert found.details == {"by": "a process"}


class TestSweep:
    def test_it_removes_what_is_stale_alone(self, tmp_path: Path) -> None:
        entry = made(tmp_path)
        tmp = tmp_path / "store" / "tmp"
        for name in (f"{KEY}-stale", f"{KEY}-recent", "discard-stale", "discard-recent"):
            (tmp / name).mkdir()
            (tmp / name / "part.bin").write_bytes(b"part")
        hour_ago = time.time() - 3700
        for name in (f"{KEY}-stale", "discard-stale"):
            os.utime(tmp / name, (hour_ago, hour_ago))
        os.utime(entry.folder, (hour_ago, hour_ago))
        assert Store(tmp_path).sweep() == 2
        assert left_in_tmp(tmp_path) == [f"{KEY}-recent", "discard-recent"]
        assert Store(tmp_path).get(KEY) is not None

    def test_an_empty_workspace_has_nothing_to_sweep(self, tmp_path: Path) -> None:
        assert Store(tmp_path).sweep() == 0
