"""What runs on a device while it is measured on: it keeps files, starts workers, passes turns on.

A program of its own for Python 3.8 and its standard library, sent over the connection and kept in
no file. It reads from stdin, and answers each message by one line of JSON on stdout:

    {"do": "hello", ...}  -> what the device is; a private folder is made
    {"do": "put", ...} and the bytes -> {}; a file stands in the folder
    {"do": "start", ...}  -> the worker's first answer
    {"do": "run", ...}    -> the worker's answer to a turn
    {"do": "serve", ...}  -> its answer to requests at a rate
    {"do": "idle", ...}   -> its answer to calls after rests
    {"do": "call", ...}   -> its answer to callers at the same time
    {"do": "stop", ...}   -> {}

A worker that ends answers {"code", "said"}, one that is late {"late", "said"}; what the device
itself refuses is {"refused", "mend"}. While a worker computes, this process sleeps. When stdin
ends, or no word came for `SILENCE` seconds, it ends all workers, deletes the folder and ends.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import platform
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

GREETING = "lepton-compress agent 1"
PREFIX = "lepton-"
SILENCE = 3600.0
CHUNK = 1 << 16
PROBE_SECONDS = 120
PROBE = """
import importlib, json, sys
found = {}
for name in sys.argv[1:]:
    try:
        found[name] = str(getattr(importlib.import_module(name), "__version__", "unknown"))
    except Exception as error:
        found[name] = ["%s: %s" % (type(error).__name__, " ".join(str(error).split()))]
print(json.dumps(found))
"""


class GoneError(Exception):
    """Nobody is at the other end any more."""


class RefusedError(Exception):
    """The device cannot do what is asked. The second argument is the mend."""


class Agent:
    """One connection's files and workers."""

    def __init__(self) -> None:
        self.folder: Path | None = None
        self.workers: dict[str, subprocess.Popen[bytes]] = {}
        self.unread = b""

    def serve(self) -> None:
        """Answer messages until there are no more."""
        tell({"greeting": GREETING})
        while True:
            message = json.loads(self.line())
            try:
                answer = getattr(self, "do_" + message.pop("do"))(**message)
            except RefusedError as error:
                answer = {"refused": error.args[0], "mend": error.args[1]}
            tell(answer)

    def do_hello(self, directory: str, packages: list[str], leftovers: list[str]) -> dict[str, Any]:
        """Make the folder, delete those that a lost connection may have left, look around."""
        for each in leftovers:
            if Path(each).is_absolute() and Path(each).name.startswith(PREFIX):
                shutil.rmtree(each, ignore_errors=True)
        parent = directory or tempfile.gettempdir()
        try:
            parent = str(Path(parent).expanduser().resolve())
            self.folder = Path(tempfile.mkdtemp(prefix=PREFIX, dir=parent))
        except (OSError, RuntimeError) as error:  # the latter, where nobody has such a home
            said = getattr(error, "strerror", None) or str(error)
            raise RefusedError(
                f"no folder can be made in {parent} ({said})",
                "name another `directory` on the device",
            ) from error
        return {"folder": str(self.folder), **look(self.folder, packages)}

    def do_put(self, name: str, size: int, sha256: str) -> dict[str, Any]:
        """Take a file's bytes."""
        digest, failure = hashlib.sha256(), None
        path = self.place(name)
        with path.open("xb") as file:
            while size:
                data = self.take(min(size, CHUNK))
                size -= len(data)
                digest.update(data)
                try:  # all bytes are read, so that the next message is found behind them
                    if failure is None:
                        file.write(data)
                        file.flush()
                except OSError as error:
                    failure = error
        if failure is not None:
            path.unlink()
            said = failure.strerror or str(failure)
            raise RefusedError(f"cannot write into {self.folder} ({said})", "free some of its disk")
        if digest.hexdigest() != sha256:
            raise RefusedError(f"{name} did not arrive as it was sent", "check the connection")
        return {}

    def do_start(
        self, worker: str, script: str, job: dict[str, Any], timeout: float
    ) -> dict[str, Any]:
        """Start a worker and wait until it has its first result."""
        for key in ("path", "inputs"):
            job[key] = str(self.place(job[key]))
        started = time.monotonic()
        with self.place(worker + ".err").open("wb") as errors:
            process = subprocess.Popen(
                [sys.executable, str(self.place(script))],
                bufsize=0,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                cwd=str(self.folder),
                env=surroundings(self.place("")),
            )
        self.workers[worker] = process
        return self.ask(worker, json.dumps({**job, "started": started}), timeout)

    def do_run(self, worker: str, count: int, timeout: float) -> dict[str, Any]:
        """Give a worker its turn."""
        return self.ask(worker, f"run {count}", timeout)

    def do_serve(
        self, worker: str, rate: float, count: int, seed: int, timeout: float
    ) -> dict[str, Any]:
        """Let requests arrive at a worker."""
        return self.ask(worker, f"serve {rate!r} {count} {seed}", timeout)

    def do_idle(self, worker: str, gap: float, count: int, timeout: float) -> dict[str, Any]:
        """Let a worker rest before each call."""
        return self.ask(worker, f"idle {gap!r} {count}", timeout)

    def do_call(
        self, worker: str, callers: int, count: int, cpus: list[int], timeout: float
    ) -> dict[str, Any]:
        """Let callers share a worker."""
        given = ",".join(map(str, cpus))
        return self.ask(worker, f"callers {callers} {count} {given}".rstrip(), timeout)

    def do_stop(self, worker: str) -> dict[str, Any]:
        """End a worker."""
        process = self.workers.pop(worker, None)
        if process is not None:
            end(process)
        return {}

    def ask(self, worker: str, line: str, timeout: float) -> dict[str, Any]:
        """A worker's answer to a line, or how it failed to give one."""
        process = self.workers[worker]
        assert process.stdin is not None and process.stdout is not None  # noqa: S101, PT018
        # Why it ended is told where its answer is read.
        with contextlib.suppress(BrokenPipeError):
            process.stdin.write(line.encode() + b"\n")
        said, deadline = b"", time.monotonic() + timeout
        source = process.stdout.fileno()
        while not said.endswith(b"\n"):
            left = deadline - time.monotonic()
            ready = select.select([source, 0], [], [], max(0.0, left))[0] if left > 0 else []
            if not ready:
                process.kill()
                process.wait()
                return {"late": timeout, "said": self.last_words(worker)}
            if 0 in ready:
                self.more()  # only one message is ever under way: this is the end of stdin
            if source in ready:
                data = os.read(source, CHUNK)
                if not data:
                    return {"code": process.wait(), "said": self.last_words(worker)}
                said += data
        answer: dict[str, Any] = json.loads(said)
        return answer

    def last_words(self, worker: str) -> str:
        """The last line that a worker wrote to stderr."""
        with self.place(worker + ".err").open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - CHUNK))
            lines = file.read().decode(errors="replace").split("\n")
        said = [line.strip() for line in lines if line.strip()]
        return said[-1][:300] if said else ""

    def place(self, name: str) -> Path:
        """A file in the folder.

        Raises:
            RefusedError: there is none yet, or the name leads out of it.
        """
        if self.folder is None or Path(name).name != name:
            raise RefusedError(f"no place for {name!r}", "say hello first")
        return self.folder / name

    def line(self) -> bytes:
        """The next line of stdin."""
        while b"\n" not in self.unread:
            self.more()
        line, _, self.unread = self.unread.partition(b"\n")
        return line

    def take(self, size: int) -> bytes:
        """Some bytes of stdin, at most `size`."""
        if not self.unread:
            self.more()
        data, self.unread = self.unread[:size], self.unread[size:]
        return data

    def more(self) -> None:
        """Read what has come.

        Raises:
            GoneError: stdin has ended, or has long been silent.
        """
        ready = select.select([0], [], [], SILENCE)[0]
        data = os.read(0, CHUNK) if ready else b""
        if not data:
            raise GoneError
        self.unread += data

    def clear(self) -> None:
        """End what runs and delete what was kept."""
        for process in self.workers.values():
            end(process)
        if self.folder is not None:
            shutil.rmtree(self.folder, ignore_errors=True)


