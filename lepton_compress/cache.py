"""What a workspace keeps, and making room in it."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from pathlib import Path

from lepton_compress.errors import RecipeError
from lepton_compress.overviews import CacheListing, CacheRow, Pruned
from lepton_compress.store import Store

DAMAGED = "damaged"
"""Label of a kept result that cannot be read any more."""
_FOLDERS = "??/" + "?" * 64


def listing(workspace: Path) -> CacheListing:
    """What a workspace keeps, most recently used first. A workspace that is not there is empty."""
    store = Store(workspace)
    rows = sorted(_rows(store), key=lambda row: -row.used)
    unfinished = sum(1 for _ in (store.root / "tmp").glob("*"))
    return CacheListing(str(store.root), tuple(rows), sum(row.bytes for row in rows), unfinished)


def prune(
    workspace: Path,
    *,
    older_than: float | None = None,
    to_size: int | None = None,
    everything: bool = False,
    dry_run: bool = False,
) -> Pruned:
    """Remove kept results, the least recently used first. What is being made stays.

    Args:
        older_than: remove what was last used more than this many seconds ago.
        to_size: then remove until at most this many bytes are left.
        everything: remove all, damaged results included.
        dry_run: only say what would be removed.

    Raises:
        RecipeError: none of the three says what to remove.
        OutputError: the workspace cannot be written.
    """
    if older_than is None and to_size is None and not everything:
        raise RecipeError(
            "nothing says what to remove",
            where="cache prune",
            mend="give --older-than, --to-size or --all",
        )
    store = Store(workspace)
    rows = sorted(_rows(store), key=lambda row: row.used)
    chosen = rows if everything else list(_choose(rows, older_than, to_size))
    removed = chosen
    if not dry_run and store.root.is_dir():
        store.sweep()
        for row in chosen:
            store.remove(row.key)
        if everything:
            store.forget()
        removed = [row for row in chosen if not _folder(store, row.key).exists()]
    freed = sum(row.bytes for row in removed)
    return Pruned(
        store=str(store.root),
        removed=tuple(removed),
        freed=freed,
        kept=len(rows) - len(removed),
        kept_bytes=sum(row.bytes for row in rows) - freed,
        busy=len(chosen) - len(removed),
        dry_run=dry_run,
    )


def _choose(
    rows: list[CacheRow], older_than: float | None, to_size: int | None
) -> Iterator[CacheRow]:
    """Of rows in the order of their use, those to remove."""
    left = sum(row.bytes for row in rows)
    now = time.time()
    for row in rows:
        old = older_than is not None and now - row.used > older_than
        if old or (to_size is not None and left > to_size):
            left -= row.bytes
            yield row


def _rows(store: Store) -> Iterator[CacheRow]:
    readable = {entry.key: entry for entry in store.entries()}
    for folder in store.root.glob(_FOLDERS):
        entry = readable.get(folder.name)
        if entry is not None:
            yield CacheRow(entry.key, entry.label, entry.bytes, entry.used)
            continue
        with contextlib.suppress(OSError):  # removed by another process meanwhile
            size = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
            yield CacheRow(folder.name, DAMAGED, size, folder.stat().st_mtime)


def _folder(store: Store, key: str) -> Path:
    return store.root / key[:2] / key
