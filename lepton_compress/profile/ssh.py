"""A connection to a device: one `ssh` process with the agent of `agent.py` at its other end.

OpenSSH's client does all that is about keys, hosts and the user's configuration. It never asks
(BatchMode), and what it says when it fails is turned into a line with a mend.
"""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import shlex
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path
from typing import IO, Any, Self, cast

from lepton_compress.errors import DeviceError
from lepton_compress.profile import agent
from lepton_compress.profile.address import Address, explain
from lepton_compress.provenance import file_digest

START = (
    'import os;t=b"";exec("while len(t)<{size}:\\n c=os.read(0,{size}-len(t))\\n'
    ' if not c: raise SystemExit(3)\\n t+=c");exec(compile(t,"agent","exec"))'
)
"""Reads the agent's text and nothing behind it. In one line, for every kind of shell there."""

HELLO_TIMEOUT = 180.0
MESSAGE_TIMEOUT = 600.0
END_SECONDS = 10.0
GRACE = 20.0
CHUNK = 1 << 16
MOST_NOISE = 1 << 16


class Connection:
    """An open connection; leaving the `with` block ends it and deletes what was copied.

    Attributes:
        facts: what the agent says of the device.
        waiting: whether an answer is due; after an interruption it may not have been read.
    """

    def __init__(
        self, address: Address, packages: Iterable[str], leftovers: Iterable[str] = ()
    ) -> None:
        """Connect, and look around there.

        Args:
            address: of the device.
            packages: that should be importable there; `facts["packages"]` says whether.
            leftovers: folders of connections that were lost, to be deleted.

        Raises:
            DeviceError: it cannot be reached, or has no Python, or no room.
        """
        if shutil.which("ssh") is None:
            raise DeviceError("there is no `ssh` command here", mend="install OpenSSH's client")
        self.address = address
        self._held: set[str] = set()
        self._said = bytearray()
        self._greeted = False
        self.waiting = False
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - closed by `close`
        text = Path(agent.__file__).read_bytes()
        start = shlex.quote(START.format(size=len(text)))
        self._process = subprocess.Popen(
            address.command(f"{address.interpreter} -u -c {start}"),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            bufsize=0,
            start_new_session=True,  # Ctrl-C is for this process, which then ends the connection
        )
        self._input = cast(IO[bytes], self._process.stdin)
        self._output = cast(IO[bytes], self._process.stdout)
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._output, selectors.EVENT_READ)
        try:
            self._write(text)
            self._greeting()
            self.facts = self.ask(
                {
                    "do": "hello",
                    "directory": address.directory,
                    "packages": list(packages),
                    "leftovers": list(leftovers),
                },
                HELLO_TIMEOUT,
            )
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def folder(self) -> str:
        """The private one there."""
        return str(self.facts["folder"])

    def put(self, file: Path, name: str = "") -> str:
        """Copy a file; by its digest, so once however often it is asked for.

        Returns:
            Its name in the folder there.

        Raises:
            DeviceError: the connection is lost, or the disk there is full.
        """
        digest = file_digest(file)
        name = name or digest + file.suffix
        if name in self._held:
            return name
        size = file.stat().st_size
        head = json.dumps({"do": "put", "name": name, "size": size, "sha256": digest})
        with file.open("rb") as source:
            self._write(head.encode() + b"\n")
            while chunk := source.read(CHUNK):
                self._write(chunk)
        self._refused(self._answer(MESSAGE_TIMEOUT))
        self._held.add(name)
        return name

    def ask(self, message: dict[str, Any], timeout: float) -> dict[str, Any]:
        """The agent's answer to a message.

        Raises:
            DeviceError: the connection is lost, or the device refuses.
        """
        self._write(json.dumps(message).encode() + b"\n")
        return self._refused(self._answer(timeout))

    def close(self) -> None:
        """End it. The agent deletes its folder before it lets go."""
        if self._errors.closed:
            return
        with contextlib.suppress(OSError):
            self._input.close()
        try:
            self._process.wait(END_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        finally:
            self._selector.close()
            self._errors.close()
            self._output.close()

    def _greeting(self) -> None:
        """Pass over what a login script prints."""
        passed = 0
        wanted = {"greeting": agent.GREETING}
        while True:
            line = self._line(HELLO_TIMEOUT)
            with contextlib.suppress(ValueError):
                if json.loads(line) == wanted:
                    self._greeted = True
                    return
            passed += len(line)
            if passed > MOST_NOISE:
                raise DeviceError(
                    "its login scripts print without end",
                    where=self.address.host,
                    mend="let them print nothing where there is no terminal",
                )

    def _refused(self, answer: dict[str, Any]) -> dict[str, Any]:
        if "refused" in answer:
            raise DeviceError(answer["refused"], where=self.address.host, mend=answer["mend"])
        return answer

    def _write(self, data: bytes) -> None:
        # A connection that broke is noticed, and explained, where the answer is read.
        with contextlib.suppress(BrokenPipeError):
            view = memoryview(data)
            while view:
                view = view[self._input.write(view) :]

    def _answer(self, timeout: float) -> dict[str, Any]:
        self.waiting = True
        try:
            answer: dict[str, Any] = json.loads(self._line(timeout))
            self.waiting = False
        except ValueError as error:
            raise DeviceError(
                "something else than the agent writes into the connection",
                where=self.address.host,
                lost=True,
            ) from error
        return answer

    def _line(self, timeout: float) -> bytes:
        deadline = time.monotonic() + timeout + GRACE
        while b"\n" not in self._said:
            if not self._selector.select(max(0.0, deadline - time.monotonic())):
                self._process.kill()
                raise DeviceError(
                    f"gave no answer within {timeout:.3g} s", where=self.address.host, lost=True
                )
            chunk = os.read(self._output.fileno(), CHUNK)
            if not chunk:
                raise self._why_ended()
            self._said += chunk
        line, _, rest = self._said.partition(b"\n")
        self._said = rest
        return bytes(line)

    def _why_ended(self) -> DeviceError:
        code = self._process.wait()
        size = self._errors.seek(0, os.SEEK_END)
        self._errors.seek(max(0, size - CHUNK))
        said = self._errors.read().decode(errors="replace").strip()
        return explain(self.address, code, said, connected=self._greeted)