def end(process: subprocess.Popen[bytes]) -> None:
    """End a worker at once: it keeps nothing."""
    process.kill()
    process.wait()
    for stream in (process.stdin, process.stdout):
        if stream is not None:
            stream.close()


def surroundings(folder: Path) -> dict[str, str]:
    """The environment of a process: what a library leaves behind is left in the folder."""
    return {**os.environ, "TMPDIR": str(folder), "PYTHONDONTWRITEBYTECODE": "1"}


def look(folder: Path, packages: list[str]) -> dict[str, Any]:
    """What the device is."""
    affinity = getattr(os, "sched_getaffinity", None)
    now = time.time()
    packed = probe(folder, packages)
    speed = "/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor"
    return {
        "python": platform.python_version(),
        "executable": sys.executable,
        "system": f"{platform.system()} {platform.release()}",
        "machine": platform.machine(),
        "processor": first_line("/proc/device-tree/model") or platform.processor(),
        "cpuinfo": first_processor(),
        "governor": first_line(speed),
        "cpus": sorted(affinity(0)) if affinity else None,
        "cores": os.cpu_count(),
        "free": shutil.disk_usage(folder).free,
        "time": now,
        "probing": time.time() - now,
        "packages": packed,
    }


def probe(folder: Path, packages: list[str]) -> dict[str, Any]:
    """Package to its version, or to a list with what importing it says.

    In a process of its own: a build for another processor may end it."""
    command = [sys.executable, "-c", PROBE, *packages]
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            check=False,
            timeout=PROBE_SECONDS,
            cwd=str(folder),
            env=surroundings(folder),
        )
        found: dict[str, Any] = json.loads(done.stdout)
    except (subprocess.TimeoutExpired, ValueError):
        return {name: ["importing it ends Python or takes too long"] for name in packages}
    return found


def first_processor() -> str:
    """What /proc/cpuinfo says of the first processor, and of all in common."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
    blocks = [block for block in text.split("\n\n") if block.strip()]
    return "\n".join([blocks[0], *blocks[-1:]] if len(blocks) > 1 else blocks)


def first_line(path: str) -> str:
    """Of a file, without the zero byte that device trees end in; empty where there is none."""
    try:
        text = Path(path).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
    return text.partition("\n")[0].strip("\0 ")


def tell(answer: dict[str, Any]) -> None:
    """Answer by one line."""
    data = json.dumps(answer).encode() + b"\n"
    while data:
        data = data[os.write(1, data) :]


def main() -> None:
    """Serve one connection."""
    for number in (signal.SIGHUP, signal.SIGTERM, signal.SIGINT):
        signal.signal(number, leave)
    agent = Agent()
    try:
        with contextlib.suppress(GoneError, BrokenPipeError):
            agent.serve()
    finally:
        for number in (signal.SIGHUP, signal.SIGTERM, signal.SIGINT):
            signal.signal(number, signal.SIG_IGN)
        agent.clear()


def leave(*_: object) -> None:
    """What a signal to end does: as the end of stdin."""
    raise GoneError


if __name__ == "__main__":
    main()
