"""A connection to a device: one `ssh` process with the agent of `agent.py` at its other end.

OpenSSH's client does all that is about keys, hosts and the user's configuration. It never asks
(BatchMode), and what it says when it fails is turned into a line with a mend. Source of the
options: ssh_config(5), OpenSSH 9.
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
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Self, cast

from lepton_compress.errors import DeviceError
from lepton_compress.profile import agent
from lepton_compress.provenance import describe_cpu, file_digest

OPTIONS = {
    "BatchMode": "yes",
    "ClearAllForwardings": "yes",
    "ConnectTimeout": "10",
    "ControlMaster": "no",
    "LogLevel": "ERROR",
    "RemoteCommand": "none",
    "ServerAliveCountMax": "3",
    "ServerAliveInterval": "5",
}
"""A connection of the user's own that may be shared is used, but none is left behind."""

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

_MENDS = (
    ("permission denied", "it refuses the login", "check user, `identity` and its authorized_keys"),
    ("could not resolve", "no such host", "check `host`"),
    ("connection refused", "it refuses the connection", "check `host` and `port`, and its sshd"),
    ("timed out", "it does not answer", "check `host`, and that it is on and reachable"),
    ("no route to host", "it cannot be reached", "check `host` and the network"),
    ("network is unreachable", "it cannot be reached", "check `host` and the network"),
    ("no such identity", "the identity file does not exist", "check `identity`"),
    ("bad configuration option", "ssh's configuration is wrong", "check it by `ssh -G`"),
    ("can't open user config file", "there is no such configuration", "check `ssh_config`"),
)


@dataclass(frozen=True)
class Address:
    """How to reach a device.

    Attributes:
        host: as the `ssh` command takes it; an alias of the user's configuration too.
        port: None leaves it to the configuration.
        identity: a private key's file.
        config: a configuration to use instead of the user's.
        python: the interpreter there; `~/` is its home there.
        directory: where to make the private folder; empty for its temporary one.
    """

    host: str
    port: int | None = None
    identity: Path | None = None
    config: Path | None = None
    python: str = "python3"
    directory: str = ""

    def command(self, remote: str) -> list[str]:
        """That runs a line of shell there."""
        options = [f"-o{name}={value}" for name, value in OPTIONS.items()]
        if self.config is not None:
            options += ["-F", str(self.config)]
        if self.port is not None:
            options += ["-p", str(self.port)]
        if self.identity is not None:
            options += ["-oIdentitiesOnly=yes", "-i", str(self.identity)]
        return ["ssh", "-T", *options, "--", self.host, remote]

    @property
    def login(self) -> str:
        """The command that a person would type to reach it."""
        parts = ["ssh"]
        if self.config is not None:
            parts += ["-F", str(self.config)]
        if self.port is not None:
            parts += ["-p", str(self.port)]
        return shlex.join([*parts, self.host])

    @property
    def interpreter(self) -> str:
        """As a shell there takes it."""
        if self.python.startswith("~/"):
            return "~/" + shlex.quote(self.python[2:])
        return shlex.quote(self.python)


class Connection:
    """An open connection; leaving the `with` block ends it and deletes what was copied.

    Attributes:
        facts: what the agent says of the device.
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
        try:
            answer: dict[str, Any] = json.loads(self._line(timeout))
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


def explain(address: Address, code: int, said: str, *, connected: bool) -> DeviceError:
    """Why `ssh` ended, as an error.

    Args:
        code: its exit code; 255 is a failure of its own, others are the remote command's.
        said: what it wrote to stderr.
        connected: whether the agent had answered before.
    """
    where, lower = address.host, said.lower()
    last = said.splitlines()[-1].strip() if said else f"ssh ended with exit code {code}"
    if connected:
        return DeviceError(f"the connection was lost ({last})", where=where, lost=True)
    if code != 255 and (code in (126, 127) or "not found" in lower):
        return DeviceError(
            f"there is no {address.python!r} ({last})",
            where=where,
            mend="install Python 3.8 or newer there, or name its `python`",
        )
    if code != 255:
        return DeviceError(
            f"{address.python!r} does not run there ({last})",
            where=where,
            mend="Python 3.8 or newer is needed; name its `python`",
        )
    if "remote host identification has changed" in lower:
        return DeviceError(
            "its host key is another one than before",
            where=where,
            mend=f"if that is right, remove the old one (`ssh-keygen -R`) and connect by hand: "
            f"`{address.login}`",
        )
    if "host key" in lower:
        port = f"-p {address.port} " if address.port else ""
        return DeviceError(
            "its host key is not known",
            where=where,
            mend=f"connect once by hand to accept it: `{address.login}`, or add what "
            f"`ssh-keyscan {port}{shlex.quote(address.host.rpartition('@')[2])}` prints to "
            "known_hosts",
        )
    for pattern, problem, mend in _MENDS:
        if pattern in lower:
            return DeviceError(f"{problem} ({last})", where=where, mend=mend)
    return DeviceError(f"ssh failed ({last})", where=where, mend=f"try `{address.login}`")


def environment(host: str, facts: dict[str, Any]) -> dict[str, Any]:
    """The agent's facts as a result's environment tells a machine's."""
    cpus = facts["cpus"]
    cores = len(cpus) if cpus is not None else facts["cores"]
    return {
        "host": host,
        "python": facts["python"],
        "system": facts["system"],
        "cpu": describe_cpu(facts["cpuinfo"], facts["machine"], facts["processor"], cores),
        "governor": facts["governor"],
        "libraries": {
            name: version for name, version in facts["packages"].items() if isinstance(version, str)
        },
    }


def lacking(address: Address, facts: dict[str, Any]) -> Iterator[DeviceError]:
    """What the runtime needs and the device does not have."""
    absent = {name: told for name, told in facts["packages"].items() if not isinstance(told, str)}
    install = f"{facts['executable']} -m pip install {' '.join(absent)}"
    for name, (said,) in absent.items():
        yield DeviceError(
            f"{facts['executable']} cannot import {name} ({said})",
            where=address.host,
            mend=f"`{address.login} {shlex.quote(install)}`, or name another `python`",
        )
