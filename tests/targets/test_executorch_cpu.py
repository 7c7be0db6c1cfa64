"""ExecuTorch as a runtime: its threads, batches of any size, and what it says of a file."""

from __future__ import annotations

import gc
import threading
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lepton_compress import registry
from lepton_compress.errors import InputError, MissingExtraError
from lepton_compress.export.executorch import Executorch, export_executorch
from lepton_compress.load.forms import call
from lepton_compress.profile.process import Job, Worker
from lepton_compress.targets import executorch_session
from tests.contract.needed import feeds, graph, several

pytest.importorskip("executorch", reason="the extra `executorch` is not installed")


def runner(path: Path, count: int = 1, **changes: Any) -> Any:
    return registry.get("runtime", "executorch-cpu").function(path, count, changes or None)


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """For four samples a call."""
    folder = tmp_path_factory.mktemp("image")
    return export_executorch(graph(), Executorch(batch=4), folder)


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export_executorch(several(), Executorch(), tmp_path_factory.mktemp("both"))


class TestBatches:
    def test_calls_are_filled_up(self, image: Path) -> None:
        made = runner(image)
        assert made.inputs[0].shape == ("batch", 1, 6, 6)
        given = feeds(graph(), 9)
        wanted = call(graph(), given)["scores"]
        for count in (1, 3, 4, 5, 8, 9):
            (found,) = made.run({"image": given["image"][:count]})
            np.testing.assert_allclose(found, wanted[:count], atol=1e-5)
        with pytest.raises(InputError, match="no samples"):
            made.run({"image": given["image"][:0]})

    def test_what_comes_out_is_the_callers(self, both: Path) -> None:
        made = runner(both)
        first = made.run(feeds(several(), 1))
        kept = [array.copy() for array in first]
        made.run(feeds(several(), 2))
        for array, copy in zip(first, kept, strict=True):
            np.testing.assert_array_equal(array, copy)

    def test_inputs_of_different_numbers_are_refused(self, both: Path) -> None:
        given = feeds(several(), 2)
        with pytest.raises(InputError, match="different numbers of samples"):
            runner(both).run(given | {"side": given["side"][:1]})


class TestThreads:
    def test_a_session_outlives_a_change_of_the_process_threads(self, image: Path) -> None:
        # The threads that a program was loaded with are freed when their number changes.
        given = feeds(graph(), 4)
        wanted = call(graph(), given)["scores"]
        one, two = runner(image, 1), runner(image, 2)
        for made in (one, two, one, two, runner(image, 2, threads=1), two):
            for _ in range(20):
                np.testing.assert_allclose(made.run(given)[0], wanted, atol=1e-5)
        del two
        gc.collect()
        np.testing.assert_allclose(one.run(given)[0], wanted, atol=1e-5)

    def test_it_computes_on_as_many_as_it_is_told(self, image: Path) -> None:
        from executorch.extension.pybindings import _C as bindings

        for threads in (2, 1):
            runner(image, threads).run(feeds(graph(), 4))
            assert bindings._threadpool_get_thread_count() == threads
        assert executorch_session.alternatives(4) == [{"threads": 1}, {"threads": 2}]

    def test_callers_at_the_same_time_get_their_own(self, both: Path) -> None:
        made, found = runner(both, 2), {}

        def ask(batch: int) -> None:
            given = feeds(several(), batch)
            found[batch] = [made.run(given)[0] for _ in range(20)]

        callers = [threading.Thread(target=ask, args=(batch,)) for batch in (1, 2, 3)]
        for each in callers:
            each.start()
        for each in callers:
            each.join()
        assert set(found) == {1, 2, 3}
        for batch, arrays in found.items():
            wanted = call(several(), feeds(several(), batch))["scores"]
            for array in arrays:
                np.testing.assert_allclose(array, wanted, rtol=1e-5)


class TestFiles:
    def test_a_file_of_another_maker_has_names_made_up(self, tmp_path: Path) -> None:
        import torch

        path = tmp_path / "theirs.pte"
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            from executorch.exir import to_edge_transform_and_lower

            program = torch.export.export(torch.nn.ReLU(), (torch.zeros(1, 3),))
            path.write_bytes(to_edge_transform_and_lower(program).to_executorch().buffer)
        made = runner(path)
        assert [(each.name, each.dtype, each.shape) for each in made.inputs] == [
            ("input_0", "float32", ("batch", 3))
        ]
        given = np.array([[-1, 0, 2], [1, -3, 0]], np.float32)
        np.testing.assert_array_equal(made.run({"input_0": given})[0], np.maximum(given, 0))

    def test_without_the_extra_it_is_named(
        self, image: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def absent(*_: Any) -> None:
            raise ImportError("No module named 'executorch'")

        monkeypatch.setattr(executorch_session, "opened", absent)
        with pytest.raises(MissingExtraError, match=r"lepton-compress\[executorch\]"):
            runner(image)

    def test_a_worker_needs_no_more_than_its_program(self, image: Path, tmp_path: Path) -> None:
        given = {"image": feeds(graph(), 4)["image"]}
        np.savez(tmp_path / "inputs.npz", given["image"])
        named = (str(tmp_path / "inputs.npz"), ("image",))
        program = executorch_session.__name__
        with Worker(Job("executorch-cpu", str(image), 1, (), *named, program=program)) as worker:
            assert worker.ready(120).first_call > 0
            assert min(worker.run(5, 60)) > 0
