"""What a killed maker leaves to be found again: kept while it may be wanted, and no longer."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from lepton_compress.cache import prune
from lepton_compress.store import Store, key

KEY = key("test", number=1)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """With something unfinished."""
    made = Store(tmp_path)
    folder = made.unfinished(KEY) / "training"
    folder.mkdir(parents=True)
    (folder / "training.json").write_text("{}")
    return made


def test_it_stays_when_the_making_fails(store: Store) -> None:
    def build(folder: Path) -> dict[str, int]:
        raise ValueError

    with pytest.raises(ValueError):  # noqa: PT011 - the builder's own
        store.make(KEY, "test", build)
    assert store.unfinished(KEY).is_dir()
    assert store.sweep() == 0
    assert store.unfinished(KEY).is_dir()


def test_it_goes_when_the_entry_is_made(store: Store) -> None:
    store.make(KEY, "test", lambda _: {})
    assert not store.unfinished(KEY).exists()


def test_it_goes_when_it_is_old(store: Store) -> None:
    old = time.time() - 40 * 86400
    for each in (store.unfinished(KEY), *store.unfinished(KEY).rglob("*")):
        os.utime(each, (old, old))
    assert store.sweep() == 1
    assert not store.unfinished(KEY).exists()


def test_it_goes_with_everything_else(store: Store, tmp_path: Path) -> None:
    prune(tmp_path, older_than=1.0)
    assert store.unfinished(KEY).exists()
    prune(tmp_path, everything=True)
    assert not store.unfinished(KEY).exists()
