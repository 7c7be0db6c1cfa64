"""Content-addressed results: a stage's files under a key of everything that determines them.

    <workspace>/store/<key[:2]>/<key>/entry.json     what it is, its files' digests, its details
                                      <files>
    <workspace>/store/tmp/                           entries being made
    <workspace>/store/locks/                         one lock a key, held while it is being made
    <workspace>/store/unfinished/<key>/              what a maker that is killed wants to find again

An entry appears whole or not at all: it is made in `tmp` and renamed. Reading checks every file
against its digest; a damaged entry is taken away and made again.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import shutil
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from lepton_compress.errors import OutputError
from lepton_compress.provenance import digest, file_digest, library_versions

FORMAT = 1
_KEY_LENGTH = 64
_FORGOTTEN = 30 * 86400.0
"""Seconds after which nobody goes on with a training."""
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_UNWRITABLE = {errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST, errno.EISDIR}
_UNWRITABLE |= {errno.ENAMETOOLONG, errno.ELOOP}


@dataclass(frozen=True)
class Entry:
    """A finished result: its folder, the files in it, and details that fit in JSON."""

    key: str
    label: str
    folder: Path
    details: dict[str, Any]
    bytes: int
    used: float
    """When it was last asked for, in seconds since the epoch."""
    fresh: bool = False
    """Whether it was made just now rather than found."""


def key(stage: str, **determinants: Any) -> str:
    """The key of a stage's result, from everything that determines it (JSON values)."""
    return digest(
        {
            "format": FORMAT,
            "stage": stage,
            "libraries": library_versions(),
            "determinants": determinants,
        }
    )


