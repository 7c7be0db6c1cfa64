"""Folders that cannot be written, or must not be: refused before anything is lost."""

from __future__ import annotations

import errno
import os
import resource

import pytest

from tests.bench import Bench, refused


class TestFolders:
    def test_a_file_in_the_way_of_the_run_folder(self, bench: Bench) -> None:
        (bench.folder / "taken").write_text("mine")
        before = bench.tree()
        done = bench.lepton("run", "graph.yaml", "--out", "taken/below")
        refused(done, (r"taken: is a file, not a folder; name another",))
        assert bench.tree() == before

    def test_a_folder_of_something_else(self, bench: Bench) -> None:
        (bench.folder / "mine").mkdir()
        (bench.folder / "mine" / "thesis.tex").write_text("years of work")
        before = bench.tree()
        done = bench.lepton("run", "graph.yaml", "--out", "mine")
        refused(done, (r"mine: is not empty and holds no result\.json; name another",))
        assert bench.tree() == before

    def test_a_file_in_the_way_of_the_workspace(self, bench: Bench) -> None:
        (bench.folder / "taken").write_text("mine")
        before = bench.tree()
        done = bench.lepton("run", "graph.yaml", "--workspace", "taken/below")
        refused(done, (r"taken/below.*: cannot be written .*; name a folder",))
        assert bench.tree() == before

    def test_a_run_folder_around_the_workspace(self, bench: Bench) -> None:
        done = bench.lepton("run", "graph.yaml", "--out", "all", "--workspace", "all/kept")
        refused(done, (r"all: .*workspace.*; name another",))

    @pytest.mark.parametrize("limit", [200, 9_000])
    def test_a_full_disk(self, bench: Bench, limit: int) -> None:
        def fill() -> None:
            # A file that may not grow stands for a disk that has no room.
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

        before = bench.tree()
        done = bench.lepton("run", "graph.yaml", preexec_fn=fill)
        said = os.strerror(errno.EFBIG)
        refused(done, (rf"\.lepton/store: no space is left \({said}\); free some",))
        # Whole entries of earlier stages may stay; no part of one, and no run folder.
        kept = bench.tree().keys() - before.keys()
        assert all(path.startswith(".lepton") for path in kept)
        assert not list(bench.folder.glob(".lepton/store/tmp/*"))