@contextlib.contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn a full or unwritable disk below `path` into one clear line."""
    try:
        yield
    except OSError as error:
        if error.errno in _FULL:
            raise OutputError(
                f"no space is left ({error.strerror})",
                where=str(path),
                mend="free some, or name another folder",
            ) from error
        if error.errno in _UNWRITABLE and _concerns(error, path):
            raise OutputError(
                f"cannot be written ({error.strerror})",
                where=str(path),
                mend="name a folder that you may write to",
            ) from error
        raise


def _concerns(error: OSError, path: Path) -> bool:
    """Whether an error is about `path`, what is beside or below it, or a folder above it."""
    if not isinstance(error.filename, str):
        return True
    about = Path(error.filename)
    return about.is_relative_to(path.parent) or path.is_relative_to(about)


def write_atomically(path: Path, text: str) -> None:
    """Write a text file so that a reader sees the old one or the new one, never a part."""
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        # Not `mkstemp`, whose files only their owner may read.
        new = path.with_name(f".{path.name[:200]}.{uuid.uuid4().hex}")
        try:
            with new.open("x", encoding="utf-8") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            new.replace(path)
        except BaseException:
            new.unlink(missing_ok=True)
            raise


def _last_change(folder: Path) -> float:
    return max(each.stat().st_mtime for each in (folder, *folder.rglob("*")))


class Store:
    """The results of one workspace. Several processes may use it at once."""

    def __init__(self, workspace: Path) -> None:
        self.root = workspace / "store"
        self.notes: list[str] = []
        """What went wrong and was mended, for the result."""

    def get(self, key: str) -> Entry | None:
        """The entry of a key, checked; None if there is none or it is damaged (then a note)."""
        entry, damage = self._look(key)
        if damage:
            self.notes.append(f"store entry {key[:12]} is damaged ({damage}); it is not used")
        return entry

    def make(self, key: str, label: str, build: Callable[[Path], dict[str, Any]]) -> Entry:
        """The entry of a key, made by `build` if need be.

        `build` gets an empty folder for its files and returns details (JSON values). While one
        process builds, others that want the same key wait for it.

        Raises:
            OutputError: the workspace is full or cannot be written.
        """
        found, _ = self._look(key)
        if found is not None:
            return found
        with self._lock(key):
            found, damage = self._look(key)  # another process may have made it meanwhile
            if found is not None:
                return found
            if damage:
                self.notes.append(f"store entry {key[:12]} is damaged ({damage}); it is made again")
                with writing(self.root):
                    self._discard(self._folder(key))
            return self._build(key, label, build)

    def unfinished(self, key: str) -> Path:
        """Where the maker of an entry may leave what it wants to find again if it is killed. The
        folder need not exist; it is removed when the entry is made, and when it grows old."""
        return self.root / "unfinished" / key

    def entries(self) -> Iterator[Entry]:
        """Every readable entry, unchecked, in no order."""
        for folder in sorted(self.root.glob("??/" + "?" * _KEY_LENGTH)):
            with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
                yield self._read(folder, check=False)

    def remove(self, key: str) -> None:
        """Take an entry away, unless a process is making it just now."""
        with contextlib.suppress(Timeout), self._lock(key, timeout=0), writing(self.root):
            self._discard(self._folder(key))
            self._discard(self.unfinished(key))

    def forget(self, older_than: float = 0.0) -> int:
        """Remove what is unfinished and has not changed for so many seconds, unless a process is
        at it just now; their count."""
        removed = 0
        for each in (self.root / "unfinished").glob("*"):
            with contextlib.suppress(Timeout, FileNotFoundError), self._lock(each.name, timeout=0):
                if time.time() - _last_change(each) >= older_than:
                    shutil.rmtree(each, ignore_errors=True)
                    removed += 1
        return removed

    def sweep(self, older_than: float = 3600) -> int:
        """Remove what killed processes left in `tmp`, if `older_than` seconds old, and what is
        unfinished for `_FORGOTTEN` seconds; their count."""
        removed = self.forget(_FORGOTTEN)
        for each in (self.root / "tmp").glob("*"):
            # Its maker holds the lock of its key, however long it takes.
            key = each.name.rpartition("-")[0]
            lock = (
                self._lock(key, timeout=0) if len(key) == _KEY_LENGTH else contextlib.nullcontext()
            )
            with contextlib.suppress(Timeout, FileNotFoundError), lock:
                if time.time() - each.stat().st_mtime > older_than:
                    shutil.rmtree(each, ignore_errors=True)
                    removed += 1
        return removed

    def _look(self, key: str) -> tuple[Entry | None, str]:
        """The entry of a key, or what is wrong with it."""
        folder = self._folder(key)
        if not folder.exists():
            return None, ""
        try:
            entry = self._read(folder, check=True)
        except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
            return None, str(error) or type(error).__name__
        with contextlib.suppress(OSError):  # a read-only store still serves
            os.utime(folder / "entry.json")
        return entry, ""

    def _folder(self, key: str) -> Path:
        return self.root / key[:2] / key

    @contextlib.contextmanager
    def _lock(self, key: str, timeout: float = -1) -> Iterator[None]:
        locks = self.root / "locks"
        with writing(self.root):
            locks.mkdir(parents=True, exist_ok=True)
            lock = FileLock(locks / f"{key}.lock", timeout=timeout)
            lock.acquire()
        try:
            yield
        finally:
            lock.release()

    def _build(self, key: str, label: str, build: Callable[[Path], dict[str, Any]]) -> Entry:
        parent = self.root / "tmp"
        with writing(self.root):
            parent.mkdir(parents=True, exist_ok=True)
            folder = Path(tempfile.mkdtemp(dir=parent, prefix=f"{key}-"))
        try:
            with writing(self.root):
                details = json.loads(json.dumps(build(folder)))  # as it will be read
                files = {
                    file.relative_to(folder).as_posix(): file_digest(file)
                    for file in sorted(folder.rglob("*"))
                    if file.is_file()
                }
                about = {"format": FORMAT, "key": key, "label": label, "files": files}
                about |= {"details": details}
                text = json.dumps(about | {"digest": digest(about)}, indent=1)
                (folder / "entry.json").write_text(text, encoding="utf-8")
                final = self._folder(key)
                final.parent.mkdir(parents=True, exist_ok=True)
                folder.replace(final)
            shutil.rmtree(self.unfinished(key), ignore_errors=True)
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise
        made = self._read(final, check=False)
        return Entry(**{**vars(made), "fresh": True})

    def _read(self, folder: Path, *, check: bool) -> Entry:
        about = json.loads((folder / "entry.json").read_text(encoding="utf-8"))
        if about["format"] != FORMAT or about["key"] != folder.name:
            raise ValueError("entry.json is of another entry")
        if check:
            if about.pop("digest") != digest(about):
                raise ValueError("entry.json was changed")
            for name, expected in about["files"].items():
                if not (folder / name).is_file():
                    raise ValueError(f"{name} is missing")
                if file_digest(folder / name) != expected:
                    raise ValueError(f"{name} has other bytes than were written")
        return Entry(
            key=about["key"],
            label=about["label"],
            folder=folder,
            details=about["details"],
            bytes=sum(file.stat().st_size for file in folder.rglob("*") if file.is_file()),
            used=(folder / "entry.json").stat().st_mtime,
        )

    def _discard(self, folder: Path) -> None:
        # Renamed first: a reader finds the whole entry or none.
        if not folder.exists():
            return
        parent = self.root / "tmp"
        parent.mkdir(parents=True, exist_ok=True)
        away = Path(tempfile.mkdtemp(dir=parent, prefix="discard-"))
        with contextlib.suppress(FileNotFoundError):
            folder.replace(away / "entry")
        shutil.rmtree(away, ignore_errors=True)
